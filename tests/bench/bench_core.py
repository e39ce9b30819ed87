"""What holding many auctions in one compiled call costs, against one call each and against the server's whole path.

Run as `python -m tests.bench.bench_core`. The rounds of the contestants are interleaved, so that a busy machine slows
them alike; a figure is the best of its rounds, since on a busy machine every other says how busy it was.

- *core*: 48 bidders, 3 slots, one auction after another: winners, thresholds and both prices. Bids and weights differ
  from auction to auction, each brand at most once on the page.
- *by ranking*, *as any page*: pages that are simple, and the same with a pin that nothing is sold against, which sends
  them through what fills any page.
- *one call each*: the same auctions by `allocate_and_price_nb` from Python.
- *closed loop*: the same with budgets, the server's pacing, clicks and orders drawn, charges, 8 kinds of visitor and
  policies asked every 10,000 auctions.
- *server*: `hold_auction` on a snapshot with 48 bids for the same placement.
"""

import time
from collections.abc import Callable

import numpy as np

from auction.kernel import (
    GROUP_EVERYONE,
    NO_LIMIT_MICROS,
    NO_PIN,
    OFFER_FACT_COUNT,
    SHORTLIST_COUNT,
    CandidateArrays,
    OutcomeArrays,
    PageArrays,
    allocate_and_price_nb,
    hold_auctions_nb,
)
from sim.bidder import Truthful
from sim.chance import Stream
from sim.core import Contender, Lineup, Loop
from sim.scenario import Bidders
from tests.auction import worlds

BIDDER_COUNT = 48
SLOT_COUNT = 3
BATCH = 4_096
LOOP_AUCTION_COUNT = 20_000
DAY_AUCTION_COUNT = 100_000
ROUND_COUNT = 40


def candidates(rows: int) -> CandidateArrays:
    """Return so many candidates, bidder after bidder, again and again."""
    chance, number = np.random.default_rng(7), np.arange(rows)
    code = (number % BIDDER_COUNT).astype(np.int32)
    return CandidateArrays(
        bid_micros=chance.lognormal(12, 0.6, rows).astype(np.int64),
        weight_ppm=chance.integers(5_000, 80_000, rows),
        value_micros=np.zeros(rows, np.int64),
        floor_micros=np.full(rows, 1_000, np.int64),
        advertiser_code=code,
        brand_code=code.copy(),
        product_code=code.copy(),
        charge_code=np.zeros(rows, np.int8),
        tie_key=chance.permutation(rows).astype(np.uint64),
        eligible_slots=np.full(rows, (1 << SLOT_COUNT) - 1, np.uint64),
        group_bits=np.zeros(rows, np.uint64),
    )


def page() -> PageArrays:
    """Return a page of one placement, each brand at most once."""
    return PageArrays(
        attention_permille=np.array([[1000, 700, 500]] * 2, np.int64),
        opportunity_cost=np.zeros(SLOT_COUNT, np.int64),
        pinned_row=np.full(SLOT_COUNT, NO_PIN, np.int64),
        cap_bits=np.array([GROUP_EVERYONE], np.uint64),
        cap_per_brand=np.ones(1, np.int8),
        cap_slots=np.array([(1 << SLOT_COUNT) - 1], np.uint64),
        cap_max=np.ones(1, np.int64),
    )


def loop(*, is_paced: bool) -> Loop:
    """Return a closed loop of the bidders, each with an offer and a budget that pacing must spread."""
    chance, kind_count = np.random.default_rng(8), 8
    offer = np.zeros((OFFER_FACT_COUNT, BIDDER_COUNT), np.int64)
    number = np.arange(BIDDER_COUNT)
    worth = chance.lognormal(12, 0.6, BIDDER_COUNT).astype(np.int64)
    offer[:] = np.array([worth, number, number, 0 * number, 80_000 + 0 * number, worth, 20_000_000 + 0 * number])
    of_kind = np.ones((2, kind_count * BIDDER_COUNT), np.int64)
    of_kind[1] = chance.integers(5_000, 80_000, of_kind.shape[1])
    lineup = Lineup(page(), candidates(kind_count * BIDDER_COUNT), offer, of_kind, np.array([900, 700, 500]))
    policy = Truthful(Bidders(policy="truthful"), Stream(1))
    budget = worth.mean() * DAY_AUCTION_COUNT * SLOT_COUNT * 0.03 / BIDDER_COUNT / 3
    contenders = [
        Contender(f"adv-{row:02d}", policy, 10**12, int(budget) if is_paced else None, is_paced=is_paced)
        for row in range(BIDDER_COUNT)
    ]
    return Loop(lineup, contenders, 5_000, DAY_AUCTION_COUNT, 1)


