"""The ledger behind a simulated market: its own writer, in this process, on a database that lives in memory.

Everything billed goes through the same beacons, conditional updates and postings as in the server.
"""

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.pool import StaticPool

from bidder_api.database import Database, sqlite_library
from bidder_api.migration import upgrade
from ledger import store
from ledger.beacon import BeaconKeys
from ledger.command import AddFunds
from ledger.event import EventResult, ReportedEvent
from ledger.settings import Settings
from ledger.spend import SpendUpdate
from ledger.writer import LedgerWriter
from sim.result import Books

RETAILER = "simulated"


class Till:
    """Takes money in, takes events, and shows the books.

    Args:
        keys: what the beacons are sealed with.
        currency, time_zone: of the deployment.
        now_ms: tells simulated time.
        on_spend: told of what each commit moved.
    """

    def __init__(
        self,
        keys: BeaconKeys,
        currency: str,
        time_zone: str,
        now_ms: Callable[[], int],
        on_spend: Callable[[SpendUpdate], None],
    ) -> None:
        self._database = database_in_memory()
        self._database.transact(upgrade)
        settings = Settings(currency=currency, time_zone=time_zone)
        transact, read = self._database.transact, self._database.read
        self._writer = LedgerWriter(transact, read, RETAILER, keys, settings, now_ms)
        self._on_spend = on_spend
        self._events: dict[str, int] = {}

    def open_account(
        self,
        advertiser_id: str,
        campaign_id: str,
        daily_micros: int | None,
        total_micros: int | None,
        funds_micros: int,
    ) -> None:
        """Set a campaign's limits and pay its advertiser's money in."""
        self._database.transact(
            lambda connection: store.set_campaign_limits(
                connection, RETAILER, campaign_id, advertiser_id, daily_micros, total_micros
            )
        )
        _, moved = self._writer.command(AddFunds("top-up", advertiser_id, funds_micros, f"opening {advertiser_id}"))
        self._on_spend(moved)

    def record(self, events: Sequence[ReportedEvent]) -> list[EventResult]:
        """Commit the events together and return what became of each."""
        results, moved = self._writer.record([events])
        self._on_spend(moved)
        for one in results[0]:
            name = one.result if one.code is None else f"{one.result}: {one.code}"
            self._events[name] = self._events.get(name, 0) + 1
        return results[0]

    def close(self) -> Books:
        """Return what the books say at the end, read through the views auditors use."""
        found = self._database.read(self._audit)
        self._database.close()
        return found

    def _audit(self, connection: Connection) -> Books:
        entries, total = connection.execute(
            sa.text("SELECT count(*), coalesce(sum(amount_micros), 0) FROM audit_entry")
        ).one()
        billed = connection.execute(sa.text("SELECT coalesce(sum(amount_micros), 0) FROM audit_event")).scalar_one()
        over = connection.execute(
            sa.text(
                "SELECT coalesce(sum(spent_micros - limit_micros), 0) FROM audit_budget "
                "WHERE spent_micros > limit_micros"
            )
        ).scalar_one()
        return Books(
            sum_micros=int(total),
            overspent_micros=int(over),
            entry_count=int(entries),
            billed_micros=int(billed),
            events=dict(sorted(self._events.items())),
        )


def database_in_memory() -> Database:
    """Return an empty SQLite in memory that behaves as `open_database`'s do; nothing of it lasts."""
    engine = sa.create_engine(
        "sqlite+pysqlite://",
        module=sqlite_library(),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return Database(engine)
