"""Where organic products come from: each source in order, through the gate, and nothing from elsewhere."""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affinity.navigation import Action, Consent, NavigationBatch, NavigationEvent
from affinity.product_target import Target
from affinity.signals import NO_SIGNALS, Signals
from affinity.view import Recalled, VisitorView
from auction.placement import Allocation, OrganicSource
from auction.receipt import read_receipts, replay_receipt
from auction.request import Page, RequestCandidate, RequestPlacement
from auction.retailer_rule import Effect, Pin, Value
from auction.settings import Settings
from tests.auction.servers import Served
from tests.auction.worlds import (
    NOW,
    SETTINGS,
    World,
    bid,
    booking,
    placement,
    product,
    request,
    rule,
    source,
)

HOME = Page(type="home")
SHOP: dict[str, Any] = {"mode": "merchandised", "page": HOME}
SOURCES: list[OrganicSource] = ["recently_viewed", "cart", "complements", "best_sellers", "caller"]


def signals(*best_sellers: str, together: list[tuple[str, str, float]] | None = None) -> Signals:
    return Signals(
        computed_at_ms=0, from_ms=0, until_ms=0, best_sellers=list(best_sellers), category_trends={},
        bought_together=together or [],
    )  # fmt: skip


def shelf(organic_source: OrganicSource, slot_count: int = 3, **changes: Any) -> World:
    """A shop of p1 to p6 with one placement of the source."""
    places = [placement("top", slot_count, organic_source=organic_source)]
    return World(source(placements=places, **changes))


def who(world: World, viewed: str = "", cart: str = "", **changes: Any) -> VisitorView:
    """A visitor who viewed these products, the last first, and has these in the cart."""
    rows = [np.array([world.snapshot.product_row[name] for name in one.split()], np.int32) for one in (viewed, cart)]
    return world.visitor(recalled=Recalled(*rows), **changes)


def names(world: World, visitor: VisitorView | None = None, **asked: Any) -> list[str]:
    return [name for name, _ in world.winners(world.hold(request(**SHOP | asked), visitor))]


def why_not(world: World, visitor: VisitorView | None = None, **asked: Any) -> str | None:
    """The reason the page has no fill."""
    place = world.hold(request(**SHOP | asked), visitor).places[0]
    assert not place.decisions
    return place.no_fill_reason


