"""Faults planted on purpose, to show that the tests beside them can fail. Nothing here runs in the product."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ledger import billing, store, writer
from ledger.errors import StorageFailed
from ledger.event import EventResult, ReportedEvent
from ledger.intake import Received, receive
from ledger.spend import SpendUpdate
from ledger.writer import LedgerWriter


class _Undo(Exception):
    """Rolls a transaction back on the way out."""


class AcknowledgesFirst(LedgerWriter):
    """Answers before it commits: what it would have answered, then commits when the next group comes."""

    _unwritten: list[Sequence[Sequence[ReportedEvent]]]

    def record(self, requests: Sequence[Sequence[ReportedEvent]]) -> tuple[list[list[EventResult]], SpendUpdate]:
        unwritten = self.__dict__.setdefault("_unwritten", [])
        while unwritten:
            super().record(unwritten.pop(0))
        transact = self._transact

        def rehearse(work: Callable[[Connection], Any]) -> Any:
            answers: list[Any] = []

            def undone(connection: Connection) -> None:
                answers.append(work(connection))
                raise _Undo

            try:
                transact(undone)
            except _Undo:
                return answers[-1]

        self._transact = rehearse
        try:
            answer = super().record(requests)
        finally:
            self._transact = transact
        unwritten.append(requests)
        return answer


class SwallowsFailures(LedgerWriter):
    """Takes a failed write for a small matter."""

    def record(self, requests: Sequence[Sequence[ReportedEvent]]) -> tuple[list[list[EventResult]], SpendUpdate]:
        try:
            return super().record(requests)
        except StorageFailed:
            answers = [[EventResult(event.event_id, "unbilled") for event in events] for events in requests]
            return answers, SpendUpdate(False, [], [])


class DiesAtTheCommit(LedgerWriter):
    """Is killed at the instant of the commit that exhausts somebody's funds, before anybody hears of it."""

    def record(self, requests: Sequence[Sequence[ReportedEvent]]) -> tuple[list[list[EventResult]], SpendUpdate]:
        answer = super().record(requests)
        if any(funds.funds_micros == 0 for funds in answer[1].funds):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


class TellsAfterwards(DiesAtTheCommit):
    """Writes notices in a transaction of their own, once the charges are committed."""

    def record(self, requests: Sequence[Sequence[ReportedEvent]]) -> tuple[list[list[EventResult]], SpendUpdate]:
        late: list[tuple[Any, ...]] = []
        tell, writer.tell_of_charges = writer.tell_of_charges, lambda _, *told: late.append(told)
        try:
            answer = super().record(requests)
        finally:
            writer.tell_of_charges = tell
        for told in late:
            self._transact(lambda connection, told=told: tell(connection, *told))
        return answer


class ReadsThenWrites(LedgerWriter):
    """Reads what is left before its transaction begins, and writes back sums instead of checked differences."""

    early = threading.local()
    meet: Callable[[], object] = staticmethod(lambda: None)  # lets another writer read the same figures first

    def record(self, requests: Sequence[Sequence[ReportedEvent]]) -> tuple[list[list[EventResult]], SpendUpdate]:
        now_ms = self._now_ms()
        received = [
            receive(event, self._keys, self._calendar, self._settings, now_ms)
            for events in requests
            for event in events
        ]
        group = [one for one in received if isinstance(one, Received)]
        read = writer.original_read_budgets  # type: ignore[attr-defined]
        self.early.budgets = self._read(lambda connection: read(connection, "retailer", group, ""))
        self.meet()
        return super().record(requests)

    @classmethod
    def plant(cls, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the fault in place of the statements that would prevent it."""

        def spend(connection: Connection, retailer_id: str, rows: Any) -> None:
            for campaign_id, day, limit_micros, _ in rows:
                sum_micros = next(
                    b for b in cls.early.budgets.moved() if (b.campaign_id, b.day) == (campaign_id, day)
                ).spent_micros
                delete = sa.delete(store.campaign_spend).where(
                    store.campaign_spend.c.campaign_id == campaign_id, store.campaign_spend.c.day == day
                )
                connection.execute(delete)
                values = (retailer_id, campaign_id, day, limit_micros, sum_micros)
                connection.execute(store.campaign_spend.insert().values(values))

        def take_funds(connection: Connection, _retailer_id: str, rows: Any) -> None:
            for advertiser_id, *_ in rows:
                left_micros = cls.early.budgets.purses[advertiser_id].wallet_micros
                connection.execute(store.funds.update().values(wallet_micros=left_micros))

        monkeypatch.setattr(writer, "original_read_budgets", writer.read_budgets, raising=False)
        monkeypatch.setattr(writer, "read_budgets", lambda *_: cls.early.budgets)
        monkeypatch.setattr(store, "spend", spend)
        monkeypatch.setattr(store, "take_funds", take_funds)


def forget_duplicates() -> None:
    """Never find what is recorded already. The unique indexes must be gone too: see `without_unique_indexes`."""
    store.find_recorded = lambda *_: []  # type: ignore[assignment]
    billing.History.find_repeat = lambda *_: None  # type: ignore[method-assign]


def forget_levels() -> None:
    """Never keep which line an advertiser's funds have passed."""
    store.set_funds_level = lambda *_: None


def without_unique_indexes(connection: Connection) -> None:
    """Take away what would refuse a second charge."""
    for index in ("uq_events_token", "uq_events_event_id"):
        connection.exec_driver_sql(f"DROP INDEX {index}")
