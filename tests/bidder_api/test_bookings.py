"""Bookings through the API: what may be booked, and what a page shows of it."""

from typing import Any

import pytest

from tests.bidder_api.world import World

BOOKING = {
    "placement_id": "shelf",
    "slot_position": 1,
    "product_id": "boot",
    "advertiser_id": "acme",
    "starts_at": "2026-11-18T00:00:00Z",
    "ends_at": "2026-12-18T00:00:00Z",
    "price_micros": 900_000_000,
}  # the world's clock stands at 2026-11-18T11:06:40Z


@pytest.fixture
def shop(world: World) -> World:
    for product_id, owner in (("boot", "acme"), ("clog", "brio"), ("slipper", "acme")):
        product = {"title": product_id, "price_micros": 1, "product_type": "Shoes", "advertiser_ids": [owner]}
        assert world.call("PUT", f"/v1/products/{product_id}", product, role="merchant").status_code == 201
    world.call("PUT", "/v1/placements/shelf", {"page_types": ["category"], "slot_count": 2}, role="merchant")
    return world


def book(shop: World, **changes: Any) -> Any:
    return shop.call("POST", "/v1/bookings", BOOKING | changes, role="merchant")


def test_a_booked_slot_is_filled_by_it_and_its_events_are_recorded_and_free(shop: World) -> None:
    made = book(shop)
    assert made.status_code == 201, made.text
    assert made.json()["price_micros"] == 900_000_000
    shop.publish()
    asked = {"page": {"type": "category", "category_id": "Shoes"}, "placements": [{"placement_id": "shelf"}]}
    [placement] = shop.call("POST", "/v1/fills", asked, role="retailer").json()["placements"]
    [fill] = placement["fills"]
    assert (fill["product_id"], fill["is_sponsored"], fill["advertiser_id"]) == ("boot", True, "acme")
    assert (fill["bid_id"], fill["clearing_price_micros"]) == (made.json()["booking_id"], None)
    event = {"event_id": "e1", "type": "impression", "beacon_token": fill["beacon_token"]}
    event["occurred_at"] = "2026-11-18T11:06:41Z"
    [result] = shop.call("POST", "/v1/events", {"events": [event]}, role="retailer").json()["results"]
    assert (result["result"], result["code"]) == ("unbilled", "booked")


@pytest.mark.parametrize(
    ("changes", "status", "code", "pointer"),
    [
        ({"placement_id": "nowhere"}, 422, "placement_unknown", "/placement_id"),
        ({"slot_position": 3}, 422, "slot_beyond_placement", "/slot_position"),
        ({"slot_position": 0}, 400, "field_out_of_range", "/slot_position"),
        ({"product_id": "gone"}, 422, "product_unknown", "/product_id"),
        ({"advertiser_id": "brio"}, 422, "product_not_entitled", "/advertiser_id"),
        ({"ends_at": "2026-11-18T00:00:00Z"}, 422, "booking_ends_before_start", "/ends_at"),
        ({"ends_at": "2026-12-18T00:00:00"}, 400, "field_out_of_range", "/ends_at"),
        ({"price_micros": -1}, 400, "field_out_of_range", "/price_micros"),
        ({"price_micros": 10**12 + 1}, 400, "field_out_of_range", "/price_micros"),
        ({"colour": "red"}, 400, "field_unknown", "/colour"),
    ],
)
def test_what_cannot_be_booked_is_refused(shop: World, changes: Any, status: int, code: str, pointer: str) -> None:
    answer = book(shop, **changes)
    assert (answer.status_code, answer.json()["code"], answer.json()["pointer"]) == (status, code, pointer)


def test_a_slot_is_booked_once_at_a_time(shop: World) -> None:
    first = book(shop)
    for changes, code in (
        ({"product_id": "clog", "advertiser_id": "brio"}, "slot_booked"),
        (
            {"product_id": "slipper", "starts_at": "2026-12-17T23:59:59Z", "ends_at": "2027-01-01T00:00:00Z"},
            "slot_booked",
        ),
        ({"slot_position": 2}, "product_booked"),
    ):
        answer = book(shop, **changes)
        assert (answer.status_code, answer.json()["code"]) == (409, code)
    after = {"starts_at": "2026-12-18T00:00:00Z", "ends_at": "2026-12-19T00:00:00Z"}
    next_one = book(shop, **after)
    assert next_one.status_code == 201, "the end is not part of it"
    moved = shop.call(
        "PATCH", next_one.headers["location"], {"starts_at": "2026-12-01T00:00:00Z"}, role="merchant",
        headers={"If-Match": next_one.headers["etag"]},
    )  # fmt: skip
    assert (moved.status_code, moved.json()["code"]) == (409, "slot_booked")
    etag = {"If-Match": first.headers["etag"]}
    kept = shop.call("PATCH", first.headers["location"], {"price_micros": 1}, role="merchant", headers=etag)
    assert kept.status_code == 200, "a booking is not in its own way"
    shop.call("DELETE", first.headers["location"], role="merchant")
    assert book(shop, slot_position=2).status_code == 201
    listed = shop.call("GET", "/v1/bookings?placement_id=shelf", role="merchant").json()["items"]
    assert sorted(one["slot_position"] for one in listed) == [1, 2]
    archived = shop.call("GET", "/v1/bookings?status=archived", role="merchant").json()["items"]
    assert [one["booking_id"] for one in archived] == [first.json()["booking_id"]]


