"""The one writer: a group of events, or one command, in one transaction; nothing is answered before it is committed.

Synchronous and without a queue of its own (see `pipe.py`). What storage says when it fails is sorted here: what may
pass, what to wait for, and what only the end of the process can answer.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ledger import chain, store
from ledger.beacon import BeaconKeys
from ledger.billing import TOTAL, Budget, Budgets, Charge, History, Late, Outcome, Purse, Recorded, charge_group
from ledger.calendar import Calendar
from ledger.closing import close_period
from ledger.command import (
    AddFunds,
    AgreeCommission,
    BillingProfileSet,
    ClosePeriod,
    Command,
    CommandAnswer,
    CreditLineSet,
    EndCommission,
    IssueInvoice,
    OrdersRecorded,
    PostCommissions,
    RecordOrders,
    Reverse,
    Reversed,
    ReverseInvalid,
    SetBilling,
    SetCreditLine,
)
from ledger.commissioning import agree, end, post_due
from ledger.errors import LedgerBroken, LedgerRefused, LedgerUnavailable, StorageFailed
from ledger.event import EventResult, EventType, ReportedEvent
from ledger.finding import reverse_invalid
from ledger.funding import add_funds, reverse, set_credit_line, to_funds
from ledger.intake import Received, receive
from ledger.invoicing import issue_credit_note, issue_invoice, set_billing
from ledger.journal import post
from ledger.notice import tell_of_charges, tell_of_funds, tell_of_money
from ledger.ordering import keep_orders
from ledger.settings import Settings
from ledger.spend import CampaignSpend, SpendUpdate
from ledger.terms import NO_VISITOR
from ledger.watch import TrafficWatch

T = TypeVar("T")
Transact = Callable[[Callable[[Connection], Any]], Any]  # runs the work in one transaction and returns its answer

CHAIN_KIND = "event"
ATTEMPT_COUNT_MAX = 5
NO_LIMITS = (None, None)
_CLICK, _VIEW = EventType.CLICK, EventType.VIEW


class LedgerWriter:
    """Records events and carries out commands, each durably before it returns.

    Args:
        transact: runs work in one transaction and commits it.
        read: runs work on one consistent view.
        retailer_id: whose books.
        keys: what beacons were sealed with.
        settings: the ledger's.
        now_ms: tells UTC in milliseconds since 1970.
    """

    def __init__(
        self,
        transact: Transact,
        read: Transact,
        retailer_id: str,
        keys: BeaconKeys,
        settings: Settings,
        now_ms: Callable[[], int],
    ) -> None:
        self._transact = transact
        self._read = read
        self._retailer_id = retailer_id
        self._keys = keys
        self._settings = settings
        self._now_ms = now_ms
        self._calendar = Calendar(settings.time_zone)
        self._watch = TrafficWatch(settings) if settings.invalid_traffic == "on" else None

    def record(self, requests: Sequence[Sequence[ReportedEvent]]) -> tuple[list[list[EventResult]], SpendUpdate]:
        """Record the events of several requests in one commit; return their results, and what it moved.

        Raises:
            LedgerUnavailable: nothing was committed, or nobody can know; sending the same again is safe.
            StorageFailed: the process must end.
            LedgerBroken: one of the requests breaks a promise of the books; nothing of any was committed.
        """
        now_ms = self._now_ms()
        started_at = time.perf_counter()
        received = [
            [receive(event, self._keys, self._calendar, self._settings, now_ms) for event in events]
            for events in requests
        ]
        group = [one for request in received for one in request if isinstance(one, Received)]
        outcomes: list[Outcome] = []
        budgets = Budgets({}, {})
        if group:
            outcomes, budgets = self._commit(
                lambda connection: commit_group(
                    connection,
                    self._retailer_id,
                    group,
                    self._settings,
                    self._settings.currency,
                    now_ms,
                    self._calendar.period(now_ms),
                    self._watch,
                )
            )
        if self._watch is not None and group:
            self._watch.keep()
        following = iter(outcomes)
        results = [
            [one if isinstance(one, EventResult) else _result(one, next(following)) for one in request]
            for request in received
        ]
        return results, _moved(budgets, outcomes, len(group), time.perf_counter() - started_at)

    def command(self, command: Command) -> tuple[CommandAnswer, SpendUpdate]:
        """Carry out one command in one commit; return what is booked, and what it moved.

        Raises:
            LedgerRefused: the command breaks a rule; nothing was written.
            LedgerUnavailable, StorageFailed: as `record`.
        """
        now_ms = self._now_ms()
        answer, moved = self._commit(lambda connection: self._carry_out(connection, command, now_ms))
        return answer, moved

    def state(self) -> SpendUpdate:
        """Return what every campaign has spent today and in all, and every advertiser's funds."""
        today = self._calendar.day(self._now_ms())

        def look(connection: Connection) -> SpendUpdate:
            spent = {(c, day): micros for c, day, micros in store.list_spend(connection, self._retailer_id, today)}
            campaigns = [
                CampaignSpend(campaign_id, today, spent.get((campaign_id, today), 0), micros)
                for (campaign_id, day), micros in spent.items()
                if day == TOTAL
            ]
            funds = [to_funds(row) for row in store.list_funds(connection, self._retailer_id, None, None, None)]
            return SpendUpdate(True, campaigns, funds)

        found = self._guarded(lambda: self._read(look))
        assert isinstance(found, SpendUpdate)
        return found

    def probe(self) -> None:
        """Commit something that changes nothing.

        Raises:
            LedgerUnavailable, StorageFailed: it could not be.
        """

        def touch_head(connection: Connection) -> None:
            chain.save_head(connection, self._retailer_id, chain.lock_head(connection, self._retailer_id))

        self._commit(touch_head)

    def _carry_out(self, connection: Connection, command: Command, now_ms: int) -> tuple[CommandAnswer, SpendUpdate]:
        retailer_id, currency, calendar = self._retailer_id, self._settings.currency, self._calendar
        moved: list[str] = []
        answer: CommandAnswer
        if isinstance(command, AddFunds):
            answer = add_funds(connection, retailer_id, command, currency, calendar, now_ms)
            tell_of_money(connection, retailer_id, command, answer, currency, now_ms)
            moved = [command.advertiser_id]
        elif isinstance(command, SetCreditLine):
            answer = CreditLineSet(set_credit_line(connection, retailer_id, command))
            moved = [command.advertiser_id]
        elif isinstance(command, Reverse):
            reversal, moved = reverse(connection, retailer_id, command, currency, calendar, now_ms)
            answer = Reversed(reversal)
        elif isinstance(command, ReverseInvalid):
            answer, moved = reverse_invalid(connection, retailer_id, command, currency, calendar, now_ms)
        elif isinstance(command, RecordOrders):
            answer = OrdersRecorded(keep_orders(connection, retailer_id, command.orders, now_ms))
        elif isinstance(command, SetBilling):
            answer = BillingProfileSet(set_billing(connection, retailer_id, command, now_ms))
        elif isinstance(command, ClosePeriod):
            answer = close_period(connection, retailer_id, command, self._settings.time_zone, now_ms)
        elif isinstance(command, AgreeCommission):
            answer = agree(connection, retailer_id, command, now_ms)
        elif isinstance(command, EndCommission):
            answer = end(connection, retailer_id, command, now_ms)
        elif isinstance(command, PostCommissions):
            answer, moved = post_due(connection, retailer_id, command.orders, command.model, currency, calendar, now_ms)
        else:
            issue = issue_invoice if isinstance(command, IssueInvoice) else issue_credit_note
            answer = issue(connection, retailer_id, command, currency, self._settings.time_zone, now_ms)  # type: ignore[arg-type]
            moved = [answer.advertiser_id]
        if moved:
            tell_of_funds(connection, retailer_id, moved, self._settings.low_funds_micros, currency, now_ms)
        funds = [to_funds(row) for row in store.read_funds(connection, retailer_id, moved)] if moved else []
        return answer, SpendUpdate(False, [], funds)

    def _commit(self, work: Callable[[Connection], T]) -> T:
        for attempt in range(ATTEMPT_COUNT_MAX):
            try:
                done: T = self._guarded(lambda: self._transact(work))
                return done
            except store.BudgetMoved:
                if attempt + 1 == ATTEMPT_COUNT_MAX:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except DBAPIError as failure:
            raise sort_failure(failure) from failure


