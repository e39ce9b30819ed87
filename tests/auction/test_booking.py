"""A booked slot: taken before anything is sold, shown as sponsored, charged by no event."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affinity.product_target import Target
from auction.booking import Booking
from auction.explanation import explain_to_retailer
from auction.placement import PageCaps
from auction.receipt import replay_receipt
from auction.request import Page, RequestPlacement
from auction.retailer_rule import Effect, Pin
from ledger.beacon import BeaconKeys
from tests.auction.servers import Served
from tests.auction.worlds import NOW, World, bid, booking, placement, product, request, rule, source

BIDS = [bid("bid_1", ["p1"], 9_000_000), bid("bid_2", ["p2"], 8_000_000, "cmp_b")]


def world(*bookings: Booking, **changes: Any) -> World:
    return World(source(**{"bids": BIDS, "bookings": list(bookings)} | changes))


def names(made: World, **asked: Any) -> list[str]:
    return [name for name, _ in made.winners(made.hold(request(**asked)))]


def test_a_booking_takes_its_slot_and_the_auction_fills_the_rest() -> None:
    outcome = world(booking("bkg_1", "p6")).hold(request())
    first, second = outcome.places[0].decisions
    assert (first.slot_position, first.booked is not None, first.offer_row, first.price_micros) == (1, True, -1, 0)
    assert (second.booked, second.offer_row >= 0) == (None, True)
    assert names(world(booking("bkg_1", "p6"))) == ["p6", "p1"]
    assert names(world(booking("bkg_1", "p6", 2), bids=[])) == ["p6"]


@pytest.mark.parametrize(
    ("changes", "is_shown"),
    [
        ({}, True),
        ({"starts_at": NOW}, True),
        ({"starts_at": NOW + timedelta(milliseconds=1)}, False),
        ({"ends_at": NOW}, False),
        ({"placement_id": "side"}, False),
        ({"slot_position": 3}, False),
        ({"product_id": "gone"}, False),
    ],
)
def test_a_booking_holds_in_its_time_and_place_only(changes: dict[str, Any], is_shown: bool) -> None:
    assert ("p6" in names(world(booking("bkg_1", **{"product_id": "p6"} | changes)))) == is_shown


@pytest.mark.parametrize(
    "asked",
    [
        {"exclude_product_ids": ["p6"]},
        {"page": Page(type="category", category_id="Shoes > Running", filters={"brand": ["brand-p1", "brand-p2"]})},
    ],
)
@pytest.mark.parametrize("mode", ["sponsored", "merchandised"])
def test_what_the_page_or_the_visitor_leaves_out_is_not_shown_and_the_slot_is_sold(asked: Any, mode: Any) -> None:
    """The visitor's filters bind bookings, pins, bids and organic products alike."""
    pin = rule("rul_1", Effect(pin=Pin(product_id="p6", slot_position=2)))
    assert names(world(booking("bkg_1", "p6"), rules=[pin]), mode=mode, **asked) == ["p1", "p2"]


def test_a_booked_product_that_is_sold_out_leaves_its_slot_to_others() -> None:
    products = [product("p1"), product("p2"), product("p6", stock=0)]
    assert names(world(booking("bkg_1", "p6"), products=products)) == ["p1", "p2"]


def test_bookings_are_contracts_that_no_rule_touches() -> None:
    rules = [
        rule("rul_1", Effect(exclude=True), Target(field="product_id", one_of=["p6", "p1"])),
        rule("rul_2", Effect(pin=Pin(product_id="p5", slot_position=1))),
        rule("rul_3", Effect(pin=Pin(product_id="p4", slot_position=2))),
    ]
    made = world(booking("bkg_1", "p6"), rules=rules)
    assert names(made) == ["p6", "p4"]
    assert names(made, rules="off") == ["p6", "p1"], "without rules pins and exclusions are gone, bookings stay"


