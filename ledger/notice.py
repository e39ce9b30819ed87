"""What advertisers and finance are told of without having asked: funds, budgets, invoices, payments.

A notice is a row of the outbox (`store.notices`), written in the transaction that makes it true and under the chain's
head, so that neither can be without the other; who delivers reads it from there. Nothing of a visitor is in it.

Funds sink through two lines, low and exhausted. Which of them was passed is kept, so that each is told of once on the
way down, and again only after funds had risen above it. A budget is exhausted by the one commit that brings what was
spent from below its limit to it, which no other commit can do again before the limit is raised or the next day begins.
"""

import secrets
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from ledger import store
from ledger.billing import TOTAL, Budget, Purse
from ledger.command import AddFunds, FundingKind, FundsAdded
from ledger.funding import to_funds, to_moment
from ledger.intake import Received
from ledger.terms import new_id

NoticeType = Literal[
    "funds.low",
    "funds.exhausted",
    "campaign.daily_budget_exhausted",
    "campaign.total_budget_exhausted",
    "invoice.issued",
    "payment.received",
]
EXHAUSTED, LOW, AMPLE = range(3)  # levels of funds
MONEY_RECEIVED = frozenset({"top-up", "payment"})

_encode = msgspec.json.Encoder().encode
FundsRow = tuple[str, int, int, int, int]  # advertiser_id, promo, wallet, credit line, owed


class FundsSunk(Struct, frozen=True, kw_only=True):
    """Data of `funds.low` and `funds.exhausted`: what is left in all, and its parts.

    Attributes:
        threshold_micros: below which funds are low.
    """

    advertiser_id: str
    currency: str
    threshold_micros: int
    funds_micros: int
    promo_micros: int
    wallet_micros: int
    credit_line_micros: int
    owed_micros: int


class BudgetExhausted(Struct, frozen=True, kw_only=True):
    """Data of `campaign.daily_budget_exhausted` and `campaign.total_budget_exhausted`, whose `day` is null."""

    advertiser_id: str
    campaign_id: str
    currency: str
    day: str | None
    limit_micros: int
    spent_micros: int


class InvoiceIssued(Struct, frozen=True, kw_only=True):
    """Data of `invoice.issued`."""

    advertiser_id: str
    currency: str
    number: str
    period: str
    net_micros: int
    vat_micros: int
    due_micros: int


class PaymentReceived(Struct, frozen=True, kw_only=True):
    """Data of `payment.received`: a top-up, or a payment for invoices."""

    advertiser_id: str
    currency: str
    kind: FundingKind
    amount_micros: int
    reference: str
    transaction_id: str


Told = FundsSunk | BudgetExhausted | InvoiceIssued | PaymentReceived
DATA: dict[NoticeType, type[Told]] = {  # what each type tells
    "funds.low": FundsSunk,
    "funds.exhausted": FundsSunk,
    "campaign.daily_budget_exhausted": BudgetExhausted,
    "campaign.total_budget_exhausted": BudgetExhausted,
    "invoice.issued": InvoiceIssued,
    "payment.received": PaymentReceived,
}
Notice = tuple[NoticeType, Told]


def tell(connection: Connection, retailer_id: str, notices: Sequence[Notice], now_ms: int) -> None:
    """Write notices; the caller holds the chain's head."""
    if not notices:
        return
    rows = [
        (new_id("ntc", now_ms, secrets.token_bytes(10)), kind, data.advertiser_id, write_body(kind, data, now_ms))
        for kind, data in notices
    ]
    store.insert_notices(connection, retailer_id, rows, now_ms)


def write_body(kind: str, data: object, now_ms: int) -> str:
    """Return a notice as it is sent: its type, when it became true, and what is to be told."""
    return _encode({"type": kind, "timestamp": to_moment(now_ms), "data": data}).decode()


def tell_of_charges(
    connection: Connection,
    retailer_id: str,
    group: Iterable[Received],
    moved: Sequence[Budget],
    opened: Sequence[Purse],
    low_funds_micros: int,
    currency: str,
    now_ms: int,
) -> None:
    """Tell whose budgets and funds one commit's charges exhausted, or brought low."""
    # Something was charged to each of these, so it had room before this commit: only one commit can fill it.
    exhausted = [(one, limit) for one in moved if (limit := one.limit_micros) is not None and one.spent_micros >= limit]
    if exhausted:
        whose = {received.terms.campaign_id: str(received.terms.advertiser_id) for received in group}
        told = [
            _exhausted(one.campaign_id, whose[one.campaign_id], one.day, limit, one.spent_micros, currency)
            for one, limit in exhausted
        ]
        tell(connection, retailer_id, told, now_ms)
    rows = [(p.advertiser_id, p.promo_micros, p.wallet_micros, p.credit_line_micros, p.owed_micros) for p in opened]
    if rows:
        _look_at(connection, retailer_id, rows, low_funds_micros, currency, now_ms)