def commit_group(
    connection: Connection,
    retailer_id: str,
    group: Sequence[Received],
    settings: Settings,
    currency: str,
    now_ms: int,
    open_period: str,
    watch: TrafficWatch | None,
) -> tuple[list[Outcome], Budgets]:
    """Write one group of events: charges within every budget, postings, events and their place in the chain.

    A charge is booked in the month it happened in, or in `open_period`, YYYY-MM, once that month is sealed. The chain's
    head is locked first, so that what is read here stays true until the commit.
    """
    if watch is not None:
        watch.begin(now_ms)
    store.settle(connection)
    head = chain.lock_head(connection, retailer_id)
    history = History(
        Recorded(*row)
        for row in store.find_recorded(
            connection, retailer_id, {r.token_id for r in group}, {r.event_id for r in group}
        )
    )
    budgets = read_budgets(connection, retailer_id, group, open_period)
    outcomes = charge_group(group, history, budgets, watch)
    charges = [outcome for outcome in outcomes if isinstance(outcome, Charge)]
    moved, opened = budgets.moved(), budgets.opened()
    store.spend(connection, retailer_id, [(b.campaign_id, b.day, b.limit_micros, b.added_micros) for b in moved])
    store.take_funds(connection, retailer_id, [purse.row() for purse in opened])
    tell_of_charges(connection, retailer_id, group, moved, opened, settings.low_funds_micros, currency, now_ms)
    transactions = [charge.transaction for charge in charges if charge.transaction is not None]
    transaction_ids = iter(post(connection, retailer_id, head, transactions, currency, now_ms))
    rows = [
        _event_row(seq, charge, currency, now_ms, None if charge.transaction is None else next(transaction_ids))
        for seq, charge in enumerate(charges, head.next_seq(CHAIN_KIND))
    ]
    leaf_hashes = chain.hash_rows(CHAIN_KIND, rows)
    store.insert_events(connection, retailer_id, rows, [chain.leaf_check(leaf) for leaf in leaf_hashes])
    chain.extend(connection, retailer_id, head, CHAIN_KIND, leaf_hashes)
    if charges:
        chain.save_head(connection, retailer_id, head)
    store.insert_touches(connection, retailer_id, _touches(connection, retailer_id, charges, settings.keeps_views))
    return outcomes, budgets


