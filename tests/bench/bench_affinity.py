"""What an event of a visitor costs, however many patterns are live; and what it costs to rank for a visitor.

Run as `python -m tests.bench.bench_affinity`. Contestants are interleaved, round by round, so that a busy machine
slows them alike; figures are medians over rounds.

- *event*: one event taken in, and the visitor's patterns brought up to date, as the next auction would. No pattern
  begins with one of the events; many name their brands and words beside something else, a quarter of the steps name
  what products are, half of these by one of 500 targets about half of the catalogue; and half forbid every purchase.
- *crowded*: the same where all of the patterns begin with the event.
- *view*: that, and everything else an auction reads of the visitor.
- *batch*: 100 events as they come in over HTTP: decoded, hashed, appended to the log, applied.
- *visitor*: what the state of a visitor takes in memory, of the demo's households (48 purchases on average, many
  times over) and of made-up visitors of a web shop, most of whom look at a few products; one in a hundred stands
  ready, as by default.
- *start*: events a second read from the log, and records a second read from the record file.
- *rank*: the model's scores of one visitor, on first use after an event.
"""

import gc
import gzip
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import msgspec
import numpy as np

from affinity.audience import Audience
from affinity.catalog import Product
from affinity.feed import read_feed
from affinity.matching import Happening
from affinity.model import AffinityModel, neutral_model
from affinity.navigation import Action, Consent, NavigationBatch, NavigationEvent
from affinity.navigation_log import LogLine, NavigationLog
from affinity.pattern import NavigationPattern, PatternStep, product_targets_of
from affinity.product_sets import ProductSets, pack_masks
from affinity.product_target import Target, target_key
from affinity.pseudonym import Pseudonymizer
from affinity.record import ProductFacts, VisitorRecord, read_facts
from affinity.sessions import Sessions
from affinity.settings import Settings
from affinity.targets import Targets, compile_targets
from affinity.train import make_index
from affinity.visitors import VisitorStore
from bidder_api import demo_data

NOW_MS = 1_700_000_000_000
FEW, MANY = 10, 100_000
PRODUCT_COUNT, SESSION_COUNT = 50_000, 500_000
ROUND_COUNT, EVENTS_PER_ROUND = 15, 2_000
PRODUCTS = [
    Product(product_id=f"p{row}", brand=f"b{row % 500}", product_type=f"C{row % 20} > D{row % 300}", price_micros=5)
    for row in range(PRODUCT_COUNT)
]
TARGETS = [Target(field="season", equals=f"s{row}") for row in range(1_000)]
DEMO = Path(demo_data.__file__).parent
DECODER = msgspec.json.Decoder(NavigationBatch)


def patterns(count: int) -> list[NavigationPattern]:
    """Return patterns of every kind, none of which mentions the events below; many name a brand or a word of them."""
    kinds: list[Callable[[int], PatternStep]] = [
        lambda row: PatternStep(action=Action.VIEW_ITEM, product_id=f"q{row}", at_least=2),
        lambda row: PatternStep(action=Action.VIEW_ITEM, category_id=f"E{row}", at_least=3),
        lambda row: PatternStep(action=Action.ADD_TO_CART, brand=f"x{row}"),
        lambda row: PatternStep(action=Action.SEARCH, query_contains=f"word{row}"),
        lambda row: PatternStep(action=Action.VIEW_ITEM, brand=f"b{row % 500}", category_id=f"E{row}"),
        lambda row: PatternStep(action=Action.SEARCH, query_contains=f"red word{row}"),
        lambda row: PatternStep(action=Action.VIEW_ITEM, category_id=f"E{row}", product_target=TARGETS[row % 500]),
        lambda row: PatternStep(action=Action.VIEW_ITEM, product_target=TARGETS[500 + row % 500]),
    ]
    return [
        NavigationPattern(
            within="session" if row % 2 else 3600,
            steps=[kinds[row % len(kinds)](row), kinds[(row + 1) % len(kinds)](row)],
            without=[PatternStep(action=Action.PURCHASE, product_id=f"q{row}" if row % 2 else None)],
        )
        for row in range(count)
    ]