def server() -> Callable[[], object]:
    """Return what holds one auction by the server's own path."""
    names = [f"adv_{row:02d}" for row in range(BIDDER_COUNT)]
    chance = np.random.default_rng(9)
    source = worlds.source(
        products=[worlds.product(f"p{row:02d}", advertiser_ids=[name]) for row, name in enumerate(names)],
        advertiser_names={name: name for name in names},
        placements=[worlds.placement("top", SLOT_COUNT, brand_max=1)],
        campaigns=[worlds.campaign(f"cmp_{name[4:]}", name) for name in names],
        bids=[
            worlds.bid(f"bid_{row:02d}", [f"p{row:02d}"], int(chance.lognormal(12, 0.6)), f"cmp_{name[4:]}")
            for row, name in enumerate(names)
        ],
    )
    world, request = worlds.World(source), worlds.request()
    return lambda: world.hold(request)


def main() -> None:
    """Print the table."""
    these, this_page = candidates(BATCH * BIDDER_COUNT), page()
    begin = np.arange(BATCH + 1, dtype=np.int64) * BIDDER_COUNT
    no_pins = np.full((BATCH, SLOT_COUNT), NO_PIN, np.int64)
    block = np.zeros((BATCH, 4 + SLOT_COUNT, SLOT_COUNT), np.int64)
    # The last row of every auction stands in a fourth slot that nobody looks at: not simple, and as many are sold.
    wide = this_page._replace(
        attention_permille=np.array([[1000, 700, 500, 0]] * 2, np.int64),
        opportunity_cost=np.zeros(4, np.int64),
        pinned_row=np.full(4, NO_PIN, np.int64),
    )
    pins = np.full((BATCH, 4), NO_PIN, np.int64)
    pins[:, 3] = BIDDER_COUNT - 1
    wide_block = np.zeros((BATCH, 8, 4), np.int64)
    alone = [CandidateArrays(*[array[a : a + BIDDER_COUNT] for array in these]) for a in begin[:200]]
    one = np.zeros((4 + SLOT_COUNT, SLOT_COUNT), np.int64)
    outcome = OutcomeArrays(one[0], one[1], one[2], one[4:], one[3])
    free, paced, hold = loop(is_paced=False), loop(is_paced=True), server()

    def one_call_each() -> None:
        for mine in alone:
            allocate_and_price_nb(mine, BIDDER_COUNT, this_page, SHORTLIST_COUNT, outcome)

    def by_the_server() -> None:
        for _ in range(100):
            hold()

    contestants: dict[str, tuple[int, Callable[[], object]]] = {
        "core, by ranking": (BATCH, lambda: hold_auctions_nb(these, begin, this_page, no_pins, block)),
        "core, as any page": (BATCH, lambda: hold_auctions_nb(these, begin, wide, pins, wide_block)),
        "one call each": (len(alone), one_call_each),
        "closed loop, no budgets": (LOOP_AUCTION_COUNT, lambda: free.run(LOOP_AUCTION_COUNT, 10_000)),
        "closed loop, 48 paced": (LOOP_AUCTION_COUNT, lambda: paced.run(LOOP_AUCTION_COUNT, 10_000)),
        "server, hold_auction": (100, by_the_server),
    }
    best: dict[str, float] = dict.fromkeys(contestants, 0.0)
    for _, work in contestants.values():
        work()
    for _ in range(ROUND_COUNT):
        for name, (count, work) in contestants.items():
            started = time.perf_counter()
            work()
            best[name] = max(best[name], count / (time.perf_counter() - started))
    print("| 48 bidders, 3 slots | auctions a second | µs each | times the server's |\n|---|---|---|---|")
    for name, rate in best.items():
        print(f"| {name} | {rate:,.0f} | {1e6 / rate:.2f} | {rate / best['server, hold_auction']:,.0f} |")
    spent = sum(one.spend_micros for one in paced.results())
    given = sum(one.given_back_micros for one in paced.results())
    limits = [one.daily_budget_micros or NO_LIMIT_MICROS for one in paced.contenders]
    days = paced.auction_count / DAY_AUCTION_COUNT
    print(f"\nof the paced budgets spent: {spent / (sum(limits) * days):.3f}, given back: {given / spent:.2%}")


if __name__ == "__main__":
    main()