def read_budgets(connection: Connection, retailer_id: str, group: Sequence[Received], open_period: str) -> Budgets:
    """Return everything that limits what the group may be charged, and where it is booked."""
    campaign_days = {
        (r.terms.campaign_id, r.day) for r in group if r.terms.is_sponsored and r.terms.campaign_id is not None
    }
    if not campaign_days:
        return Budgets({}, {})
    campaign_ids = {campaign_id for campaign_id, _ in campaign_days}
    days = {day for _, day in campaign_days} | {TOTAL}
    limits = {c: (daily, total) for c, daily, total in store.read_limits(connection, retailer_id, campaign_ids)}
    spent = {(c, day): micros for c, day, micros in store.read_spend(connection, retailer_id, campaign_ids, days)}
    totals = {
        campaign_id: Budget(
            campaign_id, TOTAL, limits.get(campaign_id, NO_LIMITS)[1], spent.get((campaign_id, TOTAL), 0)
        )
        for campaign_id in campaign_ids
    }
    campaigns = {
        (c, day): (Budget(c, day, limits.get(c, NO_LIMITS)[0], spent.get((c, day), 0)), totals[c])
        for c, day in campaign_days
    }
    advertiser_ids = {r.terms.advertiser_id for r in group if r.terms.advertiser_id is not None}
    purses = {row[0]: Purse.of(*row) for row in store.read_funds(connection, retailer_id, advertiser_ids)}
    is_of_now = all(day[:7] == open_period for _, day in campaign_days)
    sealed_until = "" if is_of_now else store.last_sealed(connection, retailer_id)
    return Budgets(campaigns, purses, sealed_until, open_period)


