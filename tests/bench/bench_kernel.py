"""What allocating and pricing a page costs, against numpy finding only its best scores.

Run as `python -m tests.bench.bench_kernel`. The rounds of the contestants are interleaved, so that a busy machine slows
them alike; figures are medians over rounds.

- *kernel*: eligible candidates in, winners, thresholds and both prices out (two charge types, a cap per brand).
- *exact*: the page worth most instead, with its prices; on top of the kernel's greedy page, which it begins with.
  How many looks at a pair of candidate and slot it takes is what `exact_steps_per_us` in the settings rests on.
- *numpy*: the same candidates' scores and the 8 best of them by `argpartition`; no rule, no price.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

from auction.allocation import new_outcome
from auction.kernel import (
    EXACT_DONE,
    EXACT_STEPS_MAX,
    GROUP_EVERYONE,
    NO_PIN,
    SHORTLIST_COUNT,
    CandidateArrays,
    OutcomeArrays,
    PageArrays,
    allocate_and_price_nb,
    allocate_exactly_nb,
)

ROUND_COUNT = 400


def candidates(count: int, brand_count: int) -> CandidateArrays:
    """Return candidates of random brands, half paying per impression; the first brand bids four times as much."""
    chance = np.random.default_rng(7)
    brand = chance.integers(0, brand_count, count).astype(np.int32)
    per_impression = chance.integers(0, 2, count)
    bid = chance.lognormal(12, 0.6, count).astype(np.int64) * np.where(brand == 0, 4, 1)
    return CandidateArrays(
        bid_micros=np.where(per_impression, bid // 20, bid),
        weight_ppm=np.where(per_impression, 1_000_000, chance.integers(5_000, 80_000, count)),
        value_micros=np.zeros(count, np.int64),
        floor_micros=np.full(count, 1_000, np.int64),
        advertiser_code=brand.copy(),
        brand_code=brand,
        product_code=np.arange(count, dtype=np.int32),
        charge_code=per_impression.astype(np.int8),
        tie_key=chance.permutation(count).astype(np.uint64),
        eligible_slots=np.full(count, 2**64 - 1, np.uint64),
        group_bits=np.zeros(count, np.uint64),
    )


def page(slot_count: int, brand_max: int) -> tuple[PageArrays, OutcomeArrays]:
    """Return a page of one placement, and where its outcome goes."""
    attention = [[int(1000 * falls**slot) for slot in range(slot_count)] for falls in (0.85, 0.95)]
    every = np.uint64((1 << slot_count) - 1)
    return PageArrays(
        attention_permille=np.array(attention, np.int64),
        opportunity_cost=np.zeros(slot_count, np.int64),
        pinned_row=np.full(slot_count, NO_PIN, np.int64),
        cap_bits=np.array([GROUP_EVERYONE], np.uint64),
        cap_per_brand=np.ones(1, np.int8),
        cap_slots=np.array([every]),
        cap_max=np.array([brand_max], np.int64),
    ), new_outcome(slot_count)


def best_scores(these: CandidateArrays) -> object:
    return np.argpartition(these.weight_ppm * these.bid_micros + these.value_micros * 1_000_000, -8)[-8:]


def time_us(work: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - started) / 1_000


def steps_of(these: CandidateArrays, count: int, this_page: PageArrays, outcome: OutcomeArrays) -> int:
    """Return how many looks the page worth most takes, by halving."""
    low, high = 0, 1 << 40
    while low < high:
        middle = (low + high) // 2
        allocate_and_price_nb(these, count, this_page, SHORTLIST_COUNT, outcome)
        if allocate_exactly_nb(these, count, this_page, middle, outcome) == EXACT_DONE:
            high = middle
        else:
            low = middle + 1
    return low


def main() -> None:
    """Print the table."""
    print("| candidates | brands | slots | kernel p50 µs | p99 | exact p50 µs | p99 | looks | per µs | numpy p50 µs |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for count, brand_count, slot_count in (
        (20, 5, 8),
        (200, 40, 8),
        (2_000, 200, 8),
        (20_000, 2_000, 8),
        (20_000, 200, 8),
        (20_000, 3, 8),
        (50_000, 2_000, 8),
        (2_000, 200, 12),
    ):
        these, (this_page, outcome) = candidates(count, brand_count), page(slot_count, 2)
        ours: list[float] = []
        exact: list[float] = []
        theirs: list[float] = []

        def fill() -> None:
            allocate_and_price_nb(these, count, this_page, SHORTLIST_COUNT, outcome)  # noqa: B023

        def fill_exactly() -> None:
            allocate_exactly_nb(these, count, this_page, EXACT_STEPS_MAX, outcome)  # noqa: B023

        for _ in range(ROUND_COUNT):
            ours.append(time_us(fill))
            exact.append(time_us(fill_exactly))
            theirs.append(time_us(lambda: best_scores(these)))  # noqa: B023
        looks, p50s = steps_of(these, count, this_page, outcome), [statistics.median(each) for each in (ours, exact)]
        p99s = [statistics.quantiles(each, n=100)[98] for each in (ours, exact)]
        print(
            f"| {count:,} | {brand_count:,} | {slot_count} | {p50s[0]:.0f} | {p99s[0]:.0f} | {p50s[1]:.0f} | "
            f"{p99s[1]:.0f} | {looks:,} | {looks / p50s[1]:.0f} | {statistics.median(theirs):.0f} |"
        )


if __name__ == "__main__":
    main()