def sets_of(live: list[NavigationPattern]) -> ProductSets:
    """Return which products the patterns' targets are about: each of the first 500 half of them, others nothing."""
    targets, chance = product_targets_of(live), np.random.default_rng(4)
    wide = frozenset(map(target_key, TARGETS[:500]))
    masks = ((target_key(target) in wide) & (chance.random(PRODUCT_COUNT) < 0.5) for target in targets)
    row_of = {product.product_id: row for row, product in enumerate(PRODUCTS)}
    return ProductSets(targets, row_of, pack_masks(masks, len(targets), PRODUCT_COUNT))


def store(folder: Path | None = None) -> VisitorStore:
    log = None if folder is None else NavigationLog(folder, 64_000_000)
    return VisitorStore(Settings(), Pseudonymizer(b"k" * 32), log, read_facts(PRODUCTS))


def bodies(chance: random.Random, count: int, size: int) -> list[bytes]:
    """Return bodies of `POST /v1/navigation`."""
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC).isoformat()
    actions = ["view_item"] * 6 + ["add_to_cart", "search", "view_item_list", "purchase"]

    def event(number: int) -> dict[str, object]:
        action = chance.choice(actions)
        what: dict[str, object] = {"product_id": f"p{int(PRODUCT_COUNT * chance.random() ** 2)}"}
        if action == "search":
            what = {"query": f"red shoe {chance.randrange(1000)}"}
        visitor_id = f"visitor-{chance.randrange(20_000)}"
        return {"event_id": f"e{number}", "visitor_id": visitor_id, "action": action, "occurred_at": at, **what}

    events = [event(number) for number in range(count)]
    return [msgspec.json.encode({"events": events[first : first + size]}) for first in range(0, count, size)]


def pattern_rounds(*, with_view: bool) -> tuple[float, float]:
    """Return microseconds an event costs with few and with many patterns live."""
    chance = random.Random(1)
    model = neutral_model([product.product_id for product in PRODUCTS])
    audiences = [Audience(segment="vip")]
    lanes: list[tuple[Targets, VisitorStore]] = [
        (compile_targets(audiences, live, sets=sets_of(live)), store()) for live in map(patterns, (FEW, MANY))
    ]
    taken: tuple[list[float], list[float]] = ([], [])
    for batches in [bodies(chance, EVENTS_PER_ROUND, 1) for _ in range(ROUND_COUNT)]:
        decoded = [DECODER.decode(body) for body in batches]
        for lane, (targets, visitors) in enumerate(lanes):
            began = time.perf_counter()
            for batch in decoded:
                visitors.post(batch, NOW_MS)
                visitor_id = batch.events[0].visitor_id
                if with_view:
                    visitors.view(visitor_id, Consent(personalised=True), targets, model, NOW_MS)
                else:
                    record = visitors.record(visitors.pseudonym(visitor_id))
                    assert record is not None
                    record.advance(targets, visitors.settings)
            taken[lane].append((time.perf_counter() - began) / len(decoded) * 1e6)
    few, many = (statistics.median(one) for one in taken)
    return few, many


def crowded_time(count: int) -> float:
    """Return microseconds of processor time an event costs that so many patterns begin with."""
    steps = [PatternStep(action=Action.VIEW_ITEM), PatternStep(action=Action.ADD_TO_CART)]
    targets = compile_targets([], [NavigationPattern(within=60 + row, steps=steps) for row in range(count)])
    record, taken = VisitorRecord(bytes(16)), []
    for place in range(100):
        record.note(Happening(NOW_MS + place, Action.VIEW_ITEM), None, Settings())
        began = time.process_time()
        record.advance(targets, Settings())
        taken.append((time.process_time() - began) * 1e6)
    return statistics.median(taken)


