"""How fast pages are decided, from 10,000 to 1,000,000 live bids.

Run as `python -m tests.bench.bench_auction`. Decisions are timed on one synthetic shop (`tests/auction/worlds.py`):
pages of 8 slots, contexts of home, category, search and product mixed, audiences and patterns on half of the bids,
visitors with 100 products of their own quality. A category page has 5 to 50 % of the bids in its context, a home page
all, a search about 1 %, a product page those of its category.
"""

import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from affinity.model import BoundModel
from affinity.targets import Targets, compile_targets
from affinity.view import VisitorView, anonymous_view
from auction.builder import build_snapshot
from auction.engine import hold_auction, no_deadline
from auction.market import Market
from auction.request import Page
from auction.settings import Settings
from auction.snapshot import Snapshot
from auction.spend import SpendView
from tests.auction.worlds import NOW_MS, large_source, request, some_quality

SETTINGS = Settings()
PPM = 1_000_000
MUST = {10_000: "–", 100_000: "≤ 300 p50", 1_000_000: "≤ 100 p50, ≤ 1,000 p99"}


def model_of(snapshot: Snapshot) -> BoundModel:
    """A model with a quality of its own for every product, and nothing learnt of visitors."""
    return BoundModel(snapshot.product_id, some_quality(snapshot.product_id))


