"""What an answer carries and leaves behind: beacons, disclosure, counters, variants; nothing without consent."""

from typing import Any, ClassVar

import pytest

from affinity.audience import Audience
from affinity.navigation import Action, Consent, NavigationEvent
from affinity.pattern import NavigationPattern, PatternStep
from affinity.product_target import Target
from affinity.profile import ProfileDraft
from auction.builder import build_snapshot
from auction.campaign import FrequencyCap
from auction.errors import NotReady
from auction.placement import Floors
from auction.request import Page, RequestPlacement
from auction.retailer_rule import Effect, Pin
from auction.settings import Settings
from ledger.terms import NO_VISITOR, ChargeOn
from tests.auction.servers import Served
from tests.auction.worlds import NOW, bid, campaign, placement, product, request, rule, source

YES = Consent(personalised=True)


def only(response: Any) -> list[str]:
    return [fill.product_id for place in response.placements for fill in place.fills]


class TestAnswers:
    def test_a_paid_fill_carries_everything_a_charge_needs(self) -> None:
        served = Served(source(bids=[bid("bid_1", ["p1"])], placements=[placement(slot_count=1)]))
        response = served.fill(request(visitor_id="v-1", consent=YES))
        (fill,) = response.placements[0].fills
        assert (fill.advertiser_id, fill.campaign_id, fill.bid_id) == ("adv_a", "cmp_a", "bid_1")
        assert (fill.charge_on, fill.clearing_price_micros, fill.currency) == (ChargeOn.CLICK, 1, "EUR")
        assert fill.disclosure is not None
        assert (fill.disclosure.label, fill.disclosure.paid_by) == ("Sponsored", "Brand A")
        assert fill.disclosure.on_behalf_of == "brand-p1"
        terms = served.keys.redeem_beacon(fill.beacon_token, served.clock.now_ms).terms
        assert (terms.auction_id, terms.placement_id, terms.slot_position) == (response.auction_id, "top", 1)
        assert (terms.bid_id, terms.price_micros, terms.charge_on) == ("bid_1", 1, ChargeOn.CLICK)
        assert terms.visitor_pseudonym == served.visitors.pseudonym("v-1")

    def test_an_organic_fill_carries_no_money_and_an_unbilled_token(self) -> None:
        served = Served(source(placements=[placement(slot_count=1)]))
        (fill,) = served.fill(request(mode="merchandised")).placements[0].fills
        assert (fill.is_sponsored, fill.clearing_price_micros, fill.currency, fill.disclosure) == (
            False,
            None,
            None,
            None,
        )
        terms = served.keys.redeem_beacon(fill.beacon_token, served.clock.now_ms).terms
        assert (terms.is_sponsored, terms.price_micros, terms.advertiser_id) == (False, 0, None)

    def test_a_personal_bid_says_so_in_its_disclosure(self) -> None:
        bids = [bid("bid_1", ["p1"], audience=Audience(segment="vip"))]
        served = Served(source(bids=bids))
        served.visitors.put_profile(served.visitors.pseudonym("v-1"), ProfileDraft(segments=["vip"]))
        (fill,) = served.fill(request(visitor_id="v-1", consent=YES)).placements[0].fills
        assert fill.disclosure is not None
        assert "what you did on this site" in fill.disclosure.main_parameters

    def test_without_a_snapshot_it_says_it_is_not_ready(self) -> None:
        served = Served(source())
        served.server.served = None
        with pytest.raises(NotReady):
            served.fill(request())

    def test_the_answer_says_why_there_is_none(self) -> None:
        served = Served(source(bids=[bid("bid_1", ["p1"], 100)], placements=[placement(score_floor_micros=1_000)]))
        place = served.fill(request()).placements[0]
        assert (place.fills, place.no_fill_reason) == ([], "below_score_floor")
        assert served.server.metrics.no_fills == {"below_score_floor": 1}