def batch_rate() -> float:
    """Return events a second, in batches of 100, decoded, logged and applied."""
    chance = random.Random(2)
    with tempfile.TemporaryDirectory() as folder:
        visitors = store(Path(folder))
        rates = []
        for round_number in range(ROUND_COUNT):
            raw = [
                body.replace(b'"event_id":"e', b'"event_id":"r%d-' % round_number)
                for body in bodies(chance, 5 * EVENTS_PER_ROUND, 100)
            ]
            began = time.perf_counter()
            for body in raw:
                visitors.post(DECODER.decode(body), NOW_MS)
            rates.append(5 * EVENTS_PER_ROUND / (time.perf_counter() - began))
    return statistics.median(rates)


def demo_lines() -> tuple[dict[str, ProductFacts], list[LogLine]]:
    """Return the demo's catalogue and navigation, as the log has it."""
    events = msgspec.json.Decoder(NavigationEvent)
    with gzip.open(DEMO / "navigation.jsonl.gz") as file:
        decoded = [events.decode(line) for line in file]
    facts = read_facts(one for one in read_feed(DEMO / "catalogue.tsv.gz") if isinstance(one, Product))
    visitors = store()
    return facts, [visitors.line_of(event, int(event.occurred_at.timestamp() * 1000)) for event in decoded]


def copies(lines: list[LogLine], count: int) -> Iterator[LogLine]:
    """Yield the lines of so many times as many visitors."""
    for number in range(count):
        for line in lines:
            yield msgspec.structs.replace(line, pseudonym=number.to_bytes(4, "big") + line.pseudonym[4:])


def web_lines(chance: random.Random, visitor_count: int) -> Iterator[LogLine]:
    """Yield what made-up visitors of a web shop do: half of them one thing, a few very much."""
    for number in range(visitor_count):
        for place in range(min(int(chance.paretovariate(1.0)), 500)):
            action = chance.choice(["view_item"] * 8 + ["add_to_cart", "purchase"])
            product_id = f"p{int(PRODUCT_COUNT * chance.random() ** 2)}"
            yield LogLine(number.to_bytes(16, "big"), NOW_MS + place * 30_000, action, 0, product_id)


def resident_bytes() -> int:
    """Return the memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def visitor_bytes(
    facts: dict[str, ProductFacts], lines: Iterable[LogLine], ready_count: int
) -> tuple[int, float, float]:
    """Return how many visitors there are, and the bytes each takes: packed, and of the process's memory."""
    with tempfile.TemporaryDirectory() as folder:
        log = NavigationLog(Path(folder), 1 << 40)
        log.write_import(lines, NOW_MS, "bench")
        visitors = VisitorStore(
            Settings(event_id_window=2, visitor_ready_count_max=ready_count), Pseudonymizer(b"k" * 32), log, facts
        )
        gc.collect()
        before = resident_bytes()
        visitors.load(NOW_MS)
        gc.collect()
        taken = resident_bytes() - before
    packed = [visitors.records.packed(one) for one in visitors.records]
    return len(visitors), statistics.mean(len(one[1]) for one in packed if one), taken / len(visitors)


def household_bytes() -> tuple[int, float, float]:
    """Return what the demo's households take, sixteen times over; see `visitor_bytes`."""
    facts, lines = demo_lines()
    return visitor_bytes(facts, copies(lines, 16), 400)


def web_shop_bytes() -> tuple[int, float, float]:
    """Return what a web shop's visitors take; see `visitor_bytes`."""
    return visitor_bytes(read_facts(PRODUCTS), web_lines(random.Random(5), 200_000), 2_000)