class Decisions:
    """A market with so many bids, and pages and visitors to hold auctions for."""

    def __init__(self, bid_count: int) -> None:
        began = time.process_time()
        source = large_source(bid_count)
        self.source_s = time.process_time() - began
        began = time.process_time()
        self.snapshot = build_snapshot(source, some_quality)
        self.build_s = time.process_time() - began
        self.market = Market(self.snapshot, model_of(self.snapshot))
        self.targets: Targets = compile_targets(
            self.snapshot.targets_spec.audiences,
            self.snapshot.targets_spec.patterns,
            sets=self.snapshot.product_sets(),
        )
        self.spend = SpendView(SETTINGS, self.snapshot)
        for advertiser_id in self.snapshot.advertiser_id:
            self.spend.apply_funds(advertiser_id, 10**12)
        self.spend.refresh(NOW_MS)
        self._chance = random.Random(3)
        columns = self.snapshot.columns
        counts = np.diff(columns.open_category_start)
        self.broad = [row for row, count in enumerate(counts) if 0.05 <= count / len(columns.offer) <= 0.5]
        self.visitors = [self._visitor() for _ in range(50)]

    def _visitor(self) -> VisitorView:
        chance, model = self._chance, self.market.model

        def some_bits(count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
            return np.array([chance.getrandbits(64) & chance.getrandbits(64) for _ in range(count)], np.uint64)

        rows = np.array(sorted(chance.sample(range(len(self.snapshot.product_id)), 100)), np.int32)
        return msgspec.structs.replace(
            anonymous_view(self.targets),
            has_consent=True,
            pseudonym=bytes(range(16)),
            audience_bits=some_bits(self.targets.no_audience_bits.size),
            pattern_bits=some_bits(self.targets.no_pattern_bits.size),
            product_row=rows,
            quality_ppm=np.minimum(model.base_quality_ppm[rows] * 3, PPM).astype(np.int64),
        )

    def page(self, kind: str) -> Page:
        names, chance = self.snapshot.names, self._chance
        if kind == "category":
            return Page(type="category", category_id=names.category[chance.choice(self.broad)])
        if kind == "search":
            return Page(type="search", query=chance.choice(names.words))
        if kind == "product":
            return Page(type="product", product_id=chance.choice(names.product_id))
        return Page(type="home")

    def time_kind(self, kind: str, count: int = 400) -> list[float]:
        """Microseconds each of so many auctions took, after as many to warm up."""
        taken: list[float] = []
        for number in range(2 * count):
            asked, visitor = request(self.page(kind)), self.visitors[number % len(self.visitors)]
            began = time.perf_counter_ns()
            hold_auction(asked, "auc", self.market, visitor, self.spend, no_deadline(NOW_MS), number, SETTINGS)
            taken.append((time.perf_counter_ns() - began) / 1_000)
        return taken[count:]


def measure_decisions(bid_counts: tuple[int, ...] = (10_000, 100_000, 1_000_000)) -> list[tuple[str, str]]:
    """Rows of the table: what deciding a page of 8 slots takes."""
    rows: list[tuple[str, str]] = []
    medians: dict[int, float] = {}
    for bid_count in bid_counts:
        world = Decisions(bid_count)
        rows.append((f"snapshot of {bid_count:,} bids: build, processor seconds", f"{world.build_s:.2f}"))
        every: list[float] = []
        for kind in ("home", "category", "search", "product"):
            taken = sorted(world.time_kind(kind))
            every += taken
            rows.append((f"{bid_count:,} bids, {kind} page of 8 slots, µs p50 / p99", _percentiles(taken)))
        medians[bid_count] = statistics.median(every)
        rows.append((f"{bid_count:,} bids, all kinds, µs p50 / p99 (must be {MUST[bid_count]})", _percentiles(every)))
        if bid_count == max(bid_counts):
            rows += measure_faiss(world)
    if len(medians) > 1:
        least, most = min(medians), max(medians)
        ratio = medians[most] / medians[least]
        rows.append((f"{most:,} bids against {least:,}, p50 (must be ≤ 3 ×)", f"{ratio:.2f} ×"))
    return rows


def measure_faiss(world: Decisions, dimension_count: int = 32, count: int = 60) -> list[tuple[str, str]]:
    """Rows of the table: what the eight nearest of the same offers cost, found exactly by their inner product.

    An offer is a vector, a page another; the index holds the offers of the page's category, 5 to 50 % of all, and
    nothing is filtered, priced or capped.
    """
    try:
        import faiss
    except ImportError:
        return [("exact top 8 by inner product (faiss-cpu, flat)", "not installed")]
    faiss.omp_set_num_threads(1)
    chance = np.random.default_rng(1)
    columns, names = world.snapshot.columns, world.snapshot.names
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(8):
        row = int(chance.choice(world.broad))
        begin, end = columns.open_category_start[row], columns.open_category_start[row + 1]
        vectors = chance.standard_normal((int(end - begin), dimension_count), np.float32)
        index = faiss.IndexFlatIP(dimension_count)
        index.add(vectors)
        asked = request(Page(type="category", category_id=names.category[row]))
        for number in range(count):
            began = time.perf_counter_ns()
            index.search(chance.standard_normal((1, dimension_count), np.float32), 8)
            theirs.append((time.perf_counter_ns() - began) / 1_000)
            visitor = world.visitors[number % len(world.visitors)]
            began = time.perf_counter_ns()
            hold_auction(asked, "auc", world.market, visitor, world.spend, no_deadline(NOW_MS), number, SETTINGS)
            ours.append((time.perf_counter_ns() - began) / 1_000)
    ratio = statistics.median(theirs) / statistics.median(ours)
    return [
        (
            "exact top 8 by inner product over the same offers (faiss flat, 32 dimensions), µs p50 / p99",
            _percentiles(sorted(theirs)),
        ),
        ("the auction against that, in turns (must be ≥ 20 × as fast)", f"{ratio:.0f} ×"),
    ]


def _percentiles(taken: list[float]) -> str:
    ordered = sorted(taken)
    return f"{ordered[len(ordered) // 2]:.0f} / {ordered[int(len(ordered) * 0.99)]:.0f}"


def rows() -> list[tuple[str, str]]:
    """Every row of this file's table."""
    return measure_decisions()


def main(show: Callable[[str], None] = print) -> int:
    """Print the table."""
    table = rows()
    width = max(len(name) for name, _ in table)
    for name, figure in table:
        show(f"{name:<{width}}  {figure:>12}")
    show(f"machine: {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