class TestSources:
    def test_what_was_viewed_last_comes_first_and_the_rest_stays_empty(self) -> None:
        world = shelf("recently_viewed")
        assert names(world, who(world, viewed="p4 p2", cart="p1")) == ["p4", "p2"]
        assert names(world, who(world, viewed="p6 p5 p4 p3")) == ["p6", "p5", "p4"]

    def test_the_cart_is_shown_in_the_order_it_was_filled(self) -> None:
        world = shelf("cart")
        assert names(world, who(world, viewed="p1", cart="p5 p3")) == ["p5", "p3"]

    def test_complements_are_the_cart_s_and_of_an_empty_one_the_page_s_product_s(self) -> None:
        together = [("p1", "p2", 9.0), ("p1", "p3", 5.0), ("p4", "p3", 6.0), ("p5", "p6", 2.0)]
        world = shelf("complements", signals=signals(together=together))
        product_page = Page(type="product", product_id="p5")
        assert names(world, who(world, cart="p1")) == ["p2", "p3"]
        assert names(world, who(world, cart="p1 p4")) == ["p3", "p2"], "p3 goes with both"
        assert names(world, who(world, cart="p2 p1")) == ["p3"], "nothing that is in the cart already"
        assert names(world, who(world), page=product_page) == ["p6"]
        assert names(world, who(world, cart="p4"), page=product_page) == ["p3"]
        assert names(world, None, page=product_page) == ["p6"], "what the page is about is no secret of the visitor"
        assert why_not(world, who(world)) == "organic_source_empty"

    def test_best_sellers_are_those_of_the_page_the_same_for_everybody(self) -> None:
        products = [
            product("p1", "Shoes > Running"), product("p2", "Shoes"), product("p3", "Hats", title="Sun hat"),
            product("p4", "Hats", title="Straw hat"), product("p5", "Shoes"),
        ]  # fmt: skip
        world = shelf("best_sellers", 5, products=products, signals=signals("p3", "p2", "gone", "p1"))
        mine = who(world, viewed="p5", product_row=np.array([4], np.int32), quality_ppm=np.array([900_000]))
        for visitor in (None, mine):
            assert names(world, visitor) == ["p3", "p2", "p1"]
            assert names(world, visitor, page=Page(type="category", category_id="Shoes")) == ["p2", "p1"]
            assert names(world, visitor, page=Page(type="category", category_id="Shoes > Running")) == ["p1"]
            assert names(world, visitor, page=Page(type="search", query="hat")) == ["p3"]
            assert names(world, visitor, page=Page(type="product", product_id="p2")) == ["p1"]
            for nowhere in (Page(type="category", category_id="Boats"), Page(type="search", query="boat")):
                assert why_not(world, visitor, page=nowhere) == "organic_source_empty"

    def test_of_a_caller_who_names_nothing_there_is_nothing(self) -> None:
        world = shelf("caller")
        assert why_not(world, who(world, viewed="p1", cart="p2")) == "organic_source_empty"

    @pytest.mark.parametrize("organic_source", [*SOURCES, "affinity"])
    def test_candidates_of_the_request_are_the_only_ones_whatever_the_source(self, organic_source: Any) -> None:
        world = shelf(organic_source, signals=signals("p1", together=[("p1", "p2", 1.0)]))
        told = [RequestCandidate(product_id="p6", organic_rank=1), RequestCandidate(product_id="p5", organic_rank=2)]
        asked = [RequestPlacement(placement_id="top", candidates=list(told))]
        assert names(world, who(world, viewed="p1", cart="p1"), placements=asked) == ["p6", "p5"]

    @pytest.mark.parametrize("organic_source", SOURCES)
    def test_a_page_that_only_sells_has_no_organic_products_of_any_source(self, organic_source: OrganicSource) -> None:
        world = shelf(organic_source, signals=signals("p1"), bids=[bid("bid_1", ["p3"])])
        assert names(world, who(world, viewed="p1", cart="p1"), mode="sponsored") == ["p3"]
        place = shelf(organic_source).hold(request(page=HOME)).places[0]
        assert place.no_fill_reason == "no_bids"

    def test_two_sources_on_one_page_keep_apart_and_show_no_product_twice(self) -> None:
        places = [
            placement("a", 2, organic_source="recently_viewed"),
            placement("b", 3, organic_source="cart"),
            placement("c", 1),
        ]
        world = World(source(placements=places))
        asked = [RequestPlacement(placement_id=name) for name in ("a", "b", "c")]
        outcome = world.hold(request(**SHOP, placements=asked), who(world, viewed="p1 p2 p3", cart="p4 p2"))
        shown = [[name for name, _ in world.winners(outcome, place)] for place in range(3)]
        assert shown[0][0] == "p1"
        assert set(shown[0]) <= {"p1", "p2", "p3"}
        assert set(shown[1]) <= {"p4", "p2"}
        assert len(shown[2]) == 1
        everything = [name for one in shown for name in one]
        assert len(set(everything)) == len(everything)

    def test_signals_are_bound_and_visitors_recalled_only_where_a_placement_asks(self) -> None:
        known = signals("p1", together=[("p1", "p2", 1.0)])
        asks = {name: shelf(name, signals=known).market for name in [*SOURCES, "affinity"]}
        assert [name for name, market in asks.items() if market.recalls] == ["recently_viewed", "cart", "complements"]
        bound = [name for name, market in asks.items() if len(market.signals.best_seller_row)]
        assert bound == ["complements", "best_sellers"]


