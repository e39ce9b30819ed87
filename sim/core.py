"""A closed loop of many auctions of one placement, thousands in one compiled call: for what takes millions of them.

Who takes part, who wins, at what price, what is charged: all of it is the server's own compiled code or its very
arithmetic (`play_auctions_nb` in auction/kernel.py), from candidates that the server's gate found. Here is what goes
in, what moves between two calls (bids, pacing, the day), and the books at the end.

Simpler than `market.py`: one placement, visitors of a few kinds, clicks that come at once (so that nothing is pending
where the server would wait), frequency caps per day.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from msgspec import Struct

from auction.engine import Outcome
from auction.kernel import (
    CAMPAIGN_CHARGES,
    CAMPAIGN_CHARGES_AT_FLOOR,
    CAMPAIGN_CLICKS,
    CAMPAIGN_FACT_COUNT,
    CAMPAIGN_GIVEN_BACK,
    CAMPAIGN_IMPRESSIONS,
    CAMPAIGN_LEFT_DAY,
    CAMPAIGN_LEFT_TOTAL,
    CAMPAIGN_ORDERS,
    CAMPAIGN_PACING,
    CAMPAIGN_SALES,
    CAMPAIGN_SPENT,
    CAMPAIGN_WORTH,
    CLICK_PPM,
    IS_OFFERED,
    NO_LIMIT_MICROS,
    OFFER_BID,
    OFFER_CAMPAIGN,
    OFFER_FACT_COUNT,
    OFFER_FREQUENCY_MAX,
    OFFER_ORDER_PPM,
    OFFER_SALE,
    OFFER_TIE,
    OFFER_WORTH,
    PRICE_CRITICAL,
    PRICE_FIRST,
    PRICE_VCG,
    CandidateArrays,
    LoopArrays,
    PageArrays,
    play_auctions_nb,
)
from auction.market import Market
from auction.pacing import Pacing
from auction.settings import Settings
from ledger.chart import CASH, REVENUE, AccountName, wallet
from ledger.journal import Posting, Side, Transaction
from ledger.money import Micros
from sim.bidder import Policy, Results, Standing, ask
from sim.chance import PPM, Int64s, UInt64s, bits, key_of

Pricing = Literal["critical", "vcg", "first"]
PRICES: dict[Pricing, int] = {"critical": PRICE_CRITICAL, "vcg": PRICE_VCG, "first": PRICE_FIRST}
PERIOD = "2026-11"  # the month a loop's books are of; a loop knows no calendar
STEP_AUCTION_COUNT = 1_000
_GOLDEN = 0x9E3779B97F4A7C15


class Lineup(Struct, frozen=True, eq=False):
    """What is sold on one placement: C offers of G campaigns to W kinds of visitor.

    Attributes:
        page: slots and caps, without pins.
        candidates: (W·C,) every kind of visitor's candidates, offer by offer.
        offer: (OFFER_FACT_COUNT, C) as `LoopArrays` has it; its bids are the most that may be bid, a click's worth.
        of_kind: (2, W·C) as there.
        seen_permille: (S,) true chance that a slot is looked at.
        pricing: what is charged.
    """

    page: PageArrays
    candidates: CandidateArrays
    offer: Int64s
    of_kind: Int64s
    seen_permille: Int64s
    pricing: Pricing = "critical"

    @property
    def kind_count(self) -> int:
        """Count the kinds of visitor."""
        return int(self.of_kind.shape[1] // self.offer.shape[1])


class Contender(Struct, frozen=True):
    """An advertiser in the loop, with one campaign.

    Attributes:
        policy: says what share of a click's worth to bid.
        daily_budget_micros, total_budget_micros: None: no limit.
        funds_micros: what it paid beforehand.
        is_paced: the server spreads its daily budget, as for `pacing = "even"`.
        target_roas_ppm: the server lowers its bids until sales over spend reach it; 0: no target.
    """

    advertiser_id: str
    policy: Policy
    funds_micros: int
    daily_budget_micros: int | None = None
    total_budget_micros: int | None = None
    is_paced: bool = False
    target_roas_ppm: int = 0


class ContenderResult(Struct, frozen=True):
    """What one advertiser got."""

    advertiser_id: str
    impressions: int
    clicks: int
    orders: int
    spend_micros: int
    given_back_micros: int
    value_micros: int
    sales_micros: int
    charges: int
    charges_at_floor: int


class LoopBooks(Struct, frozen=True):
    """The ledger's accounts at the end.

    Attributes:
        sum_micros: of every posting, debits less credits.
        balance_micros: by account, debit +, credit -.
    """

    sum_micros: int
    balance_micros: dict[str, int]
    transaction_count: int


class Loop:
    """A closed loop on its way. Runs in parts or in one, with the same result.

    Args:
        lineup: what is sold; offers belong to the contenders by campaign and advertiser row.
        contenders: (G,) by campaign row, which is their advertiser row too.
        visitor_count: how many visitors there are; each is always of the same kind.
        day_auction_count: auctions of a day.
        seed: of all chance.
        settings: the server's, for pacing.
    """

    def __init__(
        self,
        lineup: Lineup,
        contenders: Sequence[Contender],
        visitor_count: int,
        day_auction_count: int,
        seed: int,
        settings: Settings | None = None,
    ) -> None:
        settings = settings or Settings()
        self.lineup, self.contenders = lineup, contenders
        self.auction_count = self.fill_count = 0
        self._day_auction_count = day_auction_count
        self._visitor_count, self._visitor_key = visitor_count, key_of(seed, "visitors come")
        self._kind_of = bits(key_of(seed, "kinds"), visitor_count) % np.uint64(lineup.kind_count)
        self._tie_key, self.chance_key = key_of(seed, "ties"), key_of(seed, "answers")
        slot_count = lineup.page.pinned_row.size
        self._block = np.zeros((1, 4 + slot_count, slot_count), np.int64)
        self._trace = np.zeros((1, 2, slot_count), np.int64)
        group_count = len(contenders)
        total = np.array([_limit(one.total_budget_micros) for one in contenders], np.int64)
        self._daily = np.array([_limit(one.daily_budget_micros) for one in contenders], np.int64)
        self._candidates = _copied(lineup.candidates, lineup.of_kind.shape[1])
        campaign = np.zeros((CAMPAIGN_FACT_COUNT, group_count), np.int64)
        campaign[CAMPAIGN_PACING] = PPM
        campaign[CAMPAIGN_LEFT_DAY], campaign[CAMPAIGN_LEFT_TOTAL] = self._daily, total
        self.arrays = LoopArrays(
            offer=lineup.offer.copy(),
            of_kind=lineup.of_kind,
            campaign=campaign,
            funds_micros=np.array([one.funds_micros for one in contenders], np.int64),
            shown=np.zeros((visitor_count, lineup.offer.shape[1]), np.int32),
            seen_permille=lineup.seen_permille,
        )
        self._last_asked = campaign.copy()
        self._pacing = Pacing(group_count, settings.pacing_floor_ppm)
        self._is_paced = np.array([one.is_paced and one.daily_budget_micros is not None for one in contenders])
        self._target_ppm = np.array([one.target_roas_ppm for one in contenders], np.int64)
        self._last_paced = campaign.copy()
        self._gone_paced = 0

    def run(self, auction_count: int, auctions_per_bid: int) -> None:
        """Hold so many more auctions, asking every policy again after each `auctions_per_bid` of them.

        Raises:
            PolicyRefused: a policy answered something that is not a bid.
        """
        end = self.auction_count + auction_count
        while self.auction_count < end:
            if self.auction_count % auctions_per_bid == 0:
                self._ask_policies()
            day = self._day_auction_count
            stops = (auctions_per_bid, STEP_AUCTION_COUNT, day)
            count = min(end - self.auction_count, *[stop - self.auction_count % stop for stop in stops])
            self.play(count)
            self._pace()
            if self.auction_count % day == 0:
                self._turn_day()

    def set_bids(self, share_ppm: Sequence[int]) -> None:
        """Have every contender bid a share of what its clicks are worth."""
        share = np.array(share_ppm, np.int64)[self.lineup.offer[OFFER_CAMPAIGN]]
        self.arrays.offer[OFFER_BID] = self.lineup.offer[OFFER_BID] * share // PPM

    def play(self, count: int, block: Int64s | None = None, trace: Int64s | None = None) -> None:
        """Hold so many auctions at the bids and the pacing of now.

        Args:
            count: N.
            block: (N, 4 + S, S) out: every auction's outcome, as receipts have it; None: not kept.
            trace: (N, 2, S) out: every slot's answer and charge.
        """
        visitor = self.visitors(count)
        self.fill_count += play_auctions_nb(
            self._candidates,
            self.arrays,
            self.lineup.page,
            self._kind_of[visitor].astype(np.int32),
            visitor,
            self.auction_count,
            PRICES[self.lineup.pricing],
            np.uint64(self._tie_key),
            np.uint64(self.chance_key),
            self._block if block is None else block,
            self._trace if trace is None else trace,
        )
        self.auction_count += count

    def visitors(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """Return who the next auctions are for."""
        draws: UInt64s = bits(self._visitor_key + self.auction_count * _GOLDEN, count)
        return ((draws >> np.uint64(32)) * np.uint64(self._visitor_count) >> np.uint64(32)).astype(np.int32)

    def kinds(self, count: int) -> Int64s:
        """Return which kind of visitor the next auctions are for."""
        return self._kind_of[self.visitors(count)].astype(np.int64)

    def tie_seed(self, number: int) -> int:
        """Return what auction `number` draws its ties with, as the server would have drawn it for the request."""
        return int(bits(self._tie_key + number * _GOLDEN, 1)[0])

    def results(self) -> list[ContenderResult]:
        """Return what everybody got so far."""
        counted = self.arrays.campaign
        rows = (
            CAMPAIGN_IMPRESSIONS, CAMPAIGN_CLICKS, CAMPAIGN_ORDERS, CAMPAIGN_SPENT, CAMPAIGN_GIVEN_BACK,
            CAMPAIGN_WORTH, CAMPAIGN_SALES, CAMPAIGN_CHARGES, CAMPAIGN_CHARGES_AT_FLOOR,
        )  # fmt: skip
        return [
            ContenderResult(one.advertiser_id, *[int(counted[row, campaign]) for row in rows])
            for campaign, one in enumerate(self.contenders)
        ]

    def books(self) -> LoopBooks:
        """Return the accounts after every top-up and charge, posted as the ledger posts them.

        A transaction cannot be made unless it balances; and what it leaves in each wallet must be what the loop has.
        """
        transactions = []
        for one, spent in zip(self.contenders, self.arrays.campaign[CAMPAIGN_SPENT].tolist(), strict=True):
            purse = wallet(one.advertiser_id)
            for reason, debit, credit, amount in (
                ("top-up", CASH, purse, one.funds_micros),
                ("charge", purse, REVENUE, spent),
            ):
                if amount:
                    transactions.append(_transaction(reason, debit, credit, amount))
        balance: dict[str, int] = {}
        for transaction in transactions:
            for posting in transaction.postings:
                signed = posting.amount_micros if posting.side is Side.DEBIT else -posting.amount_micros
                balance[posting.account] = balance.get(posting.account, 0) + signed
        for one, left in zip(self.contenders, self.arrays.funds_micros.tolist(), strict=True):
            if balance.get(wallet(one.advertiser_id), 0) != -left:
                raise AssertionError(f"{one.advertiser_id} has {left} micros left, its wallet says otherwise")
        return LoopBooks(sum(balance.values()), dict(sorted(balance.items())), len(transactions))

    # --- between two calls -------------------------------------------------------------------------------------------

    def _ask_policies(self) -> None:
        counted, last = self.arrays.campaign, self._last_asked
        spent_today = self._spent_today()
        gone_ppm = self.auction_count % self._day_auction_count * PPM // self._day_auction_count
        shares = []
        for campaign, one in enumerate(self.contenders):
            since = [int(counted[row, campaign] - last[row, campaign]) for row in _OF_RESULTS]
            standing = Standing(one.daily_budget_micros, int(spent_today[campaign]), gone_ppm, Results(*since))
            shares.append(ask(one.policy, standing, one.advertiser_id))
        self._last_asked = counted.copy()
        self.set_bids(shares)

    def _spent_today(self) -> Int64s:
        left = self.arrays.campaign[CAMPAIGN_LEFT_DAY]
        limited = self._daily != NO_LIMIT_MICROS
        return np.where(limited, self._daily - left, 0)

    def _pace(self) -> None:
        """Move the server's multipliers by what was spent since, against the auctions of that time."""
        if not (self._is_paced.any() or self._target_ppm.any()):
            return
        day, pacing, counted = self._day_auction_count, self._pacing, self.arrays.campaign
        gone = self.auction_count % day or day
        passed, left = (gone - self._gone_paced) / day, (day - self._gone_paced) / day
        count = len(self.contenders)
        used = self._spent_today().astype(np.float64)
        has_budget = (counted[CAMPAIGN_LEFT_DAY] > 0) & (counted[CAMPAIGN_LEFT_TOTAL] > 0)
        may_serve = has_budget & (self.arrays.funds_micros > 0)
        plan = np.where(self._is_paced, self._daily, np.inf)
        pacing.step(self._is_paced & may_serve, used, plan, np.full(count, passed), np.full(count, left))
        if self._target_ppm.any():
            moved = counted - self._last_paced
            for row in np.flatnonzero(self._target_ppm):
                sales = int(moved[CAMPAIGN_SALES, row]) * PPM / int(self._target_ppm[row])
                pacing.add_value(int(row), sales, float(moved[CAMPAIGN_SPENT, row]))
            highest = np.zeros(count)
            np.maximum.at(highest, self.arrays.offer[OFFER_CAMPAIGN], self.arrays.offer[OFFER_BID].astype(np.float64))
            pacing.step_roas(self._target_ppm > 0, highest, passed)
        self._last_paced = counted.copy()
        self._gone_paced = gone
        counted[CAMPAIGN_PACING] = pacing.factor_ppm()

    def _turn_day(self) -> None:
        self.arrays.campaign[CAMPAIGN_LEFT_DAY] = self._daily
        if self.arrays.offer[OFFER_FREQUENCY_MAX].any():
            self.arrays.shown[:] = 0
        self._gone_paced = 0
        self._pacing.begin_day(np.zeros(len(self.contenders)))


