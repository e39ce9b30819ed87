"""What each effect of a retailer rule does to a page, in the smallest world in which it can fail."""

from typing import Any, ClassVar

import pytest

from affinity.product_target import Target
from auction.placement import Floors
from auction.request import Page, RequestCandidate, RequestPlacement
from auction.retailer_rule import Effect, Novelty, Pin, Spacing, StockValue, Value
from auction.rules import ALL_BUT, APART, MOST, SHARE, PlanCap, compile_rules
from auction.settings import Settings
from tests.auction.worlds import World, bid, placement, product, request, rule, source

SHOP: dict[str, Any] = {"mode": "merchandised"}


def ranked(*product_ids: str) -> list[RequestPlacement]:
    """A page that would show these products in this order."""
    told = [RequestCandidate(product_id=name, organic_rank=rank) for rank, name in enumerate(product_ids, 1)]
    return [RequestPlacement(placement_id="top", candidates=list(told))]


def names(world: World, **asked: Any) -> list[str]:
    return [name for name, _ in world.winners(world.hold(request(**SHOP | asked)))]


def shelf(slot_count: int, *effects: Effect, target: Target | None = None, **changes: Any) -> World:
    rules = [rule(f"rul_{number}", effect, target) for number, effect in enumerate(effects)]
    return World(source(rules=rules, placements=[placement(slot_count=slot_count)], **changes))


def brand(name: str) -> Target:
    return Target(field="brand", equals=name)


BRANDS = [product(f"p{number}", brand="Acme" if number <= 3 else f"b{number}") for number in range(1, 7)]
IN_ORDER = ranked(*[f"p{number}" for number in range(1, 7)])


class TestRequire:
    def test_nothing_but_the_target_stands_there_paid_organic_or_pinned(self) -> None:
        only = rule("rul_1", Effect(require=True), brand("Acme"))
        pin = rule("rul_2", Effect(pin=Pin(product_id="p5", slot_position=1)))
        bids = [bid("bid_1", ["p2"]), bid("bid_2", ["p6"], 9_000_000, "cmp_b")]
        world = World(source(products=BRANDS, rules=[only, pin], bids=bids, placements=[placement(slot_count=6)]))
        assert sorted(names(world)) == ["p1", "p2", "p3"]
        assert names(world, mode="sponsored") == ["p2"]
        assert len(names(world, rules="off")) == 6

    def test_what_two_rules_require_is_what_both_allow(self) -> None:
        world = World(
            source(
                products=BRANDS,
                rules=[
                    rule("rul_1", Effect(require=True), brand("Acme")),
                    rule("rul_2", Effect(require=True), Target(field="product_id", one_of=["p3", "p4"])),
                ],
            )
        )
        assert names(world) == ["p3"]

    def test_a_target_that_must_and_may_not_stand_leaves_the_page_empty_and_says_so(self) -> None:
        both = [rule("rul_1", Effect(require=True), brand("Acme")), rule("rul_2", Effect(exclude=True), brand("Acme"))]
        world = World(source(products=BRANDS, rules=both, bids=[bid("bid_1", ["p1"]), bid("bid_2", ["p5"])]))
        outcome = world.hold(request())
        assert (outcome.places[0].decisions, outcome.places[0].no_fill_reason) == ([], "excluded_by_rule")