class TestGate:
    """What may not stand on a page does not stand on it as one of a source either."""

    def test_out_of_stock_dismissed_excluded_filtered_or_left_out_by_rule(self) -> None:
        products = [product(f"p{number}", price_micros=number * 1_000_000, stock=number - 1) for number in range(1, 7)]
        excluded = rule("rul_1", Effect(exclude=True), Target(field="product_id", equals="p3"))
        world = shelf("recently_viewed", 6, products=products, rules=[excluded])
        visitor = who(world, viewed="p1 p2 p3 p4 p5 p6", dismissed_row=np.array([1], np.int32))
        assert names(world, visitor) == ["p4", "p5", "p6"], "p1 is out of stock, p2 dismissed, p3 ruled out"
        assert names(world, visitor, exclude_product_ids=["p5"]) == ["p4", "p6"]
        assert names(world, visitor, page=Page(type="home", filters={"price_max_micros": 5_000_000})) == ["p4", "p5"]
        assert names(world, visitor, page=Page(type="product", product_id="p6")) == ["p4", "p5"]
        assert names(world, visitor, rules="off") == ["p3", "p4", "p5", "p6"]
        assert why_not(world, who(world, viewed="p1 p3")) == "organic_source_empty"

    def test_caps_hold(self) -> None:
        products = [product(f"p{number}", brand="Acme" if number < 4 else f"b{number}") for number in range(1, 7)]
        places = [placement("top", 4, organic_source="cart", brand_max=2)]
        world = World(source(products=products, placements=places))
        assert names(world, who(world, cart="p1 p2 p3 p4")) == ["p1", "p2", "p4"]

    def test_pins_and_bookings_stand_whatever_the_source_has(self) -> None:
        pin = rule("rul_1", Effect(pin=Pin(product_id="p5", slot_position=2)))
        world = shelf("recently_viewed", rules=[pin], bookings=[booking("bkg_1", "p6")])
        assert names(world, who(world, viewed="p1")) == ["p6", "p5", "p1"]
        assert names(world) == ["p6", "p5"]


