"""What a run is judged by: totals per session, the measures made of them, and how far chance alone moves each.

Counts and money stay whole numbers up to the last division, so that equal runs give equal bytes.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from sim.chance import Int64s, bits, key_of

INTERVAL_PPM = 900_000
WORLDS_FOR_INTERVALS = 5  # from so many repeats on, whole worlds are resampled instead of sessions

COLUMNS = (
    "pages",
    "pages_with_paid",
    "slots",
    "paid_fills",
    "paid_clicks",
    "charges",
    "charges_at_floor",
    "revenue_micros",
    "given_back_micros",
    "hostile_micros",
    "value_micros",
    "sales_micros",
    "orders",
    "appeal_shown",
    "appeal_organic",
    "budget_spent_micros",
    "budget_micros",
)
COLUMN = {name: row for row, name in enumerate(COLUMNS)}


class Tally:
    """Whole-number totals per session (S, columns), added to while the market runs."""

    def __init__(self, session_count: int) -> None:
        self.rows = np.zeros((session_count, len(COLUMNS)), dtype=np.int64)

    def add(self, session_row: int, column: str, amount: int) -> None:
        """Add to one session's total."""
        self.rows[session_row, COLUMN[column]] += amount


class Measure(Struct, frozen=True):
    """One figure of a run.

    Attributes:
        unit: `money` (currency units), `share`, `ratio` or `count`.
        value: None where it is not defined, such as a price per click without a click.
        low, high: where 90 of 100 runs that differ by chance alone would put it; None where a single run cannot say.
        sentence: what it counts.
    """

    name: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    sentence: str


class Definition(Struct, frozen=True):
    """A measure as a division of two sums of columns; `one_minus` turns a share into what is missing of it."""

    name: str
    unit: str
    plus: tuple[str, ...]
    over: tuple[str, ...]
    sentence: str
    minus: tuple[str, ...] = ()
    times: int = 1
    one_minus: bool = False
    is_per_world: bool = False  # not a sum over sessions: a single world has no interval for it


DEFINITIONS = (
    Definition("revenue", "money", ("revenue_micros",), (), "Billed to advertisers, by the ledger."),
    Definition(
        "revenue_per_thousand_pages", "money", ("revenue_micros",), ("pages",),
        "Billed per thousand pages with at least one placement.", times=1000,
    ),
    Definition("fill_rate", "share", ("paid_fills",), ("slots",), "Slots that were given to a paid product."),
    Definition("pages_with_paid", "share", ("pages_with_paid",), ("pages",), "Pages with at least one paid product."),
    Definition("paid_clicks_per_fill", "share", ("paid_clicks",), ("paid_fills",), "Clicks per paid fill."),
    Definition("price_per_click", "money", ("revenue_micros",), ("paid_clicks",), "Billed per paid click."),
    Definition(
        "charges_at_floor", "share", ("charges_at_floor",), ("charges",),
        "Billed events whose price was the placement's floor: there, nobody else set the price.",
    ),
    Definition("welfare", "money", ("value_micros",), (), "What paid clicks were worth to who got them."),
    Definition(
        "advertiser_surplus", "money", ("value_micros",), (), "Welfare less what was billed.", minus=("revenue_micros",)
    ),
    Definition("roas", "ratio", ("sales_micros",), ("revenue_micros",), "Sales after a paid click, per money billed."),
    Definition(
        "given_back", "share", ("given_back_micros",), ("revenue_micros", "given_back_micros"),
        "Cost of events beyond a budget, recorded and not billed.",
    ),
    Definition(
        "hostile_spend", "share", ("hostile_micros",), ("revenue_micros",), "Billed for clicks that rivals made."
    ),
    Definition(
        "affinity_lost", "share", ("appeal_shown",), ("appeal_organic",),
        "Expected clicks lost because a paid product stood where the shop's own would have.", one_minus=True,
    ),
    Definition("orders_per_thousand_pages", "ratio", ("orders",), ("pages",), "Orders per thousand pages.", times=1000),
    Definition(
        "budget_use", "share", ("budget_spent_micros",), ("budget_micros",),
        "Spent of what their limits allow, by bidders that have any.", is_per_world=True,
    ),
)  # fmt: skip


def measure(worlds: Sequence[Int64s], resamples: int, seed: int) -> list[Measure]:
    """Return every measure of one or several worlds, with 90 % intervals.

    Resamples sessions within each world, or whole worlds where there are enough of them. Sessions share budgets and
    bids, so an interval over sessions knows only of the visitors' chance; one over worlds knows of everything.
    """
    totals = sum_up([world.sum(axis=0, dtype=np.int64) for world in worlds])
    if len(worlds) >= WORLDS_FOR_INTERVALS:
        resampled = resample(
            np.stack([world.sum(axis=0, dtype=np.int64) for world in worlds]), resamples, seed, "worlds"
        )
    else:
        parts = [resample(world, resamples, seed, f"sessions {row}") for row, world in enumerate(worlds)]
        resampled = sum_up(parts)
    return [_one(definition, totals, resampled, len(worlds)) for definition in DEFINITIONS]


def sum_up(parts: Sequence[Int64s]) -> Int64s:
    """Add arrays of one shape."""
    total = np.zeros_like(parts[0])
    for part in parts:
        total = total + part
    return total


def compute(definition: Definition, totals: Int64s) -> float | None:
    """Return the measure of one row of totals, None where it divides by nothing."""
    above = _columns(totals, definition.plus) - _columns(totals, definition.minus)
    if not definition.over:
        return above * definition.times / 1_000_000
    below = _columns(totals, definition.over)
    if below == 0:
        return None
    if definition.unit == "money":
        below *= 1_000_000
    value = above * definition.times / below
    return 1 - value if definition.one_minus else value


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the middle 90 % of the values."""
    ordered = sorted(values)
    cut = len(ordered) * (1_000_000 - INTERVAL_PPM) // 2_000_000
    return ordered[cut], ordered[len(ordered) - 1 - cut]


def _columns(totals: Int64s, names: tuple[str, ...]) -> int:
    return sum(int(totals[COLUMN[name]]) for name in names)


def resample(rows: Int64s, resamples: int, seed: int, name: str) -> Int64s:
    """Return (resamples, columns): totals of as many rows drawn with replacement, each time anew."""
    count = rows.shape[0]
    drawn = np.empty((resamples, rows.shape[1]), dtype=np.int64)
    for again in range(resamples):
        chosen = (bits(key_of(seed, "bootstrap", name, again), count) >> np.uint64(32)) * np.uint64(count) >> np.uint64(
            32
        )
        times = np.bincount(chosen.astype(np.int64), minlength=count).astype(np.int64)
        drawn[again] = times @ rows
    return drawn


def _one(definition: Definition, totals: Int64s, resampled: Int64s, world_count: int) -> Measure:
    value = compute(definition, totals)
    low = high = None
    if value is not None and not (definition.is_per_world and world_count < WORLDS_FOR_INTERVALS):
        known = [found for found in (compute(definition, row) for row in resampled) if found is not None]
        if known:
            low, high = (round(end, 6) for end in interval(known))
    return Measure(
        definition.name, definition.unit, None if value is None else round(value, 6), low, high, definition.sentence
    )
