"""What each event is charged: the price its token promises, never beyond what is left of any budget.

Decides only. Given the events of one commit, what was recorded before, and what is left, it says what becomes of each;
`writer.py` writes it down, and `store` checks every limit once more in the statements themselves.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, Self

from msgspec import Struct

from ledger.chart import REVENUE, AccountName, promo, unbilled, wallet
from ledger.event import EventType
from ledger.intake import Received
from ledger.journal import Posting, Side, Transaction
from ledger.money import Micros
from ledger.traffic import CLICK_AFTER_MS_MIN, CLICK_TOO_FAST, CLICK_WITHOUT_IMPRESSION
from ledger.watch import TrafficWatch

TOTAL = ""  # in place of a day: the whole life of a campaign

_CLICK, _IMPRESSION, _VIEW = EventType.CLICK, EventType.IMPRESSION, EventType.VIEW
_DEBIT, _CREDIT = Side.DEBIT, Side.CREDIT
_REASONS = {kind: f"charge:{kind.value}" for kind in EventType}


class Recorded(Struct, frozen=True):
    """An event that is in the books already."""

    event_id: str
    token_id: str
    type: str
    reported_at_ms: int | None
    code: str | None
    amount_micros: int


class Purse(Struct, gc=False):
    """What an advertiser can be charged: promotional credit, prepaid money, then the credit line.

    Attributes:
        left_micros: of all three together.
        taken: from promotional credit, wallet and credit line by this commit.
    """

    advertiser_id: str
    promo_micros: int
    wallet_micros: int
    credit_line_micros: int
    owed_micros: int
    left_micros: int
    wallet_account: AccountName
    taken: list[int]

    @classmethod
    def of(
        cls, advertiser_id: str, promo_micros: int, wallet_micros: int, credit_line_micros: int, owed_micros: int
    ) -> Self:
        """Return the purse as the tables have it."""
        left_micros = promo_micros + wallet_micros + max(credit_line_micros - owed_micros, 0)
        return cls(
            advertiser_id,
            promo_micros,
            wallet_micros,
            credit_line_micros,
            owed_micros,
            left_micros,
            wallet(advertiser_id),
            [0, 0, 0],
        )

    def row(self) -> tuple[str, int, int, int]:
        """Return whose it is and what was taken of each kind."""
        promo_micros, wallet_micros, credit_micros = self.taken
        return self.advertiser_id, promo_micros, wallet_micros, credit_micros


class Budget(Struct, gc=False):
    """What a campaign may be charged, on one day or in all, what it was, and what this commit adds to that."""

    campaign_id: str
    day: str
    limit_micros: int | None
    spent_micros: int
    added_micros: int = 0


class Budgets(Struct, frozen=True):
    """Everything that limits the charges of one commit, and how far the commit has moved it."""

    campaigns: dict[tuple[str, str], tuple[Budget, Budget]]  # by campaign and day: the day's and the total
    purses: dict[str, Purse]  # by advertiser; who is missing has nothing
    sealed_until: str = ""  # charges of this month and before are booked in the open one
    open_period: str = ""

    def moved(self) -> list[Budget]:
        """Return the budgets that something was charged to; a total shared by two days once."""
        both = {(one.campaign_id, one.day): one for pair in self.campaigns.values() for one in pair}
        return [one for one in both.values() if one.added_micros]

    def opened(self) -> list[Purse]:
        """Return the purses that something was taken from."""
        return [purse for purse in self.purses.values() if any(purse.taken)]


class Charge(Struct, frozen=True, gc=False):
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


class Repeat(Struct, frozen=True, gc=False):
    """An event that was reported before: a `duplicate` of it, or a `conflict` with another under the same id."""

    result: Literal["duplicate", "conflict"]
    code: str | None
    amount_micros: int | None


class Late(Struct, frozen=True):
    """A new event whose promise no longer holds; nothing of it is recorded."""


Outcome = Charge | Repeat | Late
_CONFLICT = Repeat("conflict", "event_id_in_use", None)


class History:
    """What is recorded of the tokens and ids of one commit; grows as the commit decides."""

    def __init__(self, recorded: Iterable[Recorded]) -> None:
        self._by_token: dict[tuple[str, str], tuple[str | None, int]] = {}
        self._by_event_id: dict[str, tuple[str, str, int | None]] = {}
        self._seen_ms: dict[str, int | None] = {}  # by token, when it was seen in the reporter's words
        for row in recorded:
            self._by_token[row.token_id, row.type] = row.code, row.amount_micros
            self._by_event_id[row.event_id] = row.token_id, row.type, row.reported_at_ms
            if row.type != _CLICK:
                self._see(row.token_id, row.reported_at_ms)

    def see_together(self, group: Iterable[Received]) -> None:
        """Take what the group says was seen as seen before its clicks: the two may overtake each other."""
        for received in group:
            if received.type is not _CLICK and received.invalid is None and not received.is_late:
                self._see(received.token_id, received.reported_at_ms)

    def _see(self, token_id: str, reported_at_ms: int | None) -> None:
        known = self._seen_ms.get(token_id)
        self._seen_ms[token_id] = reported_at_ms if known is None else min(known, reported_at_ms or known)

    def add(self, received: Received, charge: Charge) -> None:
        """Take one more event as recorded."""
        self._by_token[received.token_id, received.type] = charge.code, charge.amount_micros
        self._by_event_id[received.event_id] = received.token_id, received.type, received.reported_at_ms

    def find_repeat(self, received: Received) -> Repeat | None:
        """Return what the event repeats, None when it is new."""
        same_id = self._by_event_id.get(received.event_id)
        if same_id is not None and same_id != (received.token_id, received.type, received.reported_at_ms):
            return _CONFLICT
        of = self._by_token.get((received.token_id, received.type))
        return None if of is None else Repeat("duplicate", *of)

    def fault_of_click(self, received: Received) -> str | None:
        """Return what is wrong with a click's fill having been on a screen, None for nothing."""
        if received.token_id not in self._seen_ms:
            return CLICK_WITHOUT_IMPRESSION
        seen_ms, clicked_ms = self._seen_ms[received.token_id], received.reported_at_ms
        if seen_ms is not None and clicked_ms is not None and clicked_ms - seen_ms < CLICK_AFTER_MS_MIN:
            return CLICK_TOO_FAST
        return None