class TestConsent:
    def test_without_consent_nothing_of_the_visitor_is_used_or_kept(self) -> None:
        bids = [
            bid("bid_1", ["p1"], 2_000_000, audience=Audience(segment="vip")),
            bid("bid_2", ["p2"], frequency_cap=FrequencyCap(count=1, window_s=3600)),
        ]
        served = Served(source(bids=bids))
        served.visitors.put_profile(served.visitors.pseudonym("v-1"), ProfileDraft(segments=["vip"]))
        for _ in range(3):
            response = served.fill(request(visitor_id="v-1", navigation=[viewed("v-1", "p1")]))
            assert only(response) == ["p2"], "neither the audience nor the cap may know the visitor"
        token = response.placements[0].fills[0].beacon_token
        assert served.keys.redeem_beacon(token, served.clock.now_ms).terms.visitor_pseudonym == NO_VISITOR
        assert len(served.visitors) == 0

    def test_a_visitor_without_id_is_fine(self) -> None:
        served = Served(source(bids=[bid("bid_1", ["p1"])]))
        assert only(served.fill(request(consent=YES))) == ["p1"]

    def test_a_frequency_cap_counts_what_was_served(self) -> None:
        bids = [bid("bid_1", ["p1"], frequency_cap=FrequencyCap(count=2, window_s=3600))]
        served = Served(source(bids=bids))
        asked = request(visitor_id="v-1", consent=YES)
        assert [only(served.fill(asked)) for _ in range(3)] == [["p1"], ["p1"], []]
        assert only(served.fill(request(visitor_id="v-2", consent=YES))) == ["p1"]
        served.clock.now_ms += 3_600_000
        assert only(served.fill(asked)) == ["p1"]

    def test_navigation_sent_along_counts_for_this_page_only(self) -> None:
        pattern = NavigationPattern(within="session", steps=[PatternStep(action=Action.VIEW_ITEM, at_least=2)])
        served = Served(source(bids=[bid("bid_1", ["p1"], navigation_pattern=pattern)]))
        twice = [viewed("v-1", "p2"), viewed("v-1", "p3")]
        asked = request(visitor_id="v-1", consent=YES, navigation=twice)
        assert only(served.fill(asked)) == ["p1"]
        assert only(served.fill(request(visitor_id="v-1", consent=YES))) == []
        assert len(served.visitors) == 0


class TestExperiment:
    def test_off_means_null(self) -> None:
        response = Served(source()).fill(request())
        assert (response.experiment_id, response.variant) == (None, None)

    def test_the_holdout_sees_no_paid_fill_and_stays_what_it_is(self) -> None:
        served = Served(source(bids=[bid("bid_1", ["p1"])]), settings=Settings(holdout_ppm=300_000))
        variants: dict[str, str] = {}
        for _ in range(2):
            for number in range(300):
                visitor_id = f"v-{number}"
                response = served.fill(request(visitor_id=visitor_id, consent=YES))
                assert response.experiment_id == "ad-free-holdout"
                assert variants.setdefault(visitor_id, response.variant) == response.variant
                assert (only(response) == []) == (response.variant == "holdout")
        assert 60 <= sum(variant == "holdout" for variant in variants.values()) <= 120

    def test_without_consent_the_request_is_drawn(self) -> None:
        served = Served(source(), settings=Settings(holdout_ppm=500_000))
        drawn = {served.fill(request(visitor_id="v-1")).variant for _ in range(50)}
        assert drawn == {"ads", "holdout"}

    def test_a_holdout_still_sees_organic_products(self) -> None:
        served = Served(source(bids=[bid("bid_1", ["p1"], 9_000_000)]), settings=Settings(holdout_ppm=1_000_000))
        fills = served.fill(request(mode="merchandised")).placements[0].fills
        assert len(fills) == 2
        assert not any(fill.is_sponsored for fill in fills)


class TestSwaps:
    def test_a_new_snapshot_is_read_at_once_and_spend_stays(self) -> None:
        bids = [bid("bid_1", ["p1"])]
        served = Served(source(bids=bids))
        gone = source(bids=bids, products=[product("p1", stock=0)], version=8)
        assert only(served.fill(request())) == ["p1"]
        served.server.swap(build_snapshot(gone))
        response = served.fill(request())
        assert (only(response), response.snapshot_version) == ([], 8)
        served.server.swap(build_snapshot(source(bids=bids)))
        assert only(served.fill(request())) == ["p1"], "funds are still known"

    def test_equal_targets_are_kept_so_that_visitors_need_not_be_looked_at_again(self) -> None:
        bids = [bid("bid_1", ["p1"], audience=Audience(segment="vip"))]
        served = Served(source(bids=bids))
        before = served.server.served
        served.server.swap(build_snapshot(source(bids=bids, version=8)))
        after = served.server.served
        assert before is not None
        assert after is not None
        assert after.targets is before.targets

    def test_spend_told_before_the_first_snapshot_is_not_lost(self) -> None:
        served = Served(source())
        served.server.served, served.server._spend = None, None
        served.server.apply_funds("adv_a", 5)
        served.server.swap(build_snapshot(source(bids=[bid("bid_1", ["p1"])])))
        assert only(served.fill(request())) == ["p1"]

    def test_paid_fills_pause_while_charges_cannot_be_recorded(self) -> None:
        served = Served(source(bids=[bid("bid_1", ["p1"])]))
        served.server.paid_pause_reason = "billing_unavailable"
        assert served.fill(request()).placements[0].no_fill_reason == "billing_unavailable"
        served.server.paid_pause_reason = None
        assert only(served.fill(request())) == ["p1"]