def tell_of_funds(
    connection: Connection,
    retailer_id: str,
    advertiser_ids: Sequence[str],
    low_funds_micros: int,
    currency: str,
    now_ms: int,
) -> None:
    """Look at funds that something else than charges moved, and tell whose passed a line. The head is locked."""
    rows = store.read_funds(connection, retailer_id, advertiser_ids)
    _look_at(connection, retailer_id, rows, low_funds_micros, currency, now_ms)


def tell_of_money(
    connection: Connection, retailer_id: str, command: AddFunds, booked: FundsAdded, currency: str, now_ms: int
) -> None:
    """Tell that money came in, once per reference."""
    if booked.is_new and command.kind in MONEY_RECEIVED:
        data = PaymentReceived(
            advertiser_id=booked.advertiser_id,
            currency=currency,
            kind=command.kind,
            amount_micros=booked.amount_micros,
            reference=booked.reference,
            transaction_id=booked.transaction_id,
        )
        tell(connection, retailer_id, [("payment.received", data)], now_ms)


def change_limits(
    connection: Connection,
    retailer_id: str,
    campaign_id: str,
    advertiser_id: str,
    daily_micros: int | None,
    total_micros: int | None,
    today: str,
    currency: str,
    now_ms: int,
) -> None:
    """Set a campaign's limits, and tell where that alone exhausts one; the chain's head is locked."""
    found = store.read_limits(connection, retailer_id, [campaign_id])
    before = found[0][1:] if found else (None, None)
    spent = {day: micros for _, day, micros in store.read_spend(connection, retailer_id, [campaign_id], [today, TOTAL])}
    store.set_campaign_limits(connection, retailer_id, campaign_id, advertiser_id, daily_micros, total_micros)
    told = [
        _exhausted(campaign_id, advertiser_id, day, limit_micros, spent[day], currency)
        for day, old_micros, limit_micros in ((today, before[0], daily_micros), (TOTAL, before[1], total_micros))
        if day in spent and limit_micros is not None and limit_micros <= spent[day]
        if old_micros is None or old_micros > spent[day]
    ]
    tell(connection, retailer_id, told, now_ms)


def set_low_funds(
    connection: Connection,
    retailer_id: str,
    advertiser_id: str,
    threshold_micros: int | None,
    low_funds_micros: int,
    currency: str,
    now_ms: int,
) -> None:
    """Set below what an advertiser's funds are low, and tell if they now are. The head is locked.

    Args:
        threshold_micros: its own; None is the setting's.
        low_funds_micros: the setting's.
    """
    store.set_low_funds(connection, retailer_id, advertiser_id, threshold_micros, EXHAUSTED)
    tell_of_funds(connection, retailer_id, [advertiser_id], low_funds_micros, currency, now_ms)


def read_low_funds(connection: Connection, retailer_id: str, advertiser_id: str) -> int | None:
    """Return the threshold an advertiser set, None where the setting's holds."""
    found = store.read_funds_levels(connection, retailer_id, [advertiser_id])
    return found[0][1] if found else None


def _look_at(
    connection: Connection,
    retailer_id: str,
    rows: Sequence[FundsRow],
    low_funds_micros: int,
    currency: str,
    now_ms: int,
) -> None:
    known = {
        who: (low, level) for who, low, level in store.read_funds_levels(connection, retailer_id, [r[0] for r in rows])
    }
    told: list[Notice] = []
    for row in rows:
        funds = to_funds(row)
        low_micros, before = known.get(funds.advertiser_id, (None, EXHAUSTED))
        threshold_micros = low_funds_micros if low_micros is None else low_micros
        level = EXHAUSTED if funds.funds_micros <= 0 else LOW if funds.funds_micros < threshold_micros else AMPLE
        if level == before:
            continue
        store.set_funds_level(connection, retailer_id, funds.advertiser_id, level)
        data = FundsSunk(currency=currency, threshold_micros=threshold_micros, **msgspec.structs.asdict(funds))
        if before > LOW >= level and threshold_micros:
            told.append(("funds.low", data))
        if before > EXHAUSTED >= level:
            told.append(("funds.exhausted", data))
    tell(connection, retailer_id, told, now_ms)


def _exhausted(
    campaign_id: str, advertiser_id: str, day: str, limit_micros: int, spent_micros: int, currency: str
) -> Notice:
    kind: NoticeType = "campaign.total_budget_exhausted" if day == TOTAL else "campaign.daily_budget_exhausted"
    return kind, BudgetExhausted(
        advertiser_id=advertiser_id,
        campaign_id=campaign_id,
        currency=currency,
        day=None if day == TOTAL else day,
        limit_micros=limit_micros,
        spent_micros=spent_micros,
    )
