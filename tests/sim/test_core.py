"""The closed loop decides as the server does, charges as the ledger does, and draws as its seed says."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affinity.audience import Audience
from affinity.product_target import Target
from auction.kernel import (
    CAMPAIGN_LEFT_DAY,
    CAMPAIGN_PACING,
    CAMPAIGN_SPENT,
    NO_LIMIT_MICROS,
    Int64s,
)
from auction.loss import LossReason
from auction.placement import Attention, Floors
from auction.retailer_rule import Effect
from ledger.beacon import BeaconKeys
from ledger.event import EventType, ReportedEvent
from ledger.money import Micros
from ledger.terms import NO_VISITOR, ChargeOn, ChargeTerms
from sim.bidder import Paced, Standing, Truthful
from sim.chance import Stream
from sim.core import Contender, Lineup, Loop, line_up, read_kind
from sim.errors import PolicyRefused
from sim.scenario import Bidders
from sim.till import Till
from tests.auction import worlds

ADVERTISERS = [f"adv_{letter}" for letter in "abcdefgh"]
SLOT_COUNT = 3
DAILY_MICROS = 1_500_001


class Shop:
    """A market whose auctions the server and the loop can hold: rules, floors, caps, multipliers, audiences."""

    def __init__(self, seed: int, *, is_coarse: bool, **changes: Any) -> None:
        draws = np.random.default_rng(seed)
        products = [
            worlds.product(
                f"p{number:02d}", brand=f"brand-{number % 9}", advertiser_ids=ADVERTISERS, price_micros=price
            )
            for number, price in enumerate(draws.integers(1_000_000, 90_000_000, 24).tolist())
        ]
        bids = []
        for number in range(24):
            letter = ADVERTISERS[int(draws.integers(len(ADVERTISERS)))][-1]
            bid_micros = int(draws.integers(1, 6)) * 100_000 if is_coarse else int(draws.integers(50_000, 900_000))
            bids.append(
                worlds.bid(
                    f"bid_{number:02d}",
                    [f"p{number:02d}"],
                    bid_micros,
                    f"cmp_{letter}",
                    audience=Audience(segment="fans") if number % 5 == 0 else None,
                    placement_multipliers={"top": 1.5} if number % 7 == 0 else {},
                )
            )
        fields: dict[str, Any] = {
            "floor_micros": Floors(click=120_000),
            "score_floor_micros": 900,
            "brand_max": int(draws.integers(1, 3)),
            "sponsored_max": None if seed % 3 else 2,
            "pricing": ("critical", "vcg", "first")[seed % 3],
            "squashing_ppm": 1_000_000 if seed % 2 else 700_000,
            "attention_permille": Attention(click=[1000, 700, 500], impression=[1000, 700, 500]),
        }
        self.placement = worlds.placement("top", SLOT_COUNT, **fields | changes)
        source = worlds.source(
            products=products,
            advertiser_names={name: name for name in ADVERTISERS},
            placements=[self.placement],
            campaigns=[worlds.campaign(f"cmp_{name[-1]}", name) for name in ADVERTISERS],
            bids=bids,
            rules=[
                worlds.rule("dear", Effect(boost=1.3), Target(field="price_micros", at_least=60_000_000)),
                worlds.rule("no", Effect(exclude=True), Target(field="price_micros", at_least=88_000_000)),
            ],
        )
        quality = draws.integers(2, 6, 24) * 10_000 if is_coarse else draws.integers(5_000, 80_000, 24)
        self.world = worlds.World(source, {f"p{number:02d}": int(ppm) for number, ppm in enumerate(quality)})
        self.visitors = [self.world.visitor(), self._own_visitor(draws)]
        self.lineup = self._line_up(draws)

    def _own_visitor(self, draws: np.random.Generator) -> Any:
        """A visitor with qualities of its own for some products, and every audience's bit set."""
        rows = np.sort(draws.choice(24, 9, replace=False)).astype(np.int32)
        bits = np.full_like(self.world.visitor().audience_bits, 2**64 - 1)
        return self.world.visitor(product_row=rows, quality_ppm=draws.integers(5_000, 90_000, 9), audience_bits=bits)

    def _line_up(self, draws: np.random.Generator) -> Lineup:
        market, kinds = self.world.market, []
        for visitor in self.visitors:
            outcome = self.world.hold(worlds.request(), visitor, settings=worlds.Settings(candidates_per_slot=1000))
            kinds.append(read_kind(market, outcome))
        count = len(market.arrays.offer)
        clicks = [draws.integers(100_000, 400_000, count) for _ in kinds]
        return line_up(
            market,
            outcome.page,
            kinds,
            clicks,
            np.full(count, 300_000),
            np.full(count, 20_000_000),
            np.array([900, 800, 700]),
            np.zeros(count, np.int64),
            self.placement.pricing,
        )

    def contenders(self, daily_micros: int | None = DAILY_MICROS) -> list[Contender]:
        truthful = Truthful(Bidders(policy="truthful"), Stream(1))
        names = [self.world.snapshot.advertiser_id[row] for row in self.world.snapshot.columns.campaign_advertiser]
        assert names == self.world.snapshot.advertiser_id, "one campaign each, in the same order"
        return [Contender(name, truthful, 10**10 + row, daily_micros) for row, name in enumerate(names)]

    def hold(self, loop: Loop, number: int, kind: int) -> Any:
        """Hold an auction by the server, with what the loop's campaigns have left and are paced by."""
        spend, campaign = self.world.spend, loop.arrays.campaign
        spend.campaign_reason[:] = np.where(campaign[CAMPAIGN_LEFT_DAY] <= 0, LossReason.DAILY_BUDGET_SPENT, 0)
        spend.pacing_ppm[:] = campaign[CAMPAIGN_PACING]
        return self.world.hold(worlds.request(), self.visitors[kind], tie_seed=loop.tie_seed(number))