def test_a_budget_runs_out_while_clicks_are_still_on_their_way() -> None:
    tight = campaign(daily_budget_micros=50_000)
    floor = placement(floor_micros=Floors(click=10_000))
    served = Served(source(campaigns=[tight], bids=[bid("bid_1", ["p1"])], placements=[floor]))
    shown = 0
    while only(served.fill(request())) == ["p1"]:
        shown += 1
        assert shown < 10_000
    assert shown > 0


def test_equal_requests_with_equal_chance_get_equal_answers() -> None:
    def answers() -> list[Any]:
        served = Served(source(bids=[bid(f"bid_{n}", [f"p{n}"]) for n in range(1, 7)]))
        return [served.fill(request()) for _ in range(20)]

    first, second = answers(), answers()
    assert [only(one) for one in first] == [only(one) for one in second]
    assert len({tuple(only(one)) for one in first}) > 1, "exact ties are drawn anew for every auction"


def test_many_placements_are_filled_as_one_page() -> None:
    places = [placement("top", 1), placement("side", 1)]
    served = Served(source(placements=places, bids=[bid("bid_1", ["p1", "p2"])]))
    asked = request(Page(type="home"), placements=[RequestPlacement(placement_id=name) for name in ("top", "side")])
    assert sorted(only(served.fill(asked))) == ["p1", "p2"]


def viewed(visitor_id: str, product_id: str) -> NavigationEvent:
    return NavigationEvent(visitor_id=visitor_id, action=Action.VIEW_ITEM, occurred_at=NOW, product_id=product_id)


class TestSnapshots:
    """A swap keeps what still holds, and nothing else."""

    BASE: ClassVar[dict[str, Any]] = {
        "placements": [placement(slot_count=1)],
        "rules": [rule("rul_1", Effect(boost=3.0), Target(field="product_id", equals="p3"))],
    }

    def shown(self, served: Served) -> list[str]:
        return only(served.fill(request(mode="merchandised")))

    def test_plans_of_rules_outlive_a_swap_in_which_only_bids_changed(self) -> None:
        served = Served(source(**self.BASE))
        assert self.shown(served) == ["p3"]
        plans = dict(served.server.market.rules._plans)
        assert plans
        served.server.swap(build_snapshot(source(**self.BASE, version=8, bids=[bid("bid_1", ["p1"], 9_000_000)])))
        assert served.server.market.rules._plans.items() >= plans.items()
        assert self.shown(served) == ["p1"]

    @pytest.mark.parametrize(
        ("changed", "shown"),
        [
            ({"rules": [rule("rul_1", Effect(boost=3.0), Target(field="product_id", equals="p4"))]}, "p4"),
            ({"products": [product(f"p{number}") for number in range(2, 9)]}, "p3"),
            ({"products": [product(f"a{number}") for number in range(1, 9)] + [product("p3")]}, "p3"),
        ],
    )
    def test_other_rules_or_products_are_planned_anew(self, changed: dict[str, Any], shown: str) -> None:
        served = Served(source(**self.BASE))
        assert self.shown(served) == ["p3"]
        served.server.swap(build_snapshot(source(**self.BASE | changed, version=8)))
        assert self.shown(served) == [shown]

    def test_a_pin_finds_its_product_among_others(self) -> None:
        base = self.BASE | {"rules": [rule("rul_1", Effect(pin=Pin(product_id="p3", slot_position=1)))]}
        served = Served(source(**base))
        assert self.shown(served) == ["p3"]
        products = [product(name) for name in ("a1", "p1", "p2", "p3", "p4", "p5")]  # as many, in other rows
        served.server.swap(build_snapshot(source(**base, products=products, version=8)))
        assert self.shown(served) == ["p3"]

    def test_a_target_that_means_other_products_now_is_planned_anew(self) -> None:
        rules = [rule("rul_1", Effect(boost=3.0), Target(field="on_promotion", equals=True))]
        products = [product(f"p{number}") for number in range(1, 7)]
        products[3] = product("p4", sale_price_micros=1_000_000)
        served = Served(source(**self.BASE | {"rules": rules}, products=products))
        assert self.shown(served) == ["p4"]
        products[3:5] = [product("p4"), product("p5", sale_price_micros=1_000_000)]
        served.server.swap(build_snapshot(source(**self.BASE | {"rules": rules}, products=products, version=8)))
        assert self.shown(served) == ["p5"]

    def test_how_long_an_offer_takes_is_measured_again_when_there_are_many_more(self) -> None:
        few = [bid(f"bid_{number}", ["p1"]) for number in range(4)]
        served = Served(source(bids=few))
        assert served.server.market.measured_offer_count == 4
        served.server.swap(build_snapshot(source(bids=[*few, bid("bid_5", ["p2"])], version=8)))
        assert served.server.market.measured_offer_count == 4
        more = [bid(f"bid_{number}", ["p1"]) for number in range(9)]
        served.server.swap(build_snapshot(source(bids=more, version=9)))
        assert served.server.market.measured_offer_count == 9