def test_a_booking_counts_towards_caps_and_a_page_shows_its_product_once() -> None:
    first = placement(slot_count=3, sponsored_max=2)
    assert len(names(world(booking("bkg_1", "p6"), placements=[first]))) == 2
    brands = [product(f"p{number}", brand="Acme") for number in range(1, 7)]
    assert names(world(booking("bkg_1", "p6"), products=brands, placements=[placement(brand_max=1)])) == ["p6"]
    capped = world(booking("bkg_1", "p6"), page_caps={"category": PageCaps(sponsored_max=1)})
    assert names(capped) == ["p6"]
    both = [placement("top"), placement("side")]
    twice = world(booking("bkg_1", "p6"), booking("bkg_2", "p6", placement_id="side"), placements=both)
    asked = request(placements=[RequestPlacement(placement_id="top"), RequestPlacement(placement_id="side")])
    outcome = twice.hold(asked)
    assert sum(one.booked is not None for place in outcome.places for one in place.decisions) == 1
    bids = [bid("bid_6", ["p6"], 9_999_999, "cmp_c"), *BIDS]
    assert names(world(booking("bkg_1", "p6", 2), bids=bids)) == ["p1", "p6"], "its own bid buys no second slot"


def test_an_ad_free_page_has_no_bookings() -> None:
    made = world(booking("bkg_1", "p6"))
    assert made.hold(request(), no_paid_reason="holdout").places[0].decisions == []


def test_the_page_laid_out_before_is_left_as_it_was() -> None:
    """Equal pages share their arrays: a booking that ended must not stand in them."""
    made = world(booking("bkg_1", "p6", ends_at=NOW + timedelta(seconds=1)))
    assert names(made) == ["p6", "p1"]
    made.market.bookings.clear()
    assert names(made) == ["p1", "p2"]


def test_a_booked_fill_is_labelled_carries_no_price_and_a_token_that_bills_nothing() -> None:
    served = Served(source(bids=BIDS, bookings=[booking("bkg_1", "p6")]))
    fill = served.fill(request()).placements[0].fills[0]
    assert (fill.product_id, fill.is_sponsored, fill.advertiser_id) == ("p6", True, "adv_c")
    assert (fill.campaign_id, fill.bid_id, fill.charge_on) == (None, "bkg_1", None)
    assert (fill.clearing_price_micros, fill.currency) == (None, None)
    assert fill.disclosure is not None
    assert (fill.disclosure.label, fill.disclosure.paid_by) == ("Sponsored", "Brand C")
    assert "that the advertiser booked the place" in fill.disclosure.main_parameters
    assert served.server.metrics.fills["booked"] == 1
    keys = BeaconKeys({1: bytes(32)}, 1)
    terms = keys.redeem_beacon(fill.beacon_token, served.clock.now_ms).terms
    assert (terms.is_sponsored, terms.advertiser_id, terms.bid_id) == (True, "adv_c", "bkg_1")
    assert (terms.charge_on, terms.price_micros, terms.campaign_id) == (None, 0, None)


def test_a_receipt_of_a_page_with_a_booking_comes_back_bit_for_bit(tmp_path: Path) -> None:
    served = Served(source(bids=BIDS, bookings=[booking("bkg_1", "p6")]), tmp_path)
    answer = served.fill(request())
    assert served.server.receipts is not None
    receipt = served.server.receipts.find(answer.auction_id)
    assert receipt is not None
    again = replay_receipt(receipt)
    assert np.array_equal(again.winner_row, receipt.outcome.winner_row)
    assert np.array_equal(again.critical_micros, receipt.outcome.critical_micros)
    shown = explain_to_retailer(receipt).placements[0].candidates
    [booked] = [one for one in shown if one.product_id == "p6"]
    assert (booked.is_sponsored, booked.bid_micros, booked.slot_position) == (True, None, 1)  # type: ignore[union-attr]
    assert booked.advertiser_id == "adv_c", "who has no offer in the auction is named too"


def test_who_lost_to_a_rules_cap_is_told_so() -> None:
    from auction.kernel import GROUP_PAID
    from auction.rules import RULE_MARK

    few = rule("rul_1", Effect(max_share=0.5), Target(field="product_id", one_of=["p1", "p2"]))
    caps = world(rules=[few]).hold(request()).page.cap_bits
    assert [int(bits) & RULE_MARK > 0 for bits in caps] == [True]
    sponsored = rule("rul_1", Effect(sponsored_max=1))
    assert int(world(rules=[sponsored]).hold(request()).page.cap_bits[0]) == GROUP_PAID | RULE_MARK
