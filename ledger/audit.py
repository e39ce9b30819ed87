"""The read-only SQL views, a contract with whoever audits the books: the same on SQLite and PostgreSQL.

The views themselves are made by migration 0003; here is what they promise, and how to read one.
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

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
    "audit_chain": ("batch", "kind", "count", "first_seq", "last_seq", "root_hex", "prev_hex"),
}
_ORDER = {
    "audit_event": ("recorded_at", "token_id", "type"),
    "audit_entry": ("seq",),
    "audit_balance": ("account", "currency"),
    "audit_budget": ("campaign_id", "scope", "day"),
    "audit_chain": ("batch",),
}


def read_view(connection: Connection, name: str) -> Iterator[tuple[Any, ...]]:
    """Yield a view's rows as its columns, in an order that is the same every time."""
    view = sa.table(name, *(sa.column(column) for column in VIEWS[name]))
    query = sa.select(view).order_by(*(view.c[column] for column in _ORDER[name]))
    found = connection.execute(query.execution_options(yield_per=2000))
    for part in found.partitions():
        yield from (tuple(row) for row in part)
