"""Decisions of whole pages: rules, pins, merchandised pages, deadlines, and that stopping early changes nothing."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest

from affinity.product_target import Target
from auction.engine import LOOK_ROWS_MAX, LOOK_ROWS_MIN, Deadline, Outcome, hold_auction, rehearse
from auction.errors import AllocationMixed, PlacementNotOnPage, PlacementRepeated, PlacementUnknown, TooManySlots
from auction.kernel import NO_CANDIDATE
from auction.market import Market
from auction.placement import Attention, Floors, PageCaps
from auction.request import Page, RequestCandidate, RequestPlacement
from auction.retailer_rule import Effect, Pin, Schedule, Scope, Spacing, Value
from auction.settings import Settings
from ledger.terms import ChargeOn
from tests.auction.worlds import (
    NOW,
    NOW_MS,
    SETTINGS,
    World,
    bid,
    large_source,
    placement,
    product,
    request,
    rule,
    some_quality,
    source,
)

CHEAP = Target(field="price_micros", at_most=40_000_000.0)
LIKED: list[Any] = [f"brand{number}" for number in range(7, 15)]
SCAN_ALL = Settings(candidates_per_slot=1 << 30)


def names(world: World, outcome: Outcome, place: int = 0) -> list[str]:
    return [name for name, _ in world.winners(outcome, place)]


class TestPrices:
    def test_the_winner_pays_what_keeps_its_place(self) -> None:
        # EOS: bids 10, 4, 2 on slots with attention 1000 and 500; equal quality.
        slots = placement(slot_count=2)
        attention = msgspec.structs.replace(slots.attention_permille, click=[1000, 500], impression=[1000, 500])
        slots = msgspec.structs.replace(slots, attention_permille=attention)
        bids = [
            bid("bid_1", ["p1"], 10_000_000, "cmp_a"),
            bid("bid_2", ["p2"], 4_000_000, "cmp_b"),
            bid("bid_3", ["p3"], 2_000_000, "cmp_c"),
        ]
        for pricing, prices in (("critical", [4_000_000, 2_000_000]), ("vcg", [3_000_000, 2_000_000])):
            world = World(source(placements=[msgspec.structs.replace(slots, pricing=pricing)], bids=bids))
            won = world.winners(world.hold(request()))
            assert [name for name, _ in won] == ["p1", "p2"]
            assert [price for _, price in won] == pytest.approx(prices, abs=1)

    def test_each_placement_of_a_page_bills_by_its_own_rule(self) -> None:
        def place(name: str, attention: list[int], pricing: str) -> Any:
            levels = Attention(click=attention, impression=attention)
            return placement(name, len(attention), attention_permille=levels, pricing=pricing)

        places = [place("a", [1000], "critical"), place("b", [600, 300], "vcg"), place("c", [200], "first")]
        bids = [bid(f"bid_{n}", [f"p{n}"], (6 - n) * 1_000_000, f"cmp_{'abc'[n % 3]}") for n in range(1, 6)]
        world = World(source(placements=places, bids=bids))
        outcome = world.hold(request(placements=[RequestPlacement(placement_id=name) for name in "abc"]))
        critical, vcg = outcome.arrays.critical_micros.tolist(), outcome.arrays.vcg_micros.tolist()
        won = [world.winners(outcome, number) for number in range(3)]
        assert won == [[("p1", critical[0])], [("p2", vcg[1]), ("p3", vcg[2])], [("p4", 2_000_000)]]
        assert vcg[1] < critical[1]
        assert critical[3] < 2_000_000

    def test_quality_decides_beside_the_bid_and_lowers_the_price(self) -> None:
        bids = [bid("bid_1", ["p1"], 1_000_000, "cmp_a"), bid("bid_2", ["p2"], 1_500_000, "cmp_b")]
        world = World(source(placements=[placement(slot_count=1)], bids=bids), {"p1": 40_000, "p2": 10_000})
        won = world.winners(world.hold(request()))
        assert won[0][0] == "p1"
        assert won[0][1] == pytest.approx(375_000, abs=1)

    def test_a_visitors_own_quality_counts(self) -> None:
        bids = [bid("bid_1", ["p1"], 1_000_000, "cmp_a"), bid("bid_2", ["p2"], 1_500_000, "cmp_b")]
        world = World(source(placements=[placement(slot_count=1)], bids=bids))
        row = world.snapshot.product_row["p1"]
        fan = world.visitor(product_row=np.array([row], np.int32), quality_ppm=np.array([900_000], np.int64))
        assert names(world, world.hold(request(), fan)) == ["p1"]
        assert names(world, world.hold(request())) == ["p2"], "nothing of the fan may be left behind"

    def test_squashing_draws_qualities_together(self) -> None:
        bids = [bid("bid_1", ["p1"], 1_000_000, "cmp_a"), bid("bid_2", ["p2"], 1_500_000, "cmp_b")]
        quality = {"p1": 40_000, "p2": 20_000}
        plain = World(source(placements=[placement(slot_count=1)], bids=bids), quality)
        squashed = World(source(placements=[placement(slot_count=1, squashing_ppm=0)], bids=bids), quality)
        assert names(plain, plain.hold(request())) == ["p1"]
        assert names(squashed, squashed.hold(request())) == ["p2"]


class TestRules:
    def test_excluded_products_appear_neither_paid_nor_organic(self) -> None:
        ban = rule("rul_1", Effect(exclude=True), Target(field="brand", equals="brand-p1"))
        world = World(source(rules=[ban], bids=[bid("bid_1", ["p1"]), bid("bid_2", ["p2"], campaign_id="cmp_b")]))
        assert names(world, world.hold(request())) == ["p2"]
        assert "p1" not in names(world, world.hold(request(mode="merchandised")))
        assert "p1" in names(world, world.hold(request(rules="off")))

    def test_a_boost_changes_who_wins(self) -> None:
        lift = rule("rul_1", Effect(boost=2.0), Target(field="product_id", equals="p2"))
        bids = [bid("bid_1", ["p1"], 1_500_000), bid("bid_2", ["p2"], 1_000_000, "cmp_b")]
        one = [placement(slot_count=1)]
        world = World(source(rules=[lift], bids=bids, placements=one))
        assert world.winners(world.hold(request()))[0] == ("p2", pytest.approx(750_000, abs=1))
        assert names(world, world.hold(request(rules="off"))) == ["p1"]

    def test_the_highest_floor_counts(self) -> None:
        low = rule("rul_1", Effect(floor=200_000))
        high = rule("rul_2", Effect(floor=Floors(click=600_000)), Target(field="product_id", equals="p1"))
        world = World(source(rules=[low, high], bids=[bid("bid_1", ["p1"]), bid("bid_2", ["p2"], campaign_id="cmp_b")]))
        prices = dict(world.winners(world.hold(request(exclude_product_ids=["p2"]))))
        assert prices == {"p1": 600_000}
        assert dict(world.winners(world.hold(request(exclude_product_ids=["p1"])))) == {"p2": 200_000}

    def test_a_cap_per_brand_among_a_target(self) -> None:
        products = [product(f"p{number}", brand="Acme") for number in range(1, 4)] + [product("p4", brand="Other")]
        bids = [bid(f"bid_{number}", [f"p{number}"], 2_000_000) for number in range(1, 4)]
        bids.append(bid("bid_4", ["p4"], 1_000_000, "cmp_b"))
        cap = rule("rul_1", Effect(brand_max=1), Target(field="category_id", equals="Shoes"))
        world = World(source(products=products, bids=bids, rules=[cap]))
        assert sorted(world.snapshot.product_id[row] for row in range(4)) == ["p1", "p2", "p3", "p4"]
        won = names(world, world.hold(request()))
        assert len(won) == 2
        assert "p4" in won

    def test_pins_stand_first_and_are_not_sold(self) -> None:
        pin = rule("rul_1", Effect(pin=Pin(product_id="p6", slot_position=1)))
        world = World(source(rules=[pin], bids=[bid("bid_1", ["p1"]), bid("bid_2", ["p6"], 9_000_000, "cmp_b")]))
        outcome = world.hold(request())
        assert [(one.slot_position, one.is_pinned, one.offer_row >= 0) for one in outcome.places[0].decisions] == [
            (1, True, False),
            (2, False, True),
        ]
        assert names(world, outcome) == ["p6", "p1"]
        assert names(world, world.hold(request(rules="off"))) == ["p6", "p1"], "without rules p6 wins by its bid"
        assert world.hold(request(rules="off")).places[0].decisions[0].offer_row >= 0

    def test_a_pin_on_a_product_that_is_gone_or_excluded_is_skipped(self) -> None:
        pins = [
            rule("rul_1", Effect(pin=Pin(product_id="gone", slot_position=1))),
            rule("rul_2", Effect(pin=Pin(product_id="p5", slot_position=2))),
            rule("rul_3", Effect(exclude=True), Target(field="product_id", equals="p5")),
        ]
        world = World(source(rules=pins, bids=[]))
        assert world.hold(request()).places[0].decisions == []

    def test_of_two_pins_on_one_slot_the_higher_priority_stands(self) -> None:
        pins = [
            rule("rul_1", Effect(pin=Pin(product_id="p1", slot_position=1)), priority=1),
            rule("rul_2", Effect(pin=Pin(product_id="p2", slot_position=1)), priority=9),
        ]
        world = World(source(rules=pins))
        assert names(world, world.hold(request())) == ["p2"]

    @pytest.mark.parametrize(
        ("scope", "is_hit"),
        [
            (Scope(), True),
            (Scope(pages=["category"]), True),
            (Scope(pages=["home"]), False),
            (Scope(placements=["top"]), True),
            (Scope(placements=["other"]), False),
            (Scope(categories=["Shoes"]), True),
            (Scope(categories=["Hats"]), False),
            (Scope(devices=["mobile"]), True),
            (Scope(devices=["desktop"]), False),
            (Scope(segments=["vip"]), True),
            (Scope(segments=["new"]), False),
        ],
    )
    def test_a_rule_acts_in_its_scope_only(self, scope: Scope, is_hit: bool) -> None:
        ban = rule("rul_1", Effect(exclude=True), scope=scope)
        world = World(source(rules=[ban], bids=[bid("bid_1", ["p1"])]))
        visitor = world.visitor(segments=frozenset({"vip"}))
        won = names(world, world.hold(request(context={"device": "mobile"}), visitor))
        assert won == ([] if is_hit else ["p1"])

    def test_a_rule_acts_on_schedule(self) -> None:
        from datetime import timedelta

        for starts, ends, is_hit in ((-1, 1, True), (1, 2, False), (-2, -1, False), (-1, None, True)):
            schedule = Schedule(
                starts_at=NOW + timedelta(hours=starts), ends_at=None if ends is None else NOW + timedelta(hours=ends)
            )
            ban = rule("rul_1", Effect(exclude=True), schedule=schedule)
            world = World(source(rules=[ban], bids=[bid("bid_1", ["p1"])]))
            assert names(world, world.hold(request())) == ([] if is_hit else ["p1"])


class TestMerchandised:
    def test_without_bids_products_stand_in_the_order_of_quality(self) -> None:
        quality = {f"p{number}": number * 10_000 for number in range(1, 7)}
        world = World(source(placements=[placement(slot_count=3)]), quality)
        outcome = world.hold(request(mode="merchandised"))
        assert world.winners(outcome) == [("p6", 0), ("p5", 0), ("p4", 0)]

    def test_the_callers_own_ranking_is_kept(self) -> None:
        told = [RequestCandidate(product_id=f"p{number}", organic_rank=number) for number in range(1, 7)]
        world = World(source(placements=[placement(slot_count=6)]))
        asked = request(mode="merchandised", placements=[RequestPlacement(placement_id="top", candidates=told)])
        assert names(world, world.hold(asked)) == [f"p{number}" for number in range(1, 7)]

    def test_a_product_is_shown_once_paid_if_it_clears_its_floor(self) -> None:
        world = World(source(placements=[placement(slot_count=6)], bids=[bid("bid_1", ["p3"], 5_000_000)]))
        decisions = world.hold(request(mode="merchandised")).places[0].decisions
        assert len(decisions) == 6
        assert [world.snapshot.product_id[one.product_row] for one in decisions if one.offer_row >= 0] == ["p3"]
        floor = placement(slot_count=6, floor_micros=Floors(click=6_000_000))
        world = World(source(placements=[floor], bids=[bid("bid_1", ["p3"], 5_000_000)]))
        decisions = world.hold(request(mode="merchandised")).places[0].decisions
        assert len(decisions) == 6
        assert all(one.offer_row < 0 for one in decisions)

    def test_a_sponsored_maximum_leaves_the_rest_to_organic_products(self) -> None:
        bids = [bid(f"bid_{number}", [f"p{number}"], 5_000_000) for number in range(1, 5)]
        world = World(source(placements=[placement(slot_count=4, sponsored_max=1)], bids=bids))
        decisions = world.hold(request(mode="merchandised")).places[0].decisions
        assert [one.offer_row >= 0 for one in decisions].count(True) == 1
        assert len(decisions) == 4


class TestManyPlacements:
    def test_no_product_stands_twice_on_a_page_and_page_caps_hold(self) -> None:
        bids = [bid(f"bid_{number}", [f"p{number}"], number * 1_000_000) for number in range(1, 7)]
        places = [placement("top", 2), placement("side", 2)]
        asked = request(placements=[RequestPlacement(placement_id="top"), RequestPlacement(placement_id="side")])
        world = World(source(placements=places, bids=bids))
        outcome = world.hold(asked)
        won = names(world, outcome, 0) + names(world, outcome, 1)
        assert sorted(won) == ["p3", "p4", "p5", "p6"]
        capped = World(source(placements=places, bids=bids, page_caps={"category": PageCaps(sponsored_max=3)}))
        outcome = capped.hold(asked)
        assert len(names(capped, outcome, 0) + names(capped, outcome, 1)) == 3

    @pytest.mark.parametrize(
        ("asked", "refusal", "pointer"),
        [
            ([("nowhere", None)], PlacementUnknown, "/placements/0/placement_id"),
            ([("top", None), ("top", None)], PlacementRepeated, "/placements/1/placement_id"),
            ([("cart-only", None)], PlacementNotOnPage, "/placements/0/placement_id"),
            ([("top", 3)], TooManySlots, "/placements/0/slot_count"),
        ],
    )
    def test_what_cannot_be_asked_is_refused(self, asked: Any, refusal: type[Exception], pointer: str) -> None:
        world = World(source(placements=[placement("top", 2), placement("cart-only", page_types=["cart"])]))
        placements = [RequestPlacement(placement_id=name, slot_count=count) for name, count in asked]
        with pytest.raises(refusal) as refused:
            world.hold(request(placements=placements))
        assert refused.value.pointer == pointer  # type: ignore[attr-defined]

    def test_a_page_has_at_most_64_slots(self) -> None:
        world = World(source(placements=[placement("a", 50), placement("b", 50)]))
        with pytest.raises(TooManySlots):
            world.hold(request(placements=[RequestPlacement(placement_id=name) for name in "ab"]))


class TestPageWorthMost:
    """An impression is worth 10,000 anywhere, a click 9,000 in the first slot and half of that in the second."""

    def world(self, **changes: Any) -> World:
        attention = Attention(click=[1000, 500], impression=[1000, 1000])
        slots = placement(slot_count=2, attention_permille=attention, **changes)
        bids = [
            bid("bid_1", ["p1"], 900_000, "cmp_a"),
            bid("bid_2", ["p2"], 10_000_000, "cmp_b", charge_on=ChargeOn.IMPRESSION),
        ]
        return World(source(placements=[slots, placement("side", 1)], bids=bids))

    def test_it_is_found_where_the_placement_asks_for_it(self) -> None:
        greedy, exact = self.world(), self.world(allocation="exact")
        first, second = greedy.hold(request()), exact.hold(request())
        assert (names(greedy, first), first.allocation) == (["p2", "p1"], "greedy")
        assert (names(exact, second), second.allocation) == (["p1", "p2"], "exact")
        assert [price for _, price in exact.winners(second)] == [1, 1]
        assert [one.charge_on for one in second.places[0].decisions] == [ChargeOn.CLICK, ChargeOn.IMPRESSION]

    def test_with_no_time_left_for_it_the_greedy_page_is_given(self) -> None:
        world = self.world(allocation="exact")
        hasty = Deadline(NOW_MS, 1, lambda: 0)
        outcome = hold_auction(request(), "auc_1", world.market, world.visitor(), world.spend, hasty, 1, SETTINGS)
        assert (names(world, outcome), outcome.allocation, outcome.is_partial) == (["p2", "p1"], "greedy", False)

    def test_a_page_is_filled_in_one_way(self) -> None:
        world = self.world(allocation="exact")
        asked = request(placements=[RequestPlacement(placement_id=name) for name in ("top", "side")])
        with pytest.raises(AllocationMixed, match="'side' has greedy") as refused:
            world.hold(asked)
        assert refused.value.pointer == "/placements/1/placement_id"

    def test_all_candidates_are_looked_at(self) -> None:
        """However few the greedy page needs."""
        large = large_source(3_000, product_count=300, advertiser_count=30)
        greedy = World(large)
        asked = request(Page(type="home"))
        exact = World(
            msgspec.structs.replace(
                large, placements=[msgspec.structs.replace(one, allocation="exact") for one in large.placements]
            )
        )
        found = exact.hold(asked)
        assert found.allocation == "exact"
        assert greedy.hold(asked).candidate_count < found.candidate_count
        assert found.candidate_count == greedy.hold(asked, settings=SCAN_ALL).candidate_count


class TestDeadline:
    def test_past_the_deadline_the_organic_answer_is_given(self) -> None:
        pin = rule("rul_1", Effect(pin=Pin(product_id="p6", slot_position=1)))
        world = World(source(bids=[bid("bid_1", ["p1"])], rules=[pin]))
        late = Deadline(NOW_MS, 0, lambda: 1)

        def hold(mode: Any, rules: Any) -> Outcome:
            view = world.visitor()
            asked = request(mode=mode, rules=rules)
            return hold_auction(asked, "auc_1", world.market, view, world.spend, late, 1, SETTINGS)

        outcome = hold("sponsored", "off")
        assert outcome.is_partial
        assert outcome.places[0].no_fill_reason == "timeout"
        assert names(world, hold("sponsored", "on")) == ["p6"]
        merchandised = hold("merchandised", "on").places[0].decisions
        assert len(merchandised) == 2
        assert all(one.offer_row < 0 for one in merchandised)

    def test_time_running_out_midway_gives_the_best_found_so_far(self) -> None:
        world = World(large_source(3_000, product_count=300))
        ticks = iter(range(1, 10_000))
        soon = Deadline(NOW_MS, 3, lambda: next(ticks))
        settings = Settings(candidates_per_slot=100)
        world.market.rows_between_looks = 4
        asked = request(Page(type="home"))
        outcome = hold_auction(asked, "auc_1", world.market, world.visitor(), world.spend, soon, 1, settings)
        assert outcome.is_partial
        assert outcome.candidate_count + outcome.lost_count < 20
        assert outcome.places[0].decisions

    def test_how_many_offers_fit_between_two_looks_at_the_clock_is_measured(self) -> None:
        rows: list[int] = []
        for microseconds in (10, 20, 100_000):  # what an auction takes on a slower and slower machine
            world = World(large_source(3_000, product_count=300))
            now = iter(range(0, 10**12, microseconds * 1_000))
            rehearse(world.market, SETTINGS, lambda now=now: next(now))
            rows.append(world.market.rows_between_looks)
        assert LOOK_ROWS_MIN == rows[2] < rows[1] < rows[0] <= LOOK_ROWS_MAX
        assert rows[0] // 2 == rows[1]  # twice the time, half as many

    def test_a_reason_not_to_sell_leaves_the_organic_page(self) -> None:
        world = World(source(bids=[bid("bid_1", ["p1"])]))
        outcome = world.hold(request(), no_paid_reason="holdout")
        assert (outcome.places[0].no_fill_reason, outcome.is_partial) == ("holdout", False)


class TestStoppingEarly:
    """The same answer as looking at everything, always."""

    @pytest.fixture(scope="class")
    @classmethod
    def worlds(cls) -> list[World]:
        made = []
        for seed in range(5):
            shop = large_source(4_000, product_count=600, advertiser_count=40, seed=seed)
            first = shop.placements[0]
            squashing_ppm = 700_000 if seed == 2 else 1_000_000
            floors = Floors(click=200_000)
            side = placement("side", 3, sponsored_max=2, floor_micros=floors, squashing_ppm=squashing_ppm)
            rules = [
                rule("rul_1", Effect(boost=3.0), Target(field="brand", equals="brand7")),
                rule("rul_2", Effect(boost=0.3), Target(field="price_micros", at_least=60_000_000.0)),
                rule("rul_3", Effect(brand_max=1), Target(field="price_micros", at_most=9_000_000.0)),
                rule("rul_4", Effect(pin=Pin(product_id="p000011", slot_position=2)), scope=Scope(pages=["home"])),
            ]
            if seed > 2:
                rules = [
                    rule("rul_1", Effect(value=Value(amount_micros=9_000)), Target(field="brand", one_of=LIKED)),
                    rule("rul_2", Effect(value=Value(margin_share=0.0001)), scope=Scope(placements=["top"])),
                    rule("rul_3", Effect(require=True), CHEAP, scope=Scope(placements=["side"])),
                    rule("rul_4", Effect(max_share=0.34), Target(not_=CHEAP)),
                    rule("rul_5", Effect(spacing=Spacing(slots=3))),
                    rule("rul_6", Effect(spacing=Spacing(slots=2, of="target")), CHEAP, scope=Scope(pages=["home"])),
                    rule("rul_7", Effect(own_brand_min=1), scope=Scope(pages=["search"])),
                    rule("rul_8", Effect(sponsored_max=3), scope=Scope(pages=["category"])),
                    rule("rul_9", Effect(boost=1.5), Target(field="brand", equals="brand8")),
                ]
                products = [
                    msgspec.structs.replace(one, margin_rate=number % 7 / 20, is_own_brand=number % 9 == 0)
                    for number, one in enumerate(shop.products)
                ]
                shop = msgspec.structs.replace(shop, products=products)
            kept = rules[:-1] if seed == 3 else rules[seed % 2 :]
            shop = msgspec.structs.replace(shop, placements=[first, side], rules=kept)
            world = World(shop)
            world.model.base_quality_ppm = some_quality(world.snapshot.product_id, seed)
            world.market = Market(world.snapshot, world.model)
            made.append(world)
        return made

    def test_the_same_fills_and_prices_as_a_full_scan(self, worlds: list[World]) -> None:
        chance = random.Random(4)
        stopped_early = early_with_values = 0
        for number in range(700):
            world = chance.choice(worlds)
            asked = self.some_request(world, chance)
            visitor = self.some_visitor(world, chance)
            pool = Settings(candidates_per_slot=chance.choice([1, 3, 6]))
            early = world.hold(asked, visitor, number, pool)
            looked_at = early.candidate_count + early.lost_count
            everything = world.hold(asked, visitor, number, SCAN_ALL)
            is_early = looked_at < everything.candidate_count + everything.lost_count
            stopped_early += is_early
            early_with_values += is_early and early.laid[0].plan.value_micros_max > 0
            assert not early.is_partial
            for one, other in zip(early.places, everything.places, strict=True):
                stripped = [[msgspec.structs.replace(it, candidate_row=0) for it in o.decisions] for o in (one, other)]
                assert stripped[0] == stripped[1]
            for name in ("critical_micros", "vcg_micros", "threshold_micros", "pick_order"):
                assert np.array_equal(getattr(early.arrays, name), getattr(everything.arrays, name)), name
            empty = early.arrays.winner_row == NO_CANDIDATE
            assert np.array_equal(empty, everything.arrays.winner_row == NO_CANDIDATE)
        assert stopped_early > 150, "the test must reach what it is about"
        assert early_with_values > 30

    def some_request(self, world: World, chance: random.Random) -> Any:
        snapshot = world.snapshot
        page = chance.choice(
            [
                Page(type="home"),
                Page(type="home"),
                Page(type="category", category_id=chance.choice(snapshot.names.category[:3])),
                Page(type="category", category_id=chance.choice(snapshot.names.category)),
                Page(type="search", query=chance.choice(snapshot.names.words)),
                Page(type="search", query=" ".join(chance.sample(snapshot.names.words, 2))),
                Page(type="product", product_id=chance.choice(snapshot.product_id)),
            ]
        )
        placements = [RequestPlacement(placement_id="top", slot_count=chance.randint(1, 8))]
        if chance.random() < 0.5:
            placements.append(RequestPlacement(placement_id="side"))
        if chance.random() < 0.1:
            candidates = chance.sample(snapshot.product_id, 50)
            placements[0] = RequestPlacement(placement_id="top", candidates=list(candidates))
        return request(page, placements=placements, mode=chance.choice(["sponsored", "sponsored", "merchandised"]))

    def some_visitor(self, world: World, chance: random.Random) -> Any:
        if chance.random() < 0.2:
            return None
        rows = np.array(sorted(chance.sample(range(len(world.snapshot.product_id)), 40)), np.int32)
        return world.visitor(
            audience_bits=np.array([chance.getrandbits(64)], np.uint64),
            pattern_bits=np.array([chance.getrandbits(64)], np.uint64),
            product_row=rows,
            quality_ppm=np.array([chance.choice([100, 20_000, 400_000]) for _ in rows], np.int64),
        )


def test_the_order_of_the_source_changes_nothing() -> None:
    shop = large_source(500, product_count=100, advertiser_count=10)
    mixed = random.Random(5)

    def shuffled(things: list[Any]) -> list[Any]:
        return mixed.sample(things, len(things))

    other = msgspec.structs.replace(
        shop, products=shuffled(shop.products), bids=shuffled(shop.bids), campaigns=shuffled(shop.campaigns)
    )
    first, second = World(shop), World(other)
    for query in ("word1", "word2", None):
        page = Page(type="search", query=query) if query else Page(type="home")
        one, two = first.hold(request(page)), second.hold(request(page))
        assert one.places == two.places