def in_new_process(measure: Callable[[], tuple[int, float, float]]) -> tuple[int, float, float]:
    """Return what a measurement says that must not find memory which others gave back."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure).result()


def start_rates(facts: dict[str, ProductFacts], lines: list[LogLine]) -> tuple[float, float, float]:
    """Return events a second read from the log, and the seconds a start takes without and with the record file."""
    log_s, file_s = [], []
    with tempfile.TemporaryDirectory() as folder:
        log = NavigationLog(Path(folder) / "navigation", 1 << 40)
        log.write_import(lines, NOW_MS, "bench")
        for _ in range(5):
            for taken in (log_s, file_s):
                path = Path(folder) / "records"
                visitors = VisitorStore(Settings(), Pseudonymizer(b"k" * 32), log, facts, path)
                began = time.perf_counter()
                visitors.load(NOW_MS)
                taken.append(time.perf_counter() - began)
                if taken is log_s:
                    visitors.keep(NOW_MS)
            path.unlink()
    return len(lines) / min(log_s), min(log_s), min(file_s)


def synthetic_model() -> AffinityModel:
    """Return a model of half a million sessions over fifty thousand products, a few of them looked at by everybody."""
    chance = np.random.default_rng(3)
    lengths = np.clip(chance.geometric(0.25, SESSION_COUNT), 2, 30)
    first = np.zeros(SESSION_COUNT + 1, np.int64)
    first[1:] = np.cumsum(lengths)
    item = (PRODUCT_COUNT * chance.random(first[-1]) ** 2.5).astype(np.int32)
    sessions = Sessions(
        [product.product_id for product in PRODUCTS],
        item,
        np.full(len(item), 0.1, np.float32),
        first,
        np.arange(SESSION_COUNT, dtype=np.int64),
        np.arange(SESSION_COUNT, dtype=np.int64),
    )
    return AffinityModel(make_index(sessions, NOW_MS), {})


def rank_times() -> tuple[float, float]:
    """Return the median and the 99th percentile of microseconds to rank one visitor."""
    chance = random.Random(4)
    bound = synthetic_model().bind([product.product_id for product in PRODUCTS])
    taken = []
    for _ in range(3_000):
        count = min(1 + int(chance.expovariate(0.2)), 40)
        events = [
            Happening(NOW_MS + place, Action.VIEW_ITEM, f"p{int(PRODUCT_COUNT * chance.random() ** 2.5)}")
            for place in range(count)
        ]
        began = time.perf_counter()
        bound.rank_visitor(events, NOW_MS)
        taken.append((time.perf_counter() - began) * 1e6)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


def main() -> int:
    """Print the figures."""
    few, many = pattern_rounds(with_view=False)
    print(f"event: {few:.1f} µs with {FEW} patterns, {many:.1f} µs with {MANY}: ratio {many / few:.2f} (≤ 1.5)")
    few, many = crowded_time(1_000), crowded_time(MANY)
    print(f"crowded: {few:.0f} µs where 1,000 patterns begin with the event, {many:.0f} µs where {MANY} do")
    few, many = pattern_rounds(with_view=True)
    print(f"event and view: {few:.1f} µs with {FEW} patterns, {many:.1f} µs with {MANY}: ratio {many / few:.2f}")
    print(f"batches of 100: {batch_rate():,.0f} events/s (≥ 20,000)")
    for name, of in (("the demo, 16 times over", household_bytes), ("a web shop", web_shop_bytes)):
        count, packed, whole = in_new_process(of)
        print(f"visitors of {name}: {count:,}, packed {packed:,.0f} bytes, in all {whole:,.0f} bytes each (≤ 4,000)")
    facts, lines = demo_lines()
    rate, log_s, file_s = start_rates(facts, lines)
    print(
        f"start with the demo's {len(lines):,} events: {log_s:.2f} s from the log ({rate:,.0f} events/s), "
        f"{file_s:.3f} s from the record file"
    )
    middle, slow = rank_times()
    print(
        f"rank one visitor, {PRODUCT_COUNT:,} products, {SESSION_COUNT:,} sessions: "
        f"p50 {middle:.0f} µs (≤ 300), p99 {slow:.0f} µs (≤ 1,500)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