def as_offers(shop: Shop, outcome: Any) -> tuple[Int64s, Int64s]:
    """Return the server's outcome with winners as offers of the line-up; and the offer rows themselves."""
    block = outcome.block.copy()
    rows = shop.world.market.scratch.found.entry["offer_row"]
    line = shop.lineup.offer[2]
    for slot, winner in enumerate(outcome.block[0].tolist()):
        if winner >= 0:
            block[0, slot] = np.searchsorted(line, rows[winner])
    return block, rows


@pytest.mark.parametrize("seed", range(12))
def test_fills_prices_and_thresholds_are_the_servers_bit_for_bit(seed: int) -> None:
    shop = Shop(seed, is_coarse=seed % 4 == 0)
    loop = Loop(shop.lineup, shop.contenders(), 40, 1_000, seed)
    loop.set_bids([1_000_000] * len(ADVERTISERS))
    draws = np.random.default_rng(seed)
    slots = loop.lineup.page.pinned_row.size
    block, trace = np.zeros((1, 4 + slots, slots), np.int64), np.zeros((1, 2, slots), np.int64)
    ran_out, won, lowered = 0, set(), 0
    for number in range(250):
        if number % 50 == 0:
            loop.arrays.campaign[CAMPAIGN_PACING] = draws.integers(100_000, 1_000_001, len(ADVERTISERS))
        if number == 200:
            loop.arrays.campaign[CAMPAIGN_LEFT_DAY] = DAILY_MICROS
        kind = int(loop.kinds(1)[0])
        held, _ = as_offers(shop, shop.hold(loop, number, kind))
        loop.play(1, block, trace)
        assert np.array_equal(block[0], held), number
        ran_out += int((loop.arrays.campaign[CAMPAIGN_LEFT_DAY] == 0).any())
        won |= set(block[0, 0].tolist())
        lowered += int((block[0, 0] >= 0).sum())
    assert ran_out > 20, "budgets must run out on the way"
    assert len(won) > 5
    assert lowered > 250


def test_a_run_in_parts_is_the_run_in_one() -> None:
    shop = Shop(5, is_coarse=False)
    one, other = (Loop(shop.lineup, shop.contenders(60_000_001), 40, 1_000, 9) for _ in range(2))
    for loop in (one, other):
        loop.set_bids([900_000] * len(ADVERTISERS))
    slots = one.lineup.page.pinned_row.size
    block, trace = np.zeros((600, 4 + slots, slots), np.int64), np.zeros((600, 2, slots), np.int64)
    one.play(600, block, trace)
    again, traced = np.zeros_like(block), np.zeros_like(trace)
    for start in range(0, 600, 150):
        other.play(150, again[start : start + 150], traced[start : start + 150])
    assert np.array_equal(block, again)
    assert np.array_equal(trace, traced)
    assert trace[450:, 0].sum() > 10
    for name in one.arrays._fields:
        assert np.array_equal(getattr(one.arrays, name), getattr(other.arrays, name)), name