class TestValue:
    @pytest.mark.parametrize(
        ("value", "micros"),
        [
            (Value(amount_micros=700), 700),
            (Value(margin_share=0.002), 40_000),  # of 50.00 at 40 %
            (Value(novelty=Novelty(amount_micros=1_000, within_days=40)), 750),  # ten days old
            (Value(promotion_micros=30), 30),
            (Value(own_brand_micros=7), 7),
            (Value(stock=StockValue(amount_micros=11, at_least=5)), 11),
            (Value(stock=StockValue(amount_micros=11, at_least=6)), 0),
            (Value(amount_micros=1, promotion_micros=2, own_brand_micros=4), 7),
            (Value(amount_micros=10**9, promotion_micros=10**9), 10**9),
        ],
    )
    def test_each_part_is_worth_what_it_says(self, value: Value, micros: int) -> None:
        it = product(
            "p1", margin_rate=0.4, price_micros=80_000_000, sale_price_micros=50_000_000, is_own_brand=True, stock=5,
            launched_at="2026-09-11",
        )  # fmt: skip
        made = compile_rules([rule("rul_1", Effect(value=value))], [it, product("p2")], NOON_MS)
        assert made.value_micros[0, 0] == micros

    def test_what_the_catalogue_does_not_say_is_worth_nothing(self) -> None:
        every = Value(
            margin_share=1.0, novelty=Novelty(amount_micros=1, within_days=9), promotion_micros=1, own_brand_micros=1,
            stock=StockValue(amount_micros=1, at_least=1),
        )  # fmt: skip
        assert compile_rules([rule("rul_1", Effect(value=every))], [product("p1")], NOON_MS).value_micros[0, 0] == 0

    def test_values_add_up_and_stay_in_their_bound(self) -> None:
        for amounts, total in (([3, 4], 7), ([10**9, 10**9], 10**9)):
            rules = [
                rule(f"rul_{at}", Effect(value=Value(amount_micros=amount)), Target(field="product_id", equals="p1"))
                for at, amount in enumerate(amounts)
            ]
            world = World(source(rules=rules))
            outcome = world.hold(request(placements=ranked("p1"), **SHOP))
            value = int(world.market.scratch.found.candidate.value_micros[0])
            assert value == min(total + 20_000, 10**9)
            assert outcome.laid[0].plan.value_micros_max == total

    def test_a_value_moves_an_organic_product_up(self) -> None:
        world = shelf(2, Effect(value=Value(amount_micros=50_000)), target=Target(field="product_id", equals="p6"))
        assert names(world, placements=IN_ORDER)[0] == "p6"
        assert names(world, placements=IN_ORDER, rules="off")[0] == "p1"

    def test_a_value_counts_for_a_paid_product_on_a_page_that_only_sells(self) -> None:
        # p1 is worth 10,000 an impression by its bid; p2 5,000, and 6,000 to the merchant: p2 pays what is missing.
        quality = {"p1": 10_000, "p2": 10_000}
        bids = [bid("bid_1", ["p1"], 1_000_000), bid("bid_2", ["p2"], 500_000, "cmp_b")]
        liked = rule("rul_1", Effect(value=Value(amount_micros=6_000)), Target(field="product_id", equals="p2"))
        world = World(source(rules=[liked], bids=bids, placements=[placement(slot_count=1)]), quality)
        [(winner, price)] = world.winners(world.hold(request()))
        assert winner == "p2"
        assert price in (400_000, 400_001)  # (10,000 - 6,000) / 1 %, one more where the tie is lost
        assert world.winners(world.hold(request(rules="off")))[0][0] == "p1"

    def test_a_value_counts_towards_the_score_floor(self) -> None:
        bids = [bid("bid_1", ["p1"], 500_000)]
        floor = placement(score_floor_micros=10_000)
        liked = rule("rul_1", Effect(value=Value(amount_micros=6_000)))
        world = World(source(rules=[liked], bids=bids, placements=[floor]), {"p1": 10_000})
        assert world.winners(world.hold(request())) == [("p1", 400_000)]
        assert world.winners(world.hold(request(rules="off"))) == []

    def test_a_boost_leaves_values_alone(self) -> None:
        world = shelf(1, Effect(value=Value(amount_micros=1_000)), Effect(boost=2.0))
        world.hold(request(placements=ranked("p1"), **SHOP))
        assert int(world.market.scratch.found.candidate.value_micros[0]) == 41_000


