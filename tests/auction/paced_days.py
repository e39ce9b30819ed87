"""A price-taking market around the real SpendView: one campaign, a day of auctions, prices that come and go.

Whoever bids at least the day's price at that moment wins and pays it. Amounts are whole micros, chance is seeded. The
till bills within the budget, as the ledger does, and tells the view what it billed.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from auction.builder import build_snapshot
from auction.campaign import TargetRoas
from auction.settings import Settings
from auction.spend import SpendView
from tests.auction.worlds import campaign, source

ZONE = ZoneInfo("Europe/Paris")
MIDNIGHT_MS = int(datetime(2026, 9, 21, tzinfo=ZONE).timestamp() * 1000)
DAY_MS = 86_400_000
PPM = 1_000_000
BID_MICROS = 2_000_000
CAMPAIGN = "cmp_a"
BUDGET_SHARE = 0.3  # of what bidding in full would spend
ORDER_PPM = 100_000  # wins that bring an order
ORDER_MICROS = 18_000_000  # of an order, on average
CLICK_MICROS = 600_000  # of a click, on average, where clicks come late
CLICK_DELAY_MS = 60_000
MULTIPLIERS_PPM = np.unique(np.rint(np.exp(np.linspace(math.log(0.02), 0.0, 500)) * PPM).astype(np.int64))

Int64s = NDArray[np.int64]


class Prices(Struct, frozen=True):
    """A day of auctions: when each is, what winning it costs, and whether its event happens if it is won."""

    at_ms: Int64s
    price_micros: Int64s
    happens: NDArray[np.bool_]

    def charge_micros(self, multiplier_ppm: int, bid_micros: int = BID_MICROS) -> Int64s:
        """Return what each would be charged for at a fixed multiplier, without a budget."""
        is_won = bid_micros * multiplier_ppm // PPM >= self.price_micros
        return np.where(is_won & self.happens, self.price_micros, 0)


class Run(Struct, frozen=True):
    """What came of a day.

    Attributes:
        event_count: charged events, each worth the same to the advertiser.
        last_win_share: part of the day that was over at the last win.
    """

    event_count: int
    spent_micros: int
    given_back_micros: int
    last_win_share: float
    pacing_ppm: list[int]


class PacedDay(Struct, frozen=True):
    """A day under a budget, beside what could have been had.

    Attributes:
        best_event_count: events the best one multiplier for the whole day would have bought.
    """

    run: Run
    budget_micros: int
    best_event_count: int


class TargetDay(Struct, frozen=True):
    """A day under a target ROAS.

    Attributes:
        spent_micros: per twelfth of the day.
        sales_micros: the same, counted with the spend they came from.
        factors_ppm: the lowest and the highest factor on its bids.
    """

    spent_micros: list[int]
    sales_micros: list[int]
    factors_ppm: tuple[int, int]

    @property
    def late_spent_micros(self) -> int:
        return sum(self.spent_micros[6:])

    @property
    def late_roas(self) -> float:
        """What was reached in the second half of the day."""
        return sum(self.sales_micros[6:]) / self.late_spent_micros


def prices_of_day(
    auction_count: int,
    seed: int,
    day: int = 0,
    swing: float = 0.6,
    spread: float = 0.6,
    phase: float = 0.0,
    traffic_swing: float = 0.5,
    happens_ppm: int = PPM,
) -> Prices:
    """Return a day's prices: a level that rises and falls by `swing` once a day, and chance around it.

    Args:
        spread: standard deviation of the logarithm of a price around the level.
        phase: of the level, in parts of a day.
        traffic_swing: by how much more auctions come in the evening than on average, and fewer in the morning.
        happens_ppm: how often a won auction is charged.
    """
    chance = np.random.default_rng((seed, day))
    moments = np.linspace(0.0, 1.0, 100_001)
    gone = moments + traffic_swing / (2 * np.pi) * (np.cos(2 * np.pi * moments) - 1)
    part = np.sort(np.interp(chance.random(auction_count), gone, moments))
    level = 1.0 + swing * np.sin(2 * np.pi * (part + phase))
    price = 0.6 * BID_MICROS * level * np.exp(chance.normal(0.0, spread, auction_count))
    return Prices(
        at_ms=MIDNIGHT_MS + day * DAY_MS + (part * DAY_MS).astype(np.int64),
        price_micros=np.maximum(price.astype(np.int64), 1),
        happens=chance.integers(0, PPM, auction_count) < happens_ppm,
    )


def best_fixed(prices: Prices, budget_micros: int) -> tuple[int, int]:
    """Return how many events the best one multiplier for the whole day would have bought, and that multiplier."""
    best = (0, 0)
    for multiplier_ppm in MULTIPLIERS_PPM.tolist():
        charge = prices.charge_micros(multiplier_ppm)
        affordable = (charge > 0) & (np.cumsum(charge) <= budget_micros)
        best = max(best, (int(affordable.sum()), multiplier_ppm))
    return best


def share_of_everything(prices: Prices, part: float) -> int:
    """Return that part of what bidding in full would spend."""
    return int(prices.charge_micros(PPM).sum() * part)


def view_of(budget_micros: int, pacing: str = "even", settings: Settings | None = None) -> SpendView:
    """Return a view of one campaign with that daily budget and funds without end."""
    offered = campaign(CAMPAIGN, daily_budget_micros=budget_micros, pacing=pacing)
    view = SpendView(Settings() if settings is None else settings, build_snapshot(source(campaigns=[offered])))
    view.apply_funds("adv_a", 10**15)
    return view


def run_day(
    view: SpendView,
    prices: Prices,
    budget_micros: int,
    expected_ppm: int = PPM,
    delay_ms: int | Sequence[int] | Int64s = 1_000,
    spent_before_micros: int = 0,
) -> Run:
    """Let a campaign bid through a day.

    Args:
        expected_ppm: how often the shop expects a won auction to be charged.
        delay_ms: how long after the fill a charge comes; one for all auctions or one each.
        spent_before_micros: in all, before the day.
    """
    day = datetime.fromtimestamp(int(prices.at_ms[0]) / 1000, ZONE).date().isoformat()
    starts_ms = int(prices.at_ms[0]) - (int(prices.at_ms[0]) - MIDNIGHT_MS) % DAY_MS
    delays = np.broadcast_to(np.asarray(delay_ms, np.int64), prices.at_ms.shape).tolist()
    coming: list[tuple[int, int, int]] = []  # when, at what price, how long after the fill
    spent = given_back = events = last_ms = 0
    factors: list[int] = []

    def charge(until_ms: int) -> None:
        nonlocal spent, given_back
        while coming and coming[0][0] <= until_ms:
            _, price, delay = heapq.heappop(coming)
            view.note_delay(expected_ppm < PPM, delay)
            billed = min(price, budget_micros - spent)
            spent, given_back = spent + billed, given_back + price - billed
            view.apply_campaign(CAMPAIGN, day, spent, spent_before_micros + spent)

    auctions = zip(prices.at_ms.tolist(), prices.price_micros.tolist(), prices.happens.tolist(), delays, strict=True)
    for number, (now_ms, price, happens, delay) in enumerate(auctions):
        charge(now_ms)
        if now_ms >= view.refresh_at_ms:
            view.refresh(now_ms)
        view.auction_count += 1
        if number % (len(prices.at_ms) // 24) == 0:
            factors.append(int(view.pacing_ppm[0]))
        if view.campaign_reason[0] or BID_MICROS * int(view.pacing_ppm[0]) // PPM < price:
            continue
        last_ms = now_ms
        view.add_pending([(0, price * expected_ppm / PPM, price)])
        if happens:
            events += 1
            heapq.heappush(coming, (now_ms + delay, price, delay))
    charge(1 << 60)
    return Run(events, spent, given_back, (last_ms - starts_ms) / DAY_MS, factors)


def run_days(day_count: int, auction_count: int, seed: int, phase: float) -> Iterator[PacedDay]:
    """Let a new campaign bid through its first days, with BUDGET_SHARE of what the first one could take."""
    budget = share_of_everything(prices_of_day(auction_count, seed, 0, phase=phase), BUDGET_SHARE)
    view = view_of(budget)
    for day in range(day_count):
        prices = prices_of_day(auction_count, seed, day, phase=phase)
        run = run_day(view, prices, budget, spent_before_micros=day * budget)
        yield PacedDay(run, budget, best_fixed(prices, budget)[0])


def run_late_clicks(
    click_count: int, auction_count: int, click_ppm: int, seed: int | tuple[int, ...], *, is_delay_random: bool
) -> Run:
    """Ask for pages as fast as 64 clients can, for half an hour and the budget of so many clicks, which come late.

    Args:
        click_ppm: how often a fill is clicked.
        is_delay_random: clicks come after CLICK_DELAY_MS on average, else each of them after just that.
    """
    chance = np.random.default_rng(seed)
    prices = Prices(
        at_ms=MIDNIGHT_MS + 36_000_000 + np.sort(chance.integers(0, 1_800_000, auction_count)),
        price_micros=chance.integers(CLICK_MICROS // 2, CLICK_MICROS * 3 // 2, auction_count),
        happens=chance.integers(0, PPM, auction_count) < click_ppm,
    )
    delay: int | Int64s = CLICK_DELAY_MS
    if is_delay_random:
        delay = chance.exponential(CLICK_DELAY_MS, auction_count).astype(np.int64)
    budget = CLICK_MICROS * click_count
    return run_day(view_of(budget, "asap"), prices, budget, click_ppm, delay)


def run_target_day(roas: float, prices: Prices, seed: int, order_delay_ms: int = 600_000) -> TargetDay:
    """Let a campaign with a target ROAS and no budget bid through a day; each win is charged, some bring an order."""
    offered = campaign(CAMPAIGN, objective=TargetRoas(roas=roas))
    view = SpendView(Settings(), build_snapshot(source(campaigns=[offered])))
    view.apply_funds("adv_a", 10**15)
    chance = np.random.default_rng((seed, 77))
    brings_order = (chance.integers(0, PPM, len(prices.at_ms)) < ORDER_PPM).tolist()
    worth = (ORDER_MICROS * chance.uniform(0.5, 1.5, len(prices.at_ms))).astype(np.int64).tolist()
    day = datetime.fromtimestamp(int(prices.at_ms[0]) / 1000, ZONE).date().isoformat()
    coming: list[tuple[int, int, int]] = []  # when, what is spent, what is ordered
    spent, sales, factors = [0] * 12, [0] * 12, [PPM, 0]
    total = 0
    for number, (now_ms, price) in enumerate(zip(prices.at_ms.tolist(), prices.price_micros.tolist(), strict=True)):
        while coming and coming[0][0] <= now_ms:
            _, charged, ordered = heapq.heappop(coming)
            total += charged
            if charged:
                view.apply_campaign(CAMPAIGN, day, total, total)
            if ordered:
                view.apply_value(CAMPAIGN, ordered)
        if now_ms >= view.refresh_at_ms:
            view.refresh(now_ms)
        view.auction_count += 1
        factor = int(view.pacing_ppm[0])
        factors = [min(factors[0], factor), max(factors[1], factor)]
        if view.campaign_reason[0] or BID_MICROS * factor // PPM < price:
            continue
        part = (now_ms - MIDNIGHT_MS) * 12 // DAY_MS
        spent[part] += price
        view.add_pending([(0, price, price)])
        heapq.heappush(coming, (now_ms + 1_000, price, 0))
        if brings_order[number]:
            sales[part] += worth[number]
            heapq.heappush(coming, (now_ms + order_delay_ms, 0, worth[number]))
    return TargetDay(spent, sales, (factors[0], factors[1]))
