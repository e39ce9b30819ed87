"""A placement's limit on sponsored products per visitor, frequency caps given back, and products dismissed."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from affinity.navigation import Action, Consent, NavigationBatch, NavigationEvent
from auction.campaign import FrequencyCap
from auction.loss import LossReason
from auction.placement import CoolDown, VisitorLimit
from auction.request import RequestPlacement
from auction.retailer_rule import Effect, Pin
from tests.auction.servers import Served
from tests.auction.worlds import bid, placement, request, rule, source

YES = Consent(personalised=True)
MINUTE_MS = 60_000
BIDS = [bid(f"bid_{number}", [f"p{number}"], 1_000_000 - number, f"cmp_{'abc'[number % 3]}") for number in range(1, 7)]


def limited(limit: VisitorLimit | None, folder: Path | None = None, slot_count: int = 3, **more: Any) -> Served:
    place = placement(slot_count=slot_count, sponsored_per_visitor=limit)
    return Served(source(bids=BIDS, placements=[place]) if not more else source(placements=[place], **more), folder)


def show(served: Served, visitor_id: str | None = "v-1", after_minutes: float = 0, consent: Consent = YES) -> list[Any]:
    served.clock.now_ms += round(after_minutes * MINUTE_MS)
    (place,) = served.fill(request(visitor_id=visitor_id, consent=consent)).placements
    return [fill for fill in place.fills if fill.is_sponsored]


def tell(served: Served, fill: Any, is_click: bool = False) -> None:
    terms = served.keys.redeem_beacon(fill.beacon_token, served.clock.now_ms).terms
    served.server.note_event(terms, is_click, served.clock.now_ms)


def visit(served: Served, visitor_id: str = "v-1", action: Action = Action.VIEW_ITEM, product_id: str = "p6") -> None:
    at = datetime.fromtimestamp(served.clock.now_ms / 1000, UTC)
    event = NavigationEvent(visitor_id=visitor_id, action=action, product_id=product_id, occurred_at=at)
    served.visitors.post(NavigationBatch(events=[event], consent=YES), served.clock.now_ms)


class TestLimit:
    def test_a_page_shows_exactly_what_is_left_of_the_session(self) -> None:
        served = limited(VisitorLimit(session=5))
        assert [len(show(served)) for _ in range(3)] == [3, 2, 0]
        assert len(show(served, "v-2")) == 3, "it is each visitor's own"

    def test_a_session_ends_with_half_an_hour_of_nothing(self) -> None:
        served = limited(VisitorLimit(session=4))
        shown = show(served) + show(served, after_minutes=20)
        for fill in shown:
            tell(served, fill)
        assert len(shown) == 4
        assert show(served, after_minutes=29) == []
        assert len(show(served, after_minutes=2)) == 3

    def test_what_the_visitor_does_keeps_the_session_going(self) -> None:
        served = limited(VisitorLimit(session=3))
        visit(served)
        for fill in show(served):
            tell(served, fill)
        for _ in range(3):
            served.clock.now_ms += 20 * MINUTE_MS
            visit(served)
        assert show(served) == []

    def test_a_day_is_the_retailers(self) -> None:
        served = limited(VisitorLimit(day=3))
        for fill in show(served):
            tell(served, fill)
        assert show(served, after_minutes=120) == []
        midnight = int(datetime.fromisoformat("2026-09-22T00:00:00+02:00").timestamp() * 1000)
        served.clock.now_ms = midnight - 1
        assert show(served) == []
        served.clock.now_ms = midnight
        assert len(show(served)) == 3

    def test_after_so_many_unclicked_there_is_a_pause(self) -> None:
        served = limited(VisitorLimit(cool_down_after_unclicked=CoolDown(count=4, seconds=600)))
        assert [len(show(served)), len(show(served)), len(show(served))] == [3, 1, 0]
        assert show(served, after_minutes=9.9) == []
        assert len(show(served, after_minutes=0.1)) == 3

    def test_a_click_begins_the_count_anew(self) -> None:
        served = limited(VisitorLimit(cool_down_after_unclicked=CoolDown(count=4, seconds=600)))
        fills = show(served)
        served.clock.now_ms += 1
        tell(served, fills[0], is_click=True)
        served.clock.now_ms += 1
        assert [len(show(served)), len(show(served))] == [3, 1]

    def test_a_click_ends_the_pause(self) -> None:
        served = limited(VisitorLimit(cool_down_after_unclicked=CoolDown(count=3, seconds=600)))
        fills = show(served)
        assert show(served, after_minutes=1) == []
        tell(served, fills[0], is_click=True)
        assert len(show(served)) == 3

    def test_whoever_gave_no_consent_or_has_no_id_is_not_counted(self) -> None:
        served = limited(VisitorLimit(day=1))
        assert [len(show(served, consent=Consent())) for _ in range(2)] == [3, 3]
        assert [len(show(served, None)) for _ in range(2)] == [3, 3]
        assert len(served.visitors) == 0

    def test_the_reason_is_the_visitors_limit_and_the_page_stays_organic(self, tmp_path: Path) -> None:
        served = limited(VisitorLimit(day=1), tmp_path, slot_count=2)
        asked = request(visitor_id="v-1", consent=YES)
        first = served.fill(asked)
        (place,) = served.server.receipt(first.auction_id, None).placements
        reasons = [one.loss_reason for one in place.candidates if one.is_sponsored]
        assert reasons.count(LossReason.VISITOR_LIMIT) == 5
        assert served.fill(asked).placements[0].no_fill_reason == "visitor_limit"
        merchandised = served.fill(request(visitor_id="v-1", consent=YES, mode="merchandised"))
        assert [fill.is_sponsored for fill in merchandised.placements[0].fills] == [False, False]

    def test_other_placements_are_not_limited_by_it(self) -> None:
        places = [placement("top", 1, sponsored_per_visitor=VisitorLimit(day=1)), placement("side", 2)]
        served = Served(source(bids=BIDS, placements=places))
        asked = request(
            visitor_id="v-1",
            consent=YES,
            placements=[RequestPlacement(placement_id="top"), RequestPlacement(placement_id="side")],
        )
        for wanted in ([1, 2], [0, 2]):
            assert [len(place.fills) for place in served.fill(asked).placements] == wanted

    def test_devices_of_one_customer_share_it(self) -> None:
        served = limited(VisitorLimit(day=4))
        served.visitors.link(served.visitors.pseudonym("phone"), served.visitors.pseudonym("ana"))
        assert [len(show(served, "phone")), len(show(served, "ana"))] == [3, 1]

    def test_erasing_a_visitor_forgets_it(self) -> None:
        served = limited(VisitorLimit(day=3))
        (fill, *_) = show(served)
        served.visitors.forget([served.visitors.pseudonym("v-1")])
        tell(served, fill, is_click=True)
        assert len(served.visitors) == 0, "a late report brings nothing back"
        assert len(show(served)) == 3


class TestGivenBack:
    def test_what_never_rendered_counts_for_half_an_hour_and_no_longer(self) -> None:
        capped = [bid("bid_1", ["p1"], frequency_cap=FrequencyCap(count=1, window_s=86_400))]
        served = limited(None, bids=capped)
        assert len(show(served)) == 1
        assert show(served, after_minutes=29.9) == []
        (again,) = show(served, after_minutes=0.2)
        tell(served, again)
        assert served.visitors.given_back_count == 1
        assert show(served, after_minutes=31) == [], "this one was seen"
        assert len(show(served, after_minutes=24 * 60)) == 1

    def test_a_click_is_as_good_as_an_impression(self) -> None:
        served = limited(VisitorLimit(day=3))
        fills = show(served)
        tell(served, fills[0], is_click=True)
        tell(served, fills[1])
        assert len(show(served, after_minutes=31)) == 1, "one of three never rendered"

    def test_a_cap_of_many_is_counted_exactly(self) -> None:
        capped = [bid("bid_1", ["p1"], frequency_cap=FrequencyCap(count=100, window_s=86_400))]
        served = limited(None, bids=capped)
        assert sum(len(show(served)) for _ in range(110)) == 100


@pytest.mark.parametrize("mode", ["sponsored", "merchandised"])
def test_a_dismissed_product_is_gone_from_the_next_page_paid_organic_or_pinned(mode: str) -> None:
    pin = rule("rul_1", Effect(pin=Pin(product_id="p2", slot_position=1)))
    served = limited(None, slot_count=6, bids=[bid("bid_1", ["p1"])], rules=[pin])
    asked = request(visitor_id="v-1", consent=YES, mode=mode)

    def products() -> set[str]:
        return {fill.product_id for fill in served.fill(asked).placements[0].fills}

    before = products()
    assert {"p1", "p2"} <= before
    assert ("p3" in before) == (mode == "merchandised")
    for product_id in ("p1", "p2", "p3"):
        visit(served, action=Action.DISMISS, product_id=product_id)
    assert products() == before - {"p1", "p2", "p3"}
    assert served.server.spend._spent == {}, "nothing is charged for it"