def charge_group(
    group: Sequence[Received], history: History, budgets: Budgets, watch: TrafficWatch | None
) -> list[Outcome]:
    """Decide what becomes of each event of one commit, in their order.

    `budgets` is moved on by what is charged, and `watch`, which is None where traffic is not watched, by what is new.
    An impression anywhere in the group counts as seen before its click, since the two may overtake each other on the
    way.
    """
    if watch is not None:
        history.see_together(group)
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
        is_due = code is None and received.type.value == received.terms.charge_on
        if code is None and watch is not None:
            code = watch.judge(received)
            if code is None and is_due and received.type is _CLICK:
                code = history.fault_of_click(received)
        if code is not None:
            charge = Charge(received, "unbilled", code)
        elif is_due:
            charge = _charge(received, budgets)
            if watch is not None and charge.amount_micros:
                watch.charged(received)
        else:  # the bid pays for another event: recorded, nothing due
            charge = Charge(received, "accepted", None)
        history.add(received, charge)
        outcomes.append(charge)
    return outcomes


def _reason_not_to_charge(received: Received) -> str | None:
    """Return the first rule that leaves the event free; the order is part of the contract."""
    if received.invalid is not None:
        return received.invalid
    terms = received.terms
    charge_on = terms.charge_on
    if terms.is_sponsored and charge_on is None and terms.advertiser_id is not None:
        return "booked"
    if charge_on is None or not terms.is_sponsored or terms.advertiser_id is None or terms.campaign_id is None:
        return "organic"
    return None


def _charge(received: Received, budgets: Budgets) -> Charge:
    """Charge the promised price, or what is left of the tightest budget."""
    terms, day = received.terms, received.day
    price_micros = terms.price_micros
    assert terms.advertiser_id is not None
    assert terms.campaign_id is not None
    daily, total = budgets.campaigns[terms.campaign_id, day]
    purse = budgets.purses.get(terms.advertiser_id)
    left_micros, tightest = 0 if purse is None else purse.left_micros, "funds"
    if daily.limit_micros is not None and daily.limit_micros - daily.spent_micros < left_micros:
        left_micros, tightest = daily.limit_micros - daily.spent_micros, "daily_budget"
    if total.limit_micros is not None and total.limit_micros - total.spent_micros < left_micros:
        left_micros, tightest = total.limit_micros - total.spent_micros, "total_budget"
    amount_micros = price_micros if price_micros <= left_micros else Micros(left_micros)
    if amount_micros <= 0:
        if price_micros == 0:
            return Charge(received, "accepted", None)
        return Charge(received, "unbilled", tightest, 0, price_micros)
    assert purse is not None
    daily.spent_micros += amount_micros
    daily.added_micros += amount_micros
    total.spent_micros += amount_micros
    total.added_micros += amount_micros
    period = day[:7] if day[:7] > budgets.sealed_until else budgets.open_period
    transaction = Transaction(
        _take(purse, period, amount_micros), _REASONS[received.type], period, received.occurred_at_ms
    )
    given_back_micros = price_micros - amount_micros
    code = "partial" if given_back_micros else None
    return Charge(received, "accepted", code, amount_micros, given_back_micros, transaction)


def _take(purse: Purse, period: str, amount_micros: Micros) -> tuple[Posting, ...]:
    """Take an amount that is there out of the purse; return the postings."""
    purse.left_micros -= amount_micros
    revenue = Posting(REVENUE, _CREDIT, amount_micros)
    if not purse.promo_micros and purse.wallet_micros >= amount_micros:  # by far the most
        purse.wallet_micros -= amount_micros
        purse.taken[1] += amount_micros
        return Posting(purse.wallet_account, _DEBIT, amount_micros), revenue
    from_promo = min(purse.promo_micros, amount_micros)
    from_wallet = min(purse.wallet_micros, amount_micros - from_promo)
    from_credit = amount_micros - from_promo - from_wallet
    purse.promo_micros -= from_promo
    purse.wallet_micros -= from_wallet
    purse.owed_micros += from_credit
    legs = (
        (promo(purse.advertiser_id), from_promo),
        (purse.wallet_account, from_wallet),
        (unbilled(purse.advertiser_id, period), from_credit),
    )
    for kind, (_, part) in enumerate(legs):
        purse.taken[kind] += part
    return (*(Posting(account, _DEBIT, Micros(part)) for account, part in legs if part), revenue)