class TestShares:
    @pytest.mark.parametrize(("share", "slots", "most"), [(0.5, 5, 2), (1 / 3, 3, 1), (0.0, 6, 0), (1.0, 6, 6)])
    def test_a_share_is_rounded_down_to_whole_slots(self, share: float, slots: int, most: int) -> None:
        assert PlanCap(SHARE, 1, 0, round(share * 1_000_000)).over(slots) == [((1 << slots) - 1, most)]

    def test_the_target_gets_its_share_at_most_of_the_slots_asked_for(self) -> None:
        world = shelf(6, Effect(max_share=0.5), target=brand("Acme"), products=BRANDS)
        asked = [RequestPlacement(placement_id="top", slot_count=4, candidates=list(IN_ORDER[0].candidates or ()))]
        assert names(world, placements=asked) == ["p1", "p2", "p4", "p5"]

    def test_a_pin_counts_towards_the_share_and_stays(self) -> None:
        capped = rule("rul_1", Effect(max_share=0.5), brand("Acme"))
        pin = rule("rul_2", Effect(pin=Pin(product_id="p3", slot_position=2)))
        world = World(source(products=BRANDS, rules=[capped, pin]))
        assert names(world, placements=IN_ORDER) == ["p4", "p3"]


class TestSpacing:
    def test_windows_cover_every_stretch_of_slots(self) -> None:
        assert PlanCap(APART, 1, 1, 3).over(5) == [(0b00111, 1), (0b01110, 1), (0b11100, 1)]
        assert PlanCap(APART, 1, 1, 9).over(2) == [(0b11, 1)]

    def test_a_brand_stands_again_only_so_many_slots_later(self) -> None:
        world = shelf(6, Effect(spacing=Spacing(slots=3)), products=BRANDS)
        page = [name if name > "p3" else "Acme" for name in names(world, placements=IN_ORDER)]
        places = [at for at, name in enumerate(page) if name == "Acme"]
        assert places[0] == 0
        assert len(places) == 2
        assert places[1] - places[0] >= 3

    def test_the_target_as_a_whole_can_be_kept_apart(self) -> None:
        target = Target(field="product_id", one_of=["p1", "p2", "p4"])
        world = shelf(4, Effect(spacing=Spacing(slots=2, of="target")), target=target, products=BRANDS)
        assert names(world, placements=IN_ORDER) == ["p1", "p3", "p2", "p5"]

    def test_without_a_rule_neighbours_may_be_of_one_brand(self) -> None:
        world = shelf(3, products=BRANDS)
        assert names(world, placements=IN_ORDER) == ["p1", "p2", "p3"]


class TestOwnBrandMinimum:
    OWN: ClassVar = [product(f"p{number}", is_own_brand=number > 4) for number in range(1, 7)]

    def test_so_many_slots_go_to_own_brand(self) -> None:
        world = shelf(4, Effect(own_brand_min=2), products=self.OWN)
        assert names(world, placements=IN_ORDER) == ["p1", "p2", "p5", "p6"]
        assert names(world, placements=IN_ORDER, rules="off") == ["p1", "p2", "p3", "p4"]

    def test_where_there_are_too_few_the_slots_stay_empty_and_are_counted(self) -> None:
        world = shelf(4, Effect(own_brand_min=3), products=self.OWN)
        outcome = world.hold(request(placements=IN_ORDER, exclude_product_ids=["p6"], **SHOP))
        assert [name for name, _ in world.winners(outcome)] == ["p1", "p5"]
        assert outcome.places[0].reserved_slot_count == 2
        assert world.hold(request(placements=IN_ORDER, rules="off", **SHOP)).places[0].reserved_slot_count == 0

    def test_a_minimum_above_the_slots_leaves_no_slot_to_others(self) -> None:
        world = shelf(2, Effect(own_brand_min=5), products=self.OWN, bids=[bid("bid_1", ["p1"])])
        outcome = world.hold(request())
        assert (outcome.places[0].decisions, outcome.places[0].reserved_slot_count) == ([], 2)
        assert outcome.places[0].no_fill_reason == "reserved_for_own_brand"

    def test_empty_slots_that_are_not_reserved_are_not_counted(self) -> None:
        world = shelf(4, Effect(own_brand_min=1), products=self.OWN)
        outcome = world.hold(request(placements=ranked("p5", "p1"), **SHOP))
        assert len(outcome.places[0].decisions) == 2
        assert outcome.places[0].reserved_slot_count == 0