def test_a_preview_says_that_a_tile_is_booked_and_which_pin_it_keeps_out(shop: World) -> None:
    book(shop)
    shop.publish()
    body = {
        "page": {"type": "category", "category_id": "Shoes"},
        "placements": [{"placement_id": "shelf"}],
        "rules": [{"name": "Pin", "effect": {"pin": {"product_id": "clog", "slot_position": 1}}}],
    }
    after = shop.call("POST", "/v1/rules/preview", body, role="merchant").json()["after"][0]
    assert (after["tiles"][0]["reason"], after["tiles"][0]["advertiser_id"]) == ("booked", "acme")
    assert after["ignored"] == [{"rule_id": "rules[0]", "words": "slot 1 is booked"}]


def balances(shop: World) -> dict[str, int]:
    items = shop.call("GET", "/v1/ledger/balances", role="finance").json()["items"]
    return {one["account"]: one["posted_micros"] for one in items if one["posted_micros"]}


def test_a_booking_is_owed_from_the_moment_it_is_made_and_changed_terms_are_posted_anew(shop: World) -> None:
    made = book(shop).json()
    assert balances(shop) == {"unbilled:acme:2026-11": 900_000_000, "revenue:media": -900_000_000}
    path, tag = f"/v1/bookings/{made['booking_id']}", {"If-Match": f'"{made["change_seq"]}"'}
    later = {"price_micros": 7_000_000, "starts_at": "2026-12-02T00:00:00Z"}
    changed = shop.call("PATCH", path, later, role="merchant", headers=tag).json()
    assert balances(shop) == {"unbilled:acme:2026-12": 7_000_000, "revenue:media": -7_000_000}
    assert changed["transaction_id"] != made["transaction_id"]
    tag = {"If-Match": f'"{changed["change_seq"]}"'}
    moved = shop.call("PATCH", path, {"slot_position": 2}, role="merchant", headers=tag).json()
    assert moved["transaction_id"] == changed["transaction_id"], "where it stands changes nothing of what is owed"
    [line] = shop.call("GET", "/v1/ledger/credit-lines", role="finance").json()["items"]
    assert (line["advertiser_id"], line["owed_micros"]) == ("acme", 7_000_000)
    shop.call("DELETE", path, role="merchant")
    assert balances(shop) == {}, "it had not begun"


def test_a_booking_that_has_begun_stays_owed_and_a_free_one_posts_nothing(shop: World) -> None:
    assert book(shop, price_micros=0).json()["transaction_id"] is None
    made = book(shop, slot_position=2, product_id="slipper").json()
    shop.call("DELETE", f"/v1/bookings/{made['booking_id']}", role="merchant")
    assert balances(shop)["unbilled:acme:2026-11"] == 900_000_000


def test_a_booking_is_invoiced_with_the_month_it_starts_in(shop: World) -> None:
    made = book(shop).json()
    party = {"party": {"name": "Acme", "address": {"country": "FR"}}, "vat_percent": "20"}
    for path in ("/seller", "/billing-profiles/acme"):
        shop.call("PUT", "/v1/ledger" + path, party, role="finance")
    shop.clock.now_ms += 20 * 86_400_000
    for stage in ("soft", "sealed"):
        shop.call("POST", "/v1/ledger/periods/2026-11/close", {"stage": stage}, role="finance")
    body = {"advertiser_id": "acme", "period": "2026-11"}
    invoice = shop.call("POST", "/v1/ledger/invoices", body, role="finance").json()
    assert [one["name"] for one in invoice["document"]["lines"]] == [f"Booking {made['booking_id']}"]
    assert (invoice["net_micros"], invoice["due_micros"]) == (900_000_000, 1_080_000_000)
    tag = {"If-Match": f'"{made["change_seq"]}"'}
    path = f"/v1/bookings/{made['booking_id']}"
    refused = shop.call("PATCH", path, {"price_micros": 1}, role="merchant", headers=tag)
    assert (refused.status_code, refused.json()["code"]) == (409, "invoiced")
    assert balances(shop)["receivable:acme"] == 1_080_000_000
