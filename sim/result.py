"""What a run leaves behind: measures, tables and series, and the proof that the books balance. Plain values only."""

from pathlib import Path

import msgspec
from msgspec import Struct

from sim.measure import Measure


class BidderResult(Struct, frozen=True):
    """What one advertiser got in the first world.

    Attributes:
        budget_of_run_micros: what its limits let it spend in all.
        sales_micros: bought after a click of its own.
        hostile_micros: of its spend, what clicks of rivals cost it.
        target_roas_ppm: sales over spend it wants, None without a target.
    """

    advertiser_id: str
    policy: str
    brand: str
    charge_on: str
    product_count: int
    daily_budget_micros: int | None
    budget_of_run_micros: int | None
    impressions: int
    clicks: int
    spend_micros: int
    value_micros: int
    sales_micros: int
    given_back_micros: int
    hostile_micros: int = 0
    target_roas_ppm: int | None = None

    @property
    def roas(self) -> float | None:
        """Return sales over spend, None where nothing was spent."""
        return self.sales_micros / self.spend_micros if self.spend_micros else None


class PeriodResult(Struct, frozen=True):
    """What happened between two changes of bids, in the first world.

    Attributes:
        starts_at: local time, `2026-11-23 10:00`.
        share_ppm: policy to the mean share of a click's worth its bidders offered.
    """

    starts_at: str
    pages: int
    slots: int
    paid_fills: int
    revenue_micros: int
    share_ppm: dict[str, int]


class PlacementResult(Struct, frozen=True):
    """What one placement brought in the first world."""

    placement_id: str
    slots: int
    paid_fills: int
    paid_clicks: int
    revenue_micros: int
    no_fill_reasons: dict[str, int]


class Books(Struct, frozen=True):
    """The ledger at the end, over every world.

    Attributes:
        sum_micros: of every entry, debits less credits: 0, or the run is refused.
        overspent_micros: billed over any limit: 0, or the run is refused.
        events: results the ledger answered with, by name.
    """

    sum_micros: int
    overspent_micros: int
    entry_count: int
    billed_micros: int
    events: dict[str, int]


class RunResult(Struct, frozen=True):
    """Everything a report is drawn from; equal scenarios, seeds and versions give equal results."""

    version: str
    scenario_name: str
    scenario_hash: str
    seed: int
    sentence: str
    repeats: int
    intervals_over: str
    auction_count: int
    measures: list[Measure]
    bidders: list[BidderResult]
    periods: list[PeriodResult]
    placements: list[PlacementResult]
    books: Books


class Timing(Struct, frozen=True):
    """Where a run's time went, in seconds; never part of the result, since no two runs agree on it.

    Attributes:
        wall_s: by the clock on the wall.
        processor_s: of one processor, which a busy machine does not stretch.
        parts_s: the same, by part.
    """

    wall_s: float
    processor_s: float
    parts_s: dict[str, float]
    auction_count: int

    @property
    def auctions_per_s(self) -> float:
        """Return auctions of the whole closed loop per second of one processor."""
        return self.auction_count / self.processor_s if self.processor_s > 0 else 0.0


def encode_result(result: Struct) -> bytes:
    """Return the bytes of the measures file: the same for equal results, with keys in a fixed order."""
    return msgspec.json.format(msgspec.json.encode(result, order="deterministic"), indent=2) + b"\n"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def append_run(path: Path, result: RunResult) -> None:
    """Add one line to `runs.jsonl`: version, scenario hash, seed and measures, to compare runs by."""
    line = msgspec.json.encode(
        {
            "version": result.version,
            "scenario": result.scenario_name,
            "scenario_hash": result.scenario_hash,
            "seed": result.seed,
            "repeats": result.repeats,
            "measures": {found.name: [found.value, found.low, found.high] for found in result.measures},
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(line + b"\n")