def test_at_most_so_many_fills_are_paid() -> None:
    bids = [bid(f"bid_{number}", [f"p{number}"], 5_000_000, f"cmp_{name}") for number, name in enumerate("abc", 1)]
    world = shelf(3, Effect(sponsored_max=1), bids=bids)
    for asked, filled in ((request(), 1), (request(**SHOP), 3)):
        decisions = world.hold(asked).places[0].decisions
        assert len(decisions) == filled
        assert sum(one.offer_row >= 0 for one in decisions) == 1


def test_the_feeds_own_stock_cover_can_be_asked_for() -> None:
    products = [product("p1", attributes={"stock_cover_days": 3.5}), product("p2", attributes={"stock_cover_days": 30})]
    scarce = Target(field="stock_cover_days", at_most=7)
    world = World(source(products=products, rules=[rule("rul_1", Effect(exclude=True), scarce)]))
    assert names(world) == ["p2"]


def test_two_placements_have_their_caps_apart() -> None:
    rules = [rule("rul_1", Effect(max_share=0.5), brand("Acme"))]
    world = World(source(products=BRANDS, rules=rules, placements=[placement("top"), placement("side")]))
    asked = [RequestPlacement(placement_id=name, slot_count=2) for name in ("top", "side")]
    outcome = world.hold(request(placements=asked, **SHOP))
    for place in range(2):
        won = [name for name, _ in world.winners(outcome, place)]
        assert len(won) == 2
        assert sum(name in ("p1", "p2", "p3") for name in won) == 1


def test_a_pin_of_a_product_that_is_gone_is_left_out_and_named() -> None:
    gone = rule("rul_1", Effect(pin=Pin(product_id="gone", slot_position=1)))
    plan = World(source(rules=[gone])).hold(request()).laid[0].plan
    assert (plan.pins, [tuple(one) for one in plan.ignored]) == ((), [(0, "product 'gone' is gone")])


def test_caps_beyond_what_a_page_can_hold_are_left_out_and_named() -> None:
    many = [rule(f"rul_{number:02}", Effect(brand_max=1), brand("Acme")) for number in range(62)]
    plan = World(source(products=BRANDS, rules=many)).hold(request()).laid[0].plan
    assert len(plan.caps) == 58
    assert [one.rule_row for one in plan.ignored] == [58, 59, 60, 61]


def test_every_kind_of_cap_counts_slots_as_it_says() -> None:
    assert PlanCap(MOST, 1, 0, 2).over(3) == [(0b111, 2)]
    assert PlanCap(ALL_BUT, 1, 0, 2).over(3) == [(0b111, 1)]
    assert PlanCap(ALL_BUT, 1, 0, 4).over(3) == [(0b111, 0)]


def test_every_bound_at_once_prices_without_overflow() -> None:
    """Value, boost, quality and bid at their largest: the price is still what the formula says."""
    highest = [rule("rul_1", Effect(boost=4.0)), rule("rul_2", Effect(value=Value(amount_micros=10**9)))]
    bids = [bid("bid_1", ["p1"], 10**9), bid("bid_2", ["p2"], 10**9 - 1, "cmp_b")]
    floors = placement(slot_count=1, floor_micros=Floors(click=10**9 - 1))
    world = World(source(rules=highest, bids=bids, placements=[floors]), {"p1": 1_000_000, "p2": 1_000_000})
    outcome = world.hold(request(Page(type="home")), settings=Settings(organic_click_value_micros=10**9))
    [(winner, price)] = world.winners(outcome)
    assert winner == "p1"
    assert price in (10**9 - 1, 10**9)
    assert int(world.market.scratch.found.candidate.weight_ppm[0]) == 4_000_000


NOON_MS = 1_789_992_000_000  # 2026-09-21