_OF_RESULTS = (CAMPAIGN_IMPRESSIONS, CAMPAIGN_CLICKS, CAMPAIGN_SPENT, CAMPAIGN_WORTH, CAMPAIGN_SALES)


class Kind(Struct, frozen=True, eq=False):
    """What the server's gate found for one kind of visitor: candidates and the offer of each."""

    candidates: CandidateArrays
    offer_row: Int64s


def read_kind(market: Market, outcome: Outcome) -> Kind:
    """Return the paid candidates of the auction that the market held last, as the gate wrote them.

    Held while everybody may be served and nobody is paced, these are all that may ever take part, at their full bids.
    """
    found, count = market.scratch.found, outcome.candidate_count
    candidates = _copied(found.candidate, count)
    offer_row = found.entry["offer_row"][:count].astype(np.int64)
    paid = np.flatnonzero(offer_row >= 0)
    paid = paid[np.argsort(offer_row[paid])]
    kept: list[Any] = [array[paid] for array in candidates]
    return Kind(CandidateArrays(*kept), offer_row[paid])


def line_up(
    market: Market,
    page: PageArrays,
    kinds: Sequence[Kind],
    click_ppm: Sequence[Int64s],
    order_ppm: Int64s,
    sale_micros: Int64s,
    seen_permille: Int64s,
    frequency_max: Int64s,
    pricing: Pricing = "critical",
) -> Lineup:
    """Return what a loop sells, from what the server's gate found for each kind of visitor.

    Args:
        market: which held the auctions.
        page: theirs.
        kinds: of visitors.
        click_ppm: of each kind, true clicks per million looks at every offer of the snapshot, by row.
        order_ppm, sale_micros, frequency_max: of every offer of the snapshot.
        seen_permille: (S,) true chance that a slot is looked at.
        pricing: what is charged.
    """
    rows = np.unique(np.concatenate([kind.offer_row for kind in kinds]))
    count = len(rows)
    offer = np.zeros((OFFER_FACT_COUNT, count), np.int64)
    of_kind = np.zeros((2, len(kinds) * count), np.int64)
    columns: list[Any] = [np.zeros(len(kinds) * count, array.dtype) for array in kinds[0].candidates]
    for number, kind in enumerate(kinds):
        places = np.searchsorted(rows, kind.offer_row)
        for column, array in zip(columns, kind.candidates, strict=True):
            column[number * count + places] = array
        of_kind[IS_OFFERED, number * count + places] = 1
        of_kind[CLICK_PPM, number * count : (number + 1) * count] = click_ppm[number][rows]
        offer[OFFER_BID, places] = kind.candidates.bid_micros
    candidates = CandidateArrays(*columns)
    facts = market.arrays.offer[rows]
    for number in range(len(kinds)):  # whoever does not take part must still have a payer
        candidates.advertiser_code[number * count : (number + 1) * count] = facts["advertiser_row"]
    offer[OFFER_CAMPAIGN], offer[OFFER_TIE] = facts["campaign_row"], rows
    offer[OFFER_ORDER_PPM], offer[OFFER_SALE] = order_ppm[rows], sale_micros[rows]
    offer[OFFER_WORTH], offer[OFFER_FREQUENCY_MAX] = offer[OFFER_BID], frequency_max[rows]
    return Lineup(page, candidates, offer, of_kind, seen_permille, pricing)


def _copied(candidates: CandidateArrays, count: int) -> CandidateArrays:
    arrays: list[Any] = [array[:count].copy() for array in candidates]
    return CandidateArrays(*arrays)


def _limit(micros: int | None) -> int:
    return NO_LIMIT_MICROS if micros is None else micros


def _transaction(reason: str, debit: AccountName, credit: AccountName, amount: int) -> Transaction:
    legs = (Posting(debit, Side.DEBIT, Micros(amount)), Posting(credit, Side.CREDIT, Micros(amount)))
    return Transaction(legs, reason, PERIOD, 0)