def test_visitors_answer_with_the_draws_of_the_seeds_stream() -> None:
    shop = Shop(1, is_coarse=False)
    loop = Loop(shop.lineup, shop.contenders(None), 40, 1_000, 4)
    loop.set_bids([1_000_000] * len(ADVERTISERS))
    slots, count = SLOT_COUNT, 300
    block, trace = np.zeros((count, 4 + slots, slots), np.int64), np.zeros((count, 2, slots), np.int64)
    kinds = loop.kinds(count)
    loop.play(count, block, trace)
    stream, offers = Stream(loop.chance_key), shop.lineup.offer.shape[1]
    clicks = orders = 0
    for auction in range(count):
        for slot in range(slots):
            looks, clicked, ordered = ((stream.next() >> 32) * limit >> 32 for limit in (1000, 10**6, 10**6))
            offer = int(block[auction, 0, slot])
            expected = 0
            click_ppm = shop.lineup.of_kind[1, int(kinds[auction]) * offers + offer]
            if offer >= 0 and looks < shop.lineup.seen_permille[slot] and clicked < click_ppm:
                expected = 1 | (2 if ordered < 300_000 else 0)
            assert trace[auction, 0, slot] == expected
            clicks, orders = clicks + (expected & 1), orders + (expected >> 1)
    assert clicks > 100
    assert orders > 20
    assert sum(one.clicks for one in loop.results()) == clicks
    assert sum(one.orders for one in loop.results()) == orders


def test_every_charge_is_what_the_ledger_makes_of_it_and_the_books_sum_to_nothing() -> None:
    shop = Shop(4, is_coarse=False)
    contenders = [
        Contender(one.advertiser_id, one.policy, 900_003 + 7 * row, 700_001, 650_000 if row % 2 else None)
        for row, one in enumerate(shop.contenders())
    ]
    loop = Loop(shop.lineup, contenders, 40, 10_000, 2)
    loop.set_bids([1_000_000] * len(ADVERTISERS))
    count, slots = 400, SLOT_COUNT
    block, trace = np.zeros((count, 4 + slots, slots), np.int64), np.zeros((count, 2, slots), np.int64)
    loop.play(count, block, trace)
    keys = BeaconKeys({1: b"k" * 32}, 1, first_count=0)
    till = Till(keys, "EUR", "UTC", lambda: worlds.NOW_MS, lambda _: None)
    for one in contenders:
        till.open_account(
            one.advertiser_id, f"cmp_{one.advertiser_id[-1]}", one.daily_budget_micros, one.total_budget_micros,
            one.funds_micros,
        )  # fmt: skip
    price_row = {"critical": 1, "vcg": 2}[shop.placement.pricing]
    partial = 0
    for auction in range(count):
        for slot in range(slots):
            if not trace[auction, 0, slot] & 1:
                continue
            offer, price = int(block[auction, 0, slot]), int(block[auction, price_row, slot])
            name = contenders[int(shop.lineup.offer[1, offer])].advertiser_id
            token = keys.seal_beacon(terms(f"a{auction}", slot + 1, name, price))
            event = ReportedEvent(event_id=f"e{auction}-{slot}", type=EventType.CLICK, beacon_token=token)
            result = till.record([event])[0]
            assert (result.amount_micros or 0) == trace[auction, 1, slot], (auction, slot)
            partial += result.code == "partial"
    assert partial > 3
    books, ours = till.close(), loop.books()
    assert ours.sum_micros == books.sum_micros == 0
    assert -ours.balance_micros["revenue:media"] == books.billed_micros > 0
    assert all(one.given_back_micros >= 0 for one in loop.results())


def test_a_micro_too_much_in_a_wallet_is_seen() -> None:
    shop = Shop(1, is_coarse=False)
    loop = Loop(shop.lineup, shop.contenders(), 40, 1_000, 4)
    loop.run(200, 100)
    assert loop.books().sum_micros == 0
    loop.arrays.funds_micros[0] += 1
    with pytest.raises(AssertionError, match="its wallet says otherwise"):
        loop.books()