class TestWorth:
    """A product of a source is worth the merchant's rank value at its place there, with and without a bid."""

    def test_a_rule_moves_products_of_a_source_as_those_of_a_caller_s_list(self) -> None:
        last = Target(field="product_id", equals="p3")
        for effect in (Effect(boost=1.2), Effect(value=Value(amount_micros=2_000))):
            world = shelf("cart", rules=[rule("rul_1", effect, last)])
            assert names(world, who(world, cart="p1 p2 p3")) == ["p3", "p1", "p2"]
        world = shelf("cart", rules=[rule("rul_1", Effect(boost=0.5), Target(field="product_id", equals="p1"))])
        assert names(world, who(world, cart="p1 p2 p3")) == ["p2", "p3", "p1"]

    def test_a_bid_on_a_product_of_the_source_sells_it(self) -> None:
        world = shelf("cart", 1, bids=[bid("bid_1", ["p1"], 100_000)])
        outcome = world.hold(request(**SHOP), who(world, cart="p1"))
        [decision] = outcome.places[0].decisions
        assert decision.offer_row >= 0, "the bid comes on top of what the product is worth to the merchant"
        assert 0 < decision.price_micros <= 100_000

    def test_a_bid_from_elsewhere_pays_for_the_product_it_pushes_out(self) -> None:
        rank_value = SETTINGS.organic_rank_value_micros
        quality_ppm, click_value = 10_000, SETTINGS.organic_click_value_micros
        needed = (rank_value - click_value * quality_ppm // 1_000_000) * 1_000_000 // quality_ppm
        for amount, expected in ((needed - 1, "p1"), (needed + 1, "p2")):
            world = shelf("cart", 1, bids=[bid("bid_1", ["p2"], amount)])
            outcome = world.hold(request(**SHOP), who(world, cart="p1"))
            [(shown, price)] = world.winners(outcome)
            assert shown == expected
            assert price in ((0,) if shown == "p1" else (needed, needed + 1))

    def test_the_rank_counts_in_the_placement_of_the_source_alone(self) -> None:
        places = [
            placement("a", 1, organic_source="cart"),
            placement("b", 1),
            placement("c", 1, organic_source="caller"),
        ]
        world = World(source(placements=places, bids=[bid("bid_1", ["p1", "p2"], 100_000)]))
        for asked in ("abc", "cba"):
            at = [RequestPlacement(placement_id=name) for name in asked]
            outcome = world.hold(request(**SHOP, placements=at), who(world, cart="p2 p1"))
            found, count = world.market.scratch.found, outcome.candidate_count
            worth = {
                (asked[found.entry["place"][row]], int(found.candidate.product_code[row])): value
                for row, value in enumerate(found.candidate.value_micros[:count].tolist())
                if found.entry["offer_row"][row] >= 0
            }
            usual = SETTINGS.organic_click_value_micros // 100  # of one per cent clicks
            ranked = {("a", 1): 20_000, ("a", 0): 20_000 * 20 // 21}
            assert worth == ranked | {(name, row): usual for name in "bc" for row in (0, 1)}

    def test_the_best_rule_may_lift_one_from_far_down_a_long_list(self) -> None:
        products = [product(f"p{number:03d}") for number in range(200)]
        boost = rule("rul_1", Effect(boost=4.0), Target(field="product_id", equals="p060"))
        world = shelf("best_sellers", products=products, signals=signals(*[one.product_id for one in products]))
        assert names(world) == ["p000", "p001", "p002"]
        assert (
            len(world.market.scratch.found.candidate.product_code[: world.hold(request(**SHOP)).candidate_count]) < 200
        )
        world = shelf(
            "best_sellers", products=products, signals=signals(*[one.product_id for one in products]), rules=[boost]
        )
        assert names(world)[0] == "p060", "20,000 · 20 / 79 · 4 is more than 20,000"


numbers = st.integers(1, 6)


@settings(max_examples=60, deadline=None)
@given(
    listed=st.lists(numbers, unique=True, min_size=1),
    bids=st.lists(st.tuples(numbers, st.integers(1, 3_000_000), st.sampled_from("abc")), max_size=5),
    boosts=st.lists(
        st.tuples(numbers, st.sampled_from([0.5, 0.97, 1.1, 2.0])), max_size=2, unique_by=lambda one: one[0]
    ),
    own=st.sets(numbers),
    allocation=st.sampled_from(["greedy", "exact"]),
    tie_seed=st.integers(0, 2**64 - 1),
)
def test_a_source_is_decided_and_priced_as_the_same_list_from_a_caller(
    listed: list[int],
    bids: list[tuple[int, int, str]],
    boosts: list[tuple[int, float]],
    own: set[int],
    allocation: Allocation,
    tie_seed: int,
) -> None:
    made = source(
        placements=[placement("top", 3, organic_source="recently_viewed", allocation=allocation)],
        bids=[
            bid(f"bid_{row}", [f"p{number}"], amount, f"cmp_{letter}")
            for row, (number, amount, letter) in enumerate(bids)
            if number in listed  # a caller's list is also all that can be bought
        ],
        rules=[
            rule(f"rul_{number}", Effect(boost=boost), Target(field="product_id", equals=f"p{number}"))
            for number, boost in boosts
        ],
    )
    world = World(made)
    viewed = " ".join(f"p{number}" for number in listed)
    rows = np.array(sorted(number - 1 for number in own), np.int32)
    visitor = who(world, viewed=viewed, product_row=rows, quality_ppm=np.full(len(rows), 40_000, np.int64))
    told = [RequestCandidate(product_id=f"p{number}", organic_rank=rank) for rank, number in enumerate(listed, 1)]
    from_source = world.hold(request(**SHOP), visitor, tie_seed)
    assert not world.market.scratch.mark["source_rank"].any(), "nothing of it is left behind"
    from_caller = world.hold(
        request(**SHOP, placements=[RequestPlacement(placement_id="top", candidates=list(told))]), visitor, tie_seed
    )
    described = [
        [(one.slot_position, one.product_row, one.offer_row, one.price_micros, one.quality_ppm) for one in decisions]
        for decisions in (from_source.places[0].decisions, from_caller.places[0].decisions)
    ]
    assert described[0] == described[1]


# --- from events to fills ------------------------------------------------------------------------------------------

ACTIONS = [Action.VIEW_ITEM, Action.ADD_TO_CART, Action.REMOVE_FROM_CART, Action.PURCHASE, Action.DISMISS]
CONSENT = Consent(personalised=True)
PAIRS = [("p1", "p2", 9.0), ("p3", "p1", 8.0), ("p2", "p5", 7.0), ("p6", "p4", 6.0), ("p1", "p6", 5.0)]
STOCK = {"p5": 0}


def expected(organic_source: str, done: list[tuple[Action, int]], page: Page) -> list[str]:
    """What of a source may stand on a page, best first, read off what the visitor did."""
    viewed: dict[str, int] = {}
    bought: dict[str, int] = {}
    cart: dict[str, int] = {}
    dismissed = set()
    for at, (action, number) in enumerate(done):
        name = f"p{number}"
        if action is Action.VIEW_ITEM:
            viewed[name] = at
        elif action is Action.PURCHASE:
            bought[name] = at
            cart = {}
        elif action is Action.ADD_TO_CART:
            cart[name] = cart.pop(name, 0) + 1
        elif action is Action.REMOVE_FROM_CART:
            cart[name] = cart.get(name, 0) - 1
            cart = {one: count for one, count in cart.items() if count > 0}
        else:
            dismissed.add(name)
    if organic_source == "recently_viewed":
        found = sorted((one for one, at in viewed.items() if at > bought.get(one, -1)), key=lambda one: -viewed[one])
    elif organic_source == "cart":
        found = list(reversed(cart))
    elif organic_source == "best_sellers":
        found = ["p6", "p2", "p5", "p1"]
    elif organic_source == "complements":
        given = set(cart) or {page.product_id}
        worth: dict[str, float] = {}
        for one, other, beyond in PAIRS:
            for this, that in ((one, other), (other, one)):
                if this in given and that not in given:
                    worth[that] = worth.get(that, 0.0) + beyond
        found = sorted(worth, key=lambda one: (-worth[one], one))
    else:
        found = []
    return [one for one in found if one not in dismissed and STOCK.get(one, 1) and one != page.product_id]


@settings(max_examples=60, deadline=None)
@given(
    organic_source=st.sampled_from(SOURCES),
    done=st.lists(st.tuples(st.sampled_from(ACTIONS), numbers), max_size=14),
    page=st.sampled_from([HOME, Page(type="product", product_id="p1"), Page(type="product", product_id="p6")]),
    bids=st.lists(st.tuples(numbers, st.integers(1_000, 6_000_000)), max_size=3),
    consents=st.booleans(),
)
def test_no_organic_slot_ever_holds_a_product_from_outside_the_source(
    organic_source: OrganicSource,
    done: list[tuple[Action, int]],
    page: Page,
    bids: list[tuple[int, int]],
    consents: bool,
) -> None:
    made = source(
        products=[product(f"p{number}", stock=STOCK.get(f"p{number}", 10)) for number in range(1, 7)],
        placements=[placement("top", 3, organic_source=organic_source)],
        signals=signals("p6", "p2", "p5", "p1", together=PAIRS),
        bids=[bid(f"bid_{row}", [f"p{number}"], amount) for row, (number, amount) in enumerate(bids)],
    )
    with TemporaryDirectory() as folder:
        served = Served(made, Path(folder))
        events = [
            NavigationEvent(
                visitor_id="v", action=action, product_id=f"p{number}", occurred_at=NOW - timedelta(seconds=60 - second)
            )
            for second, (action, number) in enumerate(done)
        ]
        served.visitors.post(NavigationBatch(events), served.clock.now_ms)
        consent = Consent(personalised=consents)
        answer = served.fill(request(page, mode="merchandised", visitor_id="v", consent=consent))
        fills, may_stand = answer.placements[0].fills, expected(organic_source, done if consents else [], page)
        organic = [fill.product_id for fill in fills if not fill.is_sponsored]
        assert set(organic) <= set(may_stand)
        if not bids:
            assert organic == may_stand[:3]
        assert (answer.placements[0].no_fill_reason == "organic_source_empty") == (not fills and not may_stand)
        assert served.server.receipts is not None
        served.server.receipts.write()
        [receipt] = read_receipts(Path(folder))
        assert receipt.note.places[0].organic_source == organic_source
        again = replay_receipt(receipt)
        for before, after in zip(receipt.outcome, again, strict=True):
            assert np.array_equal(before, after)


def test_equal_requests_get_equal_pages_whatever_was_asked_before() -> None:
    places = [placement("a", 3, organic_source="cart"), placement("b", 3)]
    world = World(source(placements=places, bids=[bid("bid_1", ["p1"], 900_000), bid("bid_2", ["p4"], 500_000)]))
    asked = [
        request(**SHOP, placements=[RequestPlacement(placement_id=name) for name in one]) for one in ("a", "ab", "b")
    ]
    visitor = who(world, cart="p2 p1 p3")

    def blocks() -> list[bytes]:
        return [world.hold(one, visitor).block.tobytes() for one in asked]

    first = blocks()
    assert [world.hold(one, visitor).block.tobytes() for one in reversed(asked)] == first[::-1]
    assert first == blocks()


def test_an_ad_free_visitor_is_told_that_the_source_is_empty_too() -> None:
    world = shelf("cart")
    outcome = world.hold(request(**SHOP), who(world), no_paid_reason="holdout")
    assert outcome.places[0].no_fill_reason == "organic_source_empty"
    outcome = world.hold(request(**SHOP), who(world, cart="p1"), no_paid_reason="holdout")
    assert [one.product_row for one in outcome.places[0].decisions] == [0]


def test_signals_computed_anew_are_in_the_next_snapshot() -> None:
    made = source(placements=[placement("top", 2, organic_source="best_sellers")], signals=NO_SIGNALS)
    served = Served(made)
    asked = request(HOME, mode="merchandised")
    assert served.fill(asked).placements[0].no_fill_reason == "organic_source_empty"
    served = Served(source(placements=made.placements, signals=signals("p3")), settings=Settings())
    assert [fill.product_id for fill in served.fill(asked).placements[0].fills] == ["p3"]


def test_signals_are_bound_once_for_as_long_as_they_and_the_products_stay() -> None:
    made = source(placements=[placement("top", 2, organic_source="best_sellers")], signals=signals("p3"))
    first, later = World(made).market, World(made).market
    later.go_on_from(first)
    assert later.signals is first.signals
    for changes in ({"signals": signals("p4")}, {"products": made.products[1:]}):
        other = World(source(placements=made.placements, **{"signals": signals("p3")} | changes)).market
        other.go_on_from(first)
        assert other.signals is not first.signals
        [row] = other.signals.best_seller_row
        assert other.snapshot.product_id[row] == (changes.get("signals") or made.signals).best_sellers[0]
    plain = World(source(signals=signals("p3"))).market
    plain.go_on_from(first)
    assert not len(plain.signals.best_seller_row)
    again = World(made).market
    again.go_on_from(plain)
    assert len(again.signals.best_seller_row) == 1
