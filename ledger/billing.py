"""What each event is charged: the price its token promises, never beyond what is left of any budget.

Decides only. Given the events of one commit, what was recorded before, and what is left, it says what becomes of each;
`writer.py` writes it down, and `store.py` checks every limit once more in the statements themselves.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from ledger.chart import REVENUE, promo, unbilled, wallet
from ledger.event import EventType
from ledger.intake import Received
from ledger.journal import Posting, Side, Transaction
from ledger.money import Micros
from ledger.settings import Settings
from ledger.terms import ChargeOn
from ledger.traffic import CLICK_WITHOUT_IMPRESSION

TOTAL = ""  # in place of a day: the whole life of a campaign


class Recorded(Struct, frozen=True):
    """An event that is in the books already."""

    event_id: str
    token_id: str
    type: str
    reported_at_ms: int | None
    code: str | None
    amount_micros: int


class Purse(Struct):
    """What an advertiser can be charged: promotional credit, prepaid money, then the credit line."""

    promo_micros: int
    wallet_micros: int
    credit_line_micros: int
    owed_micros: int

    @property
    def left_micros(self) -> int:
        """Return what may still be charged in all."""
        return self.promo_micros + self.wallet_micros + max(self.credit_line_micros - self.owed_micros, 0)


class Budget(Struct):
    """What a campaign may be charged, on one day or in all, and what it was."""

    limit_micros: int | None
    spent_micros: int


class Budgets(Struct):
    """Everything that limits the charges of one commit, and how far the commit has moved it."""

    campaigns: dict[tuple[str, str], Budget]  # by campaign and day, or TOTAL
    purses: dict[str, Purse]  # by advertiser; who is missing has nothing
    spent: dict[tuple[str, str], int] = {}
    taken: dict[str, list[int]] = {}  # by advertiser: promo, wallet, credit


class Charge(Struct, frozen=True):
    """One event that is new, and what it is charged.

    Attributes:
        status: `accepted` or `unbilled`.
        code: why, or None; `partial` where less than the price was left.
        amount_micros: charged.
        given_back_micros: what the price was above that, for want of budget.
        transaction: the postings, None where nothing is charged.
    """

    received: Received
    status: Literal["accepted", "unbilled"]
    code: str | None
    amount_micros: int = 0
    given_back_micros: int = 0
    transaction: Transaction | None = None


class Repeat(Struct, frozen=True):
    """An event that was reported before: `of` it (`duplicate`), or another under the same id (`conflict`)."""

    of: Recorded
    result: str


class Late(Struct, frozen=True):
    """A new event whose promise no longer holds; nothing of it is recorded."""


Outcome = Charge | Repeat | Late


class History:
    """What is recorded of the tokens and ids of one commit; grows as the commit decides."""

    def __init__(self, recorded: Iterable[Recorded]) -> None:
        self._by_token: dict[tuple[str, str], Recorded] = {}
        self._by_event_id: dict[str, Recorded] = {}
        for row in recorded:
            self.add(row)

    def add(self, row: Recorded) -> None:
        """Take one more event as recorded."""
        self._by_token[row.token_id, row.type] = row
        self._by_event_id[row.event_id] = row

    def find_repeat(self, received: Received) -> Repeat | None:
        """Return what the event repeats, None when it is new."""
        same_id = self._by_event_id.get(received.event_id)
        if same_id is not None and (same_id.token_id, same_id.type, same_id.reported_at_ms) != (
            received.token_id,
            received.type,
            received.reported_at_ms,
        ):
            return Repeat(same_id, "conflict")
        of = self._by_token.get((received.token_id, received.type))
        return None if of is None else Repeat(of, "duplicate")

    def has_impression(self, token_id: str) -> bool:
        """Say whether the fill is known to have been on a screen."""
        return (token_id, EventType.IMPRESSION) in self._by_token or (token_id, EventType.VIEW) in self._by_token


def charge_group(group: Sequence[Received], history: History, budgets: Budgets, settings: Settings) -> list[Outcome]:
    """Decide what becomes of each event of one commit, in their order.

    `budgets` is moved on by what is charged. An impression anywhere in the group counts as seen before its click,
    since the two may overtake each other on the way.
    """
    seen: set[str] | None = None
    if settings.invalid_traffic == "on":
        seen = {r.token_id for r in group if r.type is not EventType.CLICK and r.invalid is None and not r.is_late}
    outcomes: list[Outcome] = []
    for received in group:
        repeat = history.find_repeat(received)
        if repeat is not None:
            outcomes.append(repeat)
            continue
        if received.is_late:
            outcomes.append(Late())
            continue
        code = _reason_not_to_charge(received)
        is_paid_click = code is None and received.type is EventType.CLICK
        if is_paid_click and seen is not None and not _was_seen(received.token_id, seen, history):
            code = CLICK_WITHOUT_IMPRESSION
        charge = _charge(received, budgets) if code is None else Charge(received, "unbilled", code)
        history.add(
            Recorded(
                received.event_id,
                received.token_id,
                received.type,
                received.reported_at_ms,
                charge.code,
                charge.amount_micros,
            )
        )
        outcomes.append(charge)
    return outcomes


def _was_seen(token_id: str, seen: set[str], history: History) -> bool:
    return token_id in seen or history.has_impression(token_id)


def _reason_not_to_charge(received: Received) -> str | None:
    """Return the first rule that leaves the event free; the order is part of the contract."""
    if received.invalid is not None:
        return received.invalid
    terms = received.terms
    charge_on = terms.charge_on
    if charge_on is None or not terms.is_sponsored or terms.advertiser_id is None or terms.campaign_id is None:
        return "organic"
    if received.type is EventType.CLICK:
        return None if charge_on is ChargeOn.CLICK else "charged_on_impression"
    if received.type is EventType.IMPRESSION:
        return None if charge_on is ChargeOn.IMPRESSION else "charged_on_click"
    return "never_charged"


def _charge(received: Received, budgets: Budgets) -> Charge:
    """Charge the promised price, or what is left of the tightest budget."""
    terms, day = received.terms, received.day
    price_micros = terms.price_micros
    assert terms.advertiser_id is not None
    assert terms.campaign_id is not None
    advertiser_id, campaign_id = terms.advertiser_id, terms.campaign_id
    daily = budgets.campaigns[campaign_id, day]
    total = budgets.campaigns[campaign_id, TOTAL]
    purse = budgets.purses.get(advertiser_id)
    left_micros = 0 if purse is None else purse.left_micros
    tightest = "funds"
    if daily.limit_micros is not None and daily.limit_micros - daily.spent_micros < left_micros:
        left_micros, tightest = daily.limit_micros - daily.spent_micros, "daily_budget"
    if total.limit_micros is not None and total.limit_micros - total.spent_micros < left_micros:
        left_micros, tightest = total.limit_micros - total.spent_micros, "total_budget"
    amount_micros = min(price_micros, left_micros)
    if amount_micros <= 0:
        if price_micros == 0:
            return Charge(received, "accepted", None)
        return Charge(received, "unbilled", tightest, 0, price_micros)
    assert purse is not None
    daily.spent_micros += amount_micros
    total.spent_micros += amount_micros
    budgets.spent[campaign_id, day] = budgets.spent.get((campaign_id, day), 0) + amount_micros
    budgets.spent[campaign_id, TOTAL] = budgets.spent.get((campaign_id, TOTAL), 0) + amount_micros
    given_back_micros = price_micros - amount_micros
    return Charge(
        received,
        "accepted",
        "partial" if given_back_micros else None,
        amount_micros,
        given_back_micros,
        Transaction(
            _take(purse, budgets, advertiser_id, day[:7], amount_micros),
            f"charge:{received.type}",
            day[:7],
            received.occurred_at_ms,
        ),
    )


def _take(purse: Purse, budgets: Budgets, advertiser_id: str, period: str, amount_micros: int) -> tuple[Posting, ...]:
    """Take an amount that is there out of the purse; return the postings."""
    taken = budgets.taken.get(advertiser_id)
    if taken is None:
        taken = budgets.taken[advertiser_id] = [0, 0, 0]
    revenue = Posting(REVENUE, Side.CREDIT, Micros(amount_micros))
    if not purse.promo_micros and purse.wallet_micros >= amount_micros:  # by far the most
        purse.wallet_micros -= amount_micros
        taken[1] += amount_micros
        return (Posting(wallet(advertiser_id), Side.DEBIT, Micros(amount_micros)), revenue)
    from_promo = min(purse.promo_micros, amount_micros)
    from_wallet = min(purse.wallet_micros, amount_micros - from_promo)
    from_credit = amount_micros - from_promo - from_wallet
    purse.promo_micros -= from_promo
    purse.wallet_micros -= from_wallet
    purse.owed_micros += from_credit
    for kind, part in enumerate((from_promo, from_wallet, from_credit)):
        taken[kind] += part
    legs = (
        (promo(advertiser_id), from_promo),
        (wallet(advertiser_id), from_wallet),
        (unbilled(advertiser_id, period), from_credit),
    )
    return (*(Posting(account, Side.DEBIT, Micros(part)) for account, part in legs if part), revenue)
