"""Who may take part: each condition, in the smallest world in which it can fail."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from affinity.audience import Audience
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from auction.campaign import BidContext, FrequencyCap, Keyword
from auction.loss import LossReason
from auction.placement import Floors
from auction.request import Page, RequestCandidate, RequestPlacement
from tests.auction.worlds import NOW, NOW_MS, World, bid, campaign, placement, product, request, source

ALL = np.array([2**64 - 1], np.uint64)
NONE = np.array([0], np.uint64)


def only(world: World, **changes: Any) -> list[str]:
    """Winning products of a page."""
    visitor = changes.pop("visitor", None)
    return [name for name, _ in world.winners(world.hold(request(**changes), visitor))]


def reasons(world: World, **changes: Any) -> set[int]:
    """Reasons of the offers that did not take part."""
    visitor = changes.pop("visitor", None)
    outcome = world.hold(request(**changes), visitor)
    return set(world.market.scratch.found.lost["reason"][: outcome.lost_count].tolist())


def category(name: str) -> Page:
    return Page(type="category", category_id=name)


class TestWhere:
    def test_a_category_page_shows_products_of_it_and_below_it(self) -> None:
        products = [product("p1", "Shoes > Running"), product("p2", "Shoes"), product("p3", "Hats")]
        world = World(source(products=products, bids=[bid(f"bid_{name}", [name]) for name in ("p1", "p2", "p3")]))
        assert sorted(only(world, page=category("Shoes"))) == ["p1", "p2"]
        assert only(world, page=category("Shoes > Running")) == ["p1"]
        assert only(world, page=category("Hats")) == ["p3"]

    def test_a_category_whose_name_begins_alike_is_another_one(self) -> None:
        products = [product("p1", "Shoes"), product("p2", "Shoes and more"), product("p3", "Shoes > A")]
        world = World(source(products=products, bids=[bid(f"bid_{name}", [name]) for name in ("p1", "p2", "p3")]))
        assert sorted(only(world, page=category("Shoes"))) == ["p1", "p3"]

    def test_an_unknown_category_shows_nothing(self) -> None:
        world = World(source(bids=[bid("bid_1", ["p1"])]))
        outcome = world.hold(request(category("Boats")))
        assert outcome.places[0].no_fill_reason == "no_bids"

    def test_a_product_page_shows_its_category_but_not_itself(self) -> None:
        products = [product("p1", "Shoes"), product("p2", "Shoes"), product("p3", "Hats")]
        world = World(source(products=products, bids=[bid(f"bid_{name}", [name]) for name in ("p1", "p2", "p3")]))
        assert only(world, page=Page(type="product", product_id="p1")) == ["p2"]

    def test_home_shows_everything(self) -> None:
        products = [product("p1", "Shoes"), product("p2", "Hats"), product("p3", None)]
        bids = [bid(f"bid_{name}", [name]) for name in ("p1", "p2", "p3")]
        world = World(source(products=products, bids=bids, placements=[placement(slot_count=3)]))
        assert sorted(only(world, page=Page(type="home"))) == ["p1", "p2", "p3"]

    def test_a_search_finds_titles_with_all_known_words(self) -> None:
        products = [
            product("p1", title="Trail running shoe"),
            product("p2", title="Running SHOE, été"),
            product("p3", title="Hat"),
        ]
        world = World(source(products=products, bids=[bid(f"bid_{name}", [name]) for name in ("p1", "p2", "p3")]))
        assert sorted(only(world, page=Page(type="search", query="running shoe"))) == ["p1", "p2"]
        assert only(world, page=Page(type="search", query="SHOE ete zzz")) == ["p2"]
        assert only(world, page=Page(type="search", query="zzz")) == []

    @pytest.mark.parametrize(
        ("match", "text", "query", "is_found"),
        [
            ("exact", "trail shoe", "Trail Shoe!", True),
            ("exact", "trail shoe", "red trail shoe", False),
            ("phrase", "trail shoe", "red trail shoe 42", True),
            ("phrase", "trail shoe", "trail red shoe", False),
            ("broad", "shoe trail", "trail red shoe", True),
            ("broad", "shoe trail", "trail red", False),
        ],
    )
    def test_keywords_match_as_they_say(self, match: Any, text: str, query: str, is_found: bool) -> None:
        bids = [bid("bid_1", ["p1"], keywords=[Keyword(text=text, match=match)])]
        world = World(source(bids=bids))
        assert only(world, page=Page(type="search", query=query)) == (["p1"] if is_found else [])

    def test_a_negative_keyword_keeps_the_bid_out(self) -> None:
        negative = [Keyword(text="cheap", match="broad")]
        world = World(source(bids=[bid("bid_1", ["p1"], negative_keywords=negative)]))
        assert only(world, page=Page(type="search", query="title p1")) == ["p1"]
        assert only(world, page=Page(type="search", query="cheap title p1")) == []
        assert only(world, page=Page(type="home")) == ["p1"]

    def test_a_bid_for_categories_stands_only_there_whatever_its_product(self) -> None:
        products = [product("p1", "Hats"), product("p2", "Shoes > Running")]
        world = World(source(products=products, bids=[bid("bid_1", ["p1"], category_ids=["Shoes"])]))
        assert only(world, page=category("Shoes > Running")) == ["p1"]
        assert only(world, page=Page(type="product", product_id="p2")) == ["p1"]
        assert only(world, page=category("Hats")) == []
        assert only(world, page=Page(type="home")) == []

    def test_with_candidates_only_those_are_looked_at(self) -> None:
        world = World(source(bids=[bid("bid_1", ["p1"], 2_000_000), bid("bid_2", ["p2"], 1_000_000, "cmp_b")]))
        asked = [RequestPlacement(placement_id="top", candidates=["p2", "unknown", "p2"])]
        assert only(world, placements=asked) == ["p2"]
        assert only(world, placements=[RequestPlacement(placement_id="top", candidates=[])]) == []

    def test_a_restricted_bid_on_a_candidate_still_has_to_name_the_page(self) -> None:
        bids = [bid("bid_1", ["p1"], keywords=[Keyword(text="trail")])]
        world = World(source(bids=bids))
        asked = [RequestPlacement(placement_id="top", candidates=["p1"])]
        assert reasons(world, placements=asked) == {LossReason.NOT_IN_CONTEXT}
        assert only(world, placements=asked, page=Page(type="search", query="trail")) == ["p1"]

    def test_of_equal_candidates_the_first_counts(self) -> None:
        strict = placement(relevance_floor_ppm=500_000)
        world = World(source(bids=[bid("bid_1", ["p1"])], placements=[strict]))
        low, high = (RequestCandidate(product_id="p1", relevance=share) for share in (0.1, 0.9))
        assert only(world, placements=[RequestPlacement(placement_id="top", candidates=[low, high])]) == []
        assert only(world, placements=[RequestPlacement(placement_id="top", candidates=[high, low])]) == ["p1"]


class TestConditions:
    @pytest.mark.parametrize(
        ("asked", "is_met"),
        [
            ({"device": "mobile", "region": "fr-75"}, True),
            ({"device": "desktop", "region": "fr-75"}, False),
            ({"device": "mobile"}, False),
            ({"device": ["mobile"], "region": "fr-75"}, False),
            ({}, False),
        ],
    )
    def test_every_condition_given_must_hold(self, asked: dict[str, Any], is_met: bool) -> None:
        context = BidContext(devices=["mobile", "tablet"], regions=["fr-75"])
        world = World(source(bids=[bid("bid_1", ["p1"], context=context)]))
        assert only(world, context=asked) == (["p1"] if is_met else [])

    def test_hours_are_the_retailers(self) -> None:
        hour_in_paris = (NOW + timedelta(hours=2)).hour
        good, bad = (BidContext(hours=[hour]) for hour in (hour_in_paris, (hour_in_paris + 1) % 24))
        assert only(World(source(bids=[bid("bid_1", ["p1"], context=good)]))) == ["p1"]
        assert reasons(World(source(bids=[bid("bid_1", ["p1"], context=bad)]))) == {LossReason.CONTEXT_MISSED}

    def test_pages_restrict(self) -> None:
        world = World(source(bids=[bid("bid_1", ["p1"], pages=["search"])]))
        assert reasons(world) == {LossReason.PAGE_NOT_TARGETED}
        assert only(world, page=Page(type="search", query="p1")) == ["p1"]

    def test_an_audience_needs_consent_and_the_bit(self) -> None:
        world = World(source(bids=[bid("bid_1", ["p1"], audience=Audience(segment="vip"))]))
        assert reasons(world) == {LossReason.NO_CONSENT}
        assert reasons(world, visitor=world.visitor(audience_bits=NONE)) == {LossReason.AUDIENCE_MISSED}
        assert only(world, visitor=world.visitor(audience_bits=ALL)) == ["p1"]

    def test_a_pattern_needs_consent_and_the_bit(self) -> None:
        pattern = NavigationPattern(within="session", steps=[PatternStep(action=Action.SEARCH)])
        world = World(source(bids=[bid("bid_1", ["p1"], navigation_pattern=pattern)]))
        assert reasons(world) == {LossReason.NO_CONSENT}
        assert reasons(world, visitor=world.visitor(pattern_bits=NONE)) == {LossReason.PATTERN_MISSED}
        assert only(world, visitor=world.visitor(pattern_bits=ALL)) == ["p1"]

    def test_a_frequency_cap_counts_in_its_window(self) -> None:
        capped = bid("bid_1", ["p1"], frequency_cap=FrequencyCap(count=2, window_s=3600))
        world = World(source(bids=[capped]))

        def seen(*ages_s: int) -> Any:
            return world.visitor(seen_at_ms={"bid_1": sorted(NOW_MS - age_s * 1000 for age_s in ages_s)})

        assert only(world, visitor=seen(10)) == ["p1"]
        assert only(world, visitor=seen(10, 7200)) == ["p1"]
        assert reasons(world, visitor=seen(10, 60)) == {LossReason.FREQUENCY_CAPPED}
        assert only(world, visitor=seen(10)) == ["p1"], "the mark of the auction before must be gone"

    def test_dismissed_and_excluded_products_are_left_out_for_this_page_only(self) -> None:
        world = World(source(bids=[bid("bid_1", ["p1"])]))
        row = world.snapshot.product_row["p1"]
        assert reasons(world, visitor=world.visitor(dismissed_row=np.array([row], np.int32))) == {LossReason.DISMISSED}
        assert reasons(world, exclude_product_ids=["p1", "unknown"]) == {LossReason.EXCLUDED_BY_REQUEST}
        assert only(world) == ["p1"]

    def test_stock_status_and_entitlement(self) -> None:
        products = [
            product("p1", stock=0),
            product("p2", availability="out_of_stock"),
            product("p3", advertiser_ids=["adv_b"]),
            product("p4"),
        ]
        bids = [bid("bid_1", ["p1"]), bid("bid_2", ["p2"]), bid("bid_3", ["p3"]), bid("bid_4", ["p4"], status="paused")]
        world = World(source(products=products, bids=bids))
        assert only(world) == []
        assert reasons(world) == {LossReason.OUT_OF_STOCK, LossReason.NOT_ENTITLED, LossReason.BID_PAUSED}

    def test_flights_and_paused_campaigns(self) -> None:
        for changes, reason in [
            ({"flight_starts_at": NOW + timedelta(seconds=1)}, LossReason.OUT_OF_FLIGHT),
            ({"flight_ends_at": NOW}, LossReason.OUT_OF_FLIGHT),
            ({"status": "paused"}, LossReason.CAMPAIGN_PAUSED),
        ]:
            world = World(source(campaigns=[campaign(**changes)], bids=[bid("bid_1", ["p1"])]))
            assert reasons(world) == {reason}
        inside = campaign(flight_starts_at=NOW, flight_ends_at=NOW + timedelta(seconds=1))
        assert only(World(source(campaigns=[inside], bids=[bid("bid_1", ["p1"])]))) == ["p1"]

    def test_the_relevance_floor_takes_the_requests_word_before_the_catalogues(self) -> None:
        strict = placement(relevance_floor_ppm=500_000)
        world = World(source(products=[product("p1", relevance=0.2)], placements=[strict], bids=[bid("bid_1", ["p1"])]))
        assert reasons(world) == {LossReason.BELOW_RELEVANCE}
        told = [RequestPlacement(placement_id="top", candidates=[RequestCandidate(product_id="p1", relevance=0.5)])]
        assert only(world, placements=told) == ["p1"]
        silent = [RequestPlacement(placement_id="top", candidates=["p1"])]
        assert only(world, placements=silent) == []

    @pytest.mark.parametrize(
        ("filters", "passing"),
        [
            ({"size": ["42"]}, ["p1"]),
            ({"size": [42, "43"]}, ["p1", "p2"]),
            ({"waterproof": [True]}, ["p2"]),
            ({"price_max_micros": 60_000_000}, ["p1"]),
            ({"price_min_micros": 60_000_000}, ["p2"]),
            ({"brand": ["Acme"], "size": ["43"]}, ["p2"]),
            ({"colour": ["red"]}, []),
            ({"price_max_micros": "cheap"}, []),
        ],
    )
    def test_the_visitors_filters_bind(self, filters: dict[str, Any], passing: list[str]) -> None:
        products = [
            product("p1", brand="Acme", attributes={"size": "42", "waterproof": False}),
            product("p2", brand="Acme", price_micros=70_000_000, attributes={"size": 43, "waterproof": True}),
            product("p3", brand="Other"),
        ]
        world = World(source(products=products, bids=[bid("bid_1", ["p1"]), bid("bid_2", ["p2"], campaign_id="cmp_b")]))
        page = Page(type="category", category_id="Shoes > Running", filters=filters)
        assert sorted(only(world, page=page)) == passing


class TestBids:
    def test_floors_per_charge_type_and_multipliers(self) -> None:
        floors = placement(floor_micros=Floors(click=500_000))
        world = World(source(placements=[floors], bids=[bid("bid_1", ["p1"], 499_999)]))
        assert reasons(world) == {LossReason.BELOW_FLOOR}
        raised = bid("bid_1", ["p1"], 250_000, placement_multipliers={"top": 2.0, "elsewhere": 0.0})
        world = World(source(placements=[floors], bids=[raised]))
        assert world.winners(world.hold(request())) == [("p1", 500_000)]

    def test_a_zero_multiplier_keeps_out(self) -> None:
        world = World(source(bids=[bid("bid_1", ["p1"], placement_multipliers={"top": 0.0})]))
        assert reasons(world) == {LossReason.MULTIPLIER_ZERO}

    def test_nothing_is_sold_for_nothing(self) -> None:
        world = World(source(bids=[bid("bid_1", ["p1"])]))
        assert world.winners(world.hold(request())) == [("p1", 1)]

    def test_the_score_floor_counts_quality(self) -> None:
        # 1.00 at 1 % is worth 10,000 micros an impression.
        reached = placement(score_floor_micros=10_000)
        missed = placement(score_floor_micros=10_001)
        quality = {"p1": 10_000}
        assert only(World(source(placements=[reached], bids=[bid("bid_1", ["p1"])]), quality)) == ["p1"]
        world = World(source(placements=[missed], bids=[bid("bid_1", ["p1"])]), quality)
        assert reasons(world) == {LossReason.BELOW_SCORE_FLOOR}


def test_the_compiled_gate_uses_loss_reasons_own_numbers() -> None:
    from auction import kernel

    for name, number in vars(kernel).items():
        if name.startswith("_") and hasattr(LossReason, name[1:]):
            assert number == LossReason[name[1:]], name
