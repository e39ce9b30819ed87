"""The read-only SQL views, a contract with whoever audits the books: the same on SQLite and PostgreSQL.

The views themselves are made by migrations 0003 and 0011; here is what they promise, and how to read one.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ledger import store

VIEWS: dict[str, tuple[str, ...]] = {
    "audit_event": (
        "event_id",
        "token_id",
        "type",
        "advertiser_id",
        "campaign_id",
        "status",
        "amount_micros",
        "currency",
        "occurred_at",
        "recorded_at",
        "transaction_id",
    ),
    "audit_entry": (
        "seq",
        "transaction_id",
        "line",
        "account",
        "amount_micros",
        "currency",
        "period",
        "reason",
        "reverses",
        "recorded_at",
    ),
    "audit_balance": ("account", "currency", "posted_micros"),
    "audit_budget": ("campaign_id", "scope", "day", "limit_micros", "spent_micros"),
    "audit_commission": (
        "order_id",
        "line",
        "step",
        "agreement_id",
        "advertiser_id",
        "campaign_id",
        "token_id",
        "type",
        "basis",
        "quantity",
        "sales_micros",
        "amount_micros",
        "period",
        "occurred_at",
        "recorded_at",
        "transaction_id",
    ),
    "audit_chain": ("batch", "kind", "count", "first_seq", "last_seq", "root_hex", "prev_hex"),
}
_ORDER = {
    "audit_event": ("recorded_at", "token_id", "type"),
    "audit_entry": ("seq",),
    "audit_balance": ("account", "currency"),
    "audit_budget": ("campaign_id", "scope", "day"),
    "audit_commission": ("order_id", "line", "step"),
    "audit_chain": ("batch",),
}
_TABLES = {  # what a long view is over, and the rest of its key, which says the order
    "audit_event": (store.events, "seq"),
    "audit_entry": (store.entries, "seq"),
    "audit_commission": (store.commissions, "seq"),
    "audit_chain": (store.chain, "batch"),
}
_NAMES = {"count": "leaf_count"}  # of the columns that have another name there


def read_rows(connection: Connection, retailer_id: str, name: str) -> Iterator[tuple[Any, ...]]:
    """Yield the same rows as the view, the long ones in the order of the books.

    Past the view, by the table's own key: SQLite would sort the view in memory, whole.
    """
    if name not in _TABLES:
        yield from read_view(connection, name)
        return
    table, key = _TABLES[name]
    columns = VIEWS[name]
    moments = [place for place, column in enumerate(columns) if column.endswith("_at")]
    query = (
        sa.select(*(table.c[f"{one}_ms" if one.endswith("_at") else _NAMES.get(one, one)] for one in columns))
        .where(table.c.retailer_id == retailer_id)
        .order_by(table.c[key])
    )
    with connection.execute(query.execution_options(yield_per=2000)) as found:
        for part in found.partitions():
            for row in part:
                values = list(row)
                for place in moments:
                    second, rest = divmod(values[place], 1000)
                    values[place] = f"{_second_text(second)}.{rest:03d}Z"
                yield tuple(values)


@lru_cache(maxsize=1024)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def read_view(connection: Connection, name: str) -> Iterator[tuple[Any, ...]]:
    """Yield a view's rows as its columns, in an order that is the same every time."""
    view = sa.table(name, *(sa.column(column) for column in VIEWS[name]))
    query = sa.select(view).order_by(*(view.c[column] for column in _ORDER[name]))
    found = connection.execute(query.execution_options(yield_per=2000))
    for part in found.partitions():
        yield from (tuple(row) for row in part)


def count_rows(connection: Connection, name: str) -> int:
    """Count a view's rows."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one())