def test_frequency_caps_hold_per_visitor_and_day() -> None:
    shop = Shop(1, is_coarse=False)
    capped = shop.lineup.offer.copy()
    capped[3] = 2
    lineup = Lineup(
        shop.lineup.page, shop.lineup.candidates, capped, shop.lineup.of_kind, shop.lineup.seen_permille, "critical"
    )
    loop = Loop(lineup, shop.contenders(None), 3, 500, 4)
    loop.run(499, 100)
    assert loop.arrays.shown.max() == 2
    impressions = sum(one.impressions for one in loop.results())
    assert impressions == loop.arrays.shown.sum() < 499
    loop.run(101, 100)
    assert 0 < sum(one.impressions for one in loop.results()) - impressions <= loop.arrays.shown.size * 2


PROGRAM = """
import sys
from sim.bidder import Bandit, Paced
from sim.chance import Stream
from sim.core import Contender, Loop
from sim.scenario import Bidders
from tests.sim.test_core import Shop
shop = Shop(7, is_coarse=False)
contenders = [
    Contender(
        one.advertiser_id,
        Bandit(Bidders(policy="bandit"), Stream(row)) if row % 2 else Paced(Bidders(policy="paced"), Stream(row)),
        one.funds_micros, 3_000_000, is_paced=row % 3 == 0,
    )
    for row, one in enumerate(shop.contenders())
]
loop = Loop(shop.lineup, contenders, 40, 8_000, 11)
loop.run(20_000, 400)
books = loop.books()
sys.stdout.write(repr((loop.results(), books)))
"""


def test_the_same_seed_gives_the_same_bytes_in_fresh_processes() -> None:
    settings = (
        {"PYTHONHASHSEED": "1", "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        {"PYTHONHASHSEED": "4242", "NUMBA_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "TZ": "Asia/Tokyo"},
    )
    one, other = (
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **setting},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
        ).stdout
        for setting in settings
    )
    assert one == other
    assert len(one) > 1_000


class Unmeasured:
    """A policy that cannot count."""

    def share_ppm(self, standing: Standing) -> Any:
        return float("nan")


def test_a_bid_that_is_none_is_refused_before_an_auction_is_held() -> None:
    shop = Shop(1, is_coarse=False)
    contenders = [*shop.contenders()[:-1], Contender("adv_h", Unmeasured(), 1)]
    loop = Loop(shop.lineup, contenders, 40, 1_000, 4)
    with pytest.raises(PolicyRefused, match=r"adv_h: Unmeasured.share_ppm must answer a whole number"):
        loop.run(100, 50)
    assert loop.auction_count == 0


@pytest.mark.parametrize("by_server", [True, False])
def test_paced_bidders_make_their_budget_last_the_day(by_server: bool) -> None:
    shop = Shop(1, is_coarse=False)
    free = Loop(shop.lineup, shop.contenders(None), 40, 40_000, 4)
    free.run(40_000, 1_000)
    budget = [max(1_000_000, one.spend_micros // 3) for one in free.results()]
    group = Bidders(policy="paced", daily_budget_micros=1)
    loop = Loop(
        shop.lineup,
        [
            Contender(
                one.advertiser_id,
                one.policy if by_server else Paced(group, Stream(1)),
                one.funds_micros,
                micros,
                is_paced=by_server,
            )
            for one, micros in zip(shop.contenders(), budget, strict=True)
        ],
        40,
        40_000,
        4,
    )
    loop.run(20_000, 500)
    half = loop.arrays.campaign[CAMPAIGN_SPENT].sum() / sum(budget)
    loop.run(20_000, 500)
    whole = loop.arrays.campaign[CAMPAIGN_SPENT].sum() / sum(budget)
    assert 0.35 < half < 0.65
    assert 0.9 < whole <= 1.0
    assert (loop.arrays.campaign[CAMPAIGN_LEFT_DAY] < NO_LIMIT_MICROS).all()


def terms(auction_id: str, slot_position: int, advertiser_id: str, price_micros: int) -> ChargeTerms:
    return ChargeTerms(
        auction_id=auction_id,
        placement_id="top",
        slot_position=slot_position,
        product_id="p1",
        is_sponsored=True,
        advertiser_id=advertiser_id,
        campaign_id=f"cmp_{advertiser_id[-1]}",
        bid_id="bid-1",
        charge_on=ChargeOn.CLICK,
        price_micros=Micros(price_micros),
        quality_ppm=10_000,
        visitor_pseudonym=NO_VISITOR,
        variant=None,
        issued_at_ms=worlds.NOW_MS,
    )