def sort_failure(failure: DBAPIError) -> LedgerRefused | LedgerBroken:
    """Return what a database's failure means: try again later, or end the process.

    After a failed write or fsync, SQLite and the kernel may disagree about what is on disk, so that only a new process
    that recovers from the disk may be believed. A disk without room is another matter: nothing was written.
    """
    driver = failure.orig
    name = getattr(driver, "sqlite_errorname", None)
    if name is not None:
        if name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"):
            return LedgerUnavailable("storage_full", "there is no room left to write to")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
            return LedgerUnavailable("storage_busy", "the database could not be written to")
        if name.startswith(("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return StorageFailed(f"the database file failed: {name}")
        return LedgerBroken(f"the database refused what the ledger wrote: {name}: {driver}")
    sqlstate = getattr(driver, "sqlstate", None)
    if sqlstate is None or failure.connection_invalidated or sqlstate.startswith(("08", "57P", "40")):
        return LedgerUnavailable("storage_gone", "the database cannot be reached")
    if sqlstate == "53100":
        return LedgerUnavailable("storage_full", "there is no room left to write to")
    if sqlstate.startswith(("53", "55", "57", "58", "25006")):
        return LedgerUnavailable("storage_busy", "the database could not be written to")
    return LedgerBroken(f"the database refused what the ledger wrote: {sqlstate}: {driver}")


def _event_row(seq: int, charge: Charge, currency: str, now_ms: int, transaction_id: str | None) -> tuple[Any, ...]:
    """Return an event's columns in the order of `store.EVENT_COLUMNS`."""
    received = charge.received
    terms = received.terms
    return (
        seq,
        received.token_id,
        received.type,
        received.event_id,
        terms.auction_id,
        terms.placement_id,
        terms.slot_position,
        terms.product_id,
        terms.advertiser_id,
        terms.campaign_id,
        terms.bid_id,
        terms.variant,
        charge.status,
        charge.code,
        terms.price_micros,
        charge.amount_micros,
        charge.given_back_micros,
        currency,
        received.day,
        received.reported_at_ms,
        received.occurred_at_ms,
        now_ms,
        transaction_id,
    )


def _touches(
    connection: Connection, retailer_id: str, charges: Sequence[Charge], with_views: bool
) -> list[tuple[str, str, bytes, int]]:
    """Return what an order may be credited to: clicks, and if asked for views, of visitors who consented.

    Of nobody who was erased since.
    """
    kinds = (_CLICK, _VIEW) if with_views else (_CLICK,)
    some = [
        one
        for one in [charge.received for charge in charges]
        if one.type in kinds and one.invalid is None and one.terms.visitor_pseudonym != NO_VISITOR
    ]
    if not some:
        return []
    erased = store.read_erasures(connection, retailer_id, {one.terms.visitor_pseudonym for one in some})
    return [
        (one.token_id, one.type, one.terms.visitor_pseudonym, one.occurred_at_ms)
        for one in some
        if one.terms.issued_at_ms > erased.get(one.terms.visitor_pseudonym, -1)
    ]


def _result(received: Received, outcome: Outcome) -> EventResult:
    if isinstance(outcome, Charge):
        return EventResult(received.event_id, outcome.status, outcome.code, outcome.amount_micros)
    if isinstance(outcome, Late):
        return EventResult(received.event_id, "rejected", "expired")
    return EventResult(received.event_id, outcome.result, outcome.code, outcome.amount_micros)


def _moved(budgets: Budgets, outcomes: Sequence[Outcome], event_count: int, seconds: float) -> SpendUpdate:
    """Return what a commit moved, as those who serve fills must know it."""
    campaigns = [
        CampaignSpend(daily.campaign_id, daily.day, daily.spent_micros, total.spent_micros)
        for daily, total in budgets.campaigns.values()
        if daily.added_micros
    ]
    funds = [
        to_funds(
            (
                purse.advertiser_id,
                purse.promo_micros,
                purse.wallet_micros,
                purse.credit_line_micros,
                purse.owed_micros,
            )
        )
        for purse in budgets.opened()
    ]
    billed = sum(outcome.amount_micros for outcome in outcomes if isinstance(outcome, Charge))
    given_back = sum(outcome.given_back_micros for outcome in outcomes if isinstance(outcome, Charge))
    return SpendUpdate(False, campaigns, funds, event_count, seconds, billed, given_back)
