"""One person across cookie, login, device and store; their consent, and what they may ask to see; over HTTP."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from affinity.pseudonym import Pseudonymizer
from affinity.settings import Settings as AffinitySettings
from bidder_api.database import Database
from bidder_api.tasks import pseudonymizer_of
from tests.bidder_api.test_serving import fill, shop
from tests.bidder_api.world import NOW_MS, World, world_over

__all__ = ["shop"]  # the fixture


@pytest.fixture(params=["memory", "shared"])
def world(request: pytest.FixtureRequest, sqlite_database: Database) -> Iterator[World]:
    """A world in which an audience of one visitor is targeted: these shops have two or three.

    Once with visitors in memory, and once shared through a Valkey or Redis server, which must make no difference.
    """
    store = {} if request.param == "memory" else {"visitor_store": request.getfixturevalue("valkey").url}
    with world_over(sqlite_database, AffinitySettings(audience_size_min=1), **store) as made:
        yield made


NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
YES, NO = {"personalised": True}, {"personalised": False}
LINE = {"product_id": "p1", "quantity": 1, "unit_price_micros": 9_000_000}


def at(**ago: float) -> str:
    return (NOW - timedelta(**ago)).isoformat()


def call(world: World, method: str, path: str, body: Any = None, status: int = 200, role: str = "retailer") -> Any:
    answer = world.call(method, path, body, role=role)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def navigate(world: World, *visitor_ids: str, role: str = "retailer", consent: Any = None, **event: Any) -> Any:
    events = [
        {"visitor_id": one, "action": "view_item", "product_id": "p1", "occurred_at": at(seconds=5)} | event
        for one in visitor_ids
    ]
    said = {} if consent is None else {"consent": consent}
    return call(world, "POST", "/v1/navigation", {"events": events, **said}, 202, role)


def order(world: World, order_id: str, *lines: dict[str, Any], status: int = 200, **order: Any) -> str:
    body = {"order_id": order_id, "occurred_at": at(minutes=30), "lines": list(lines) or [LINE], **order}
    return str(call(world, "POST", "/v1/orders", {"orders": [body]}, status)["results"][0]["result"])


def link(world: World, visitor_id: str, customer_id: str) -> None:
    call(world, "POST", f"/v1/visitors/{visitor_id}/link", {"customer_id": customer_id})


def bought(world: World, visitor_id: str) -> int:
    """Return how many orders a visitor's profile knows of."""
    answer = world.call("GET", f"/v1/profiles/{visitor_id}", role="retailer")
    return int(answer.json()["computed"]["order_count"]) if answer.status_code == 200 else 0


def held(world: World, visitor_id: str) -> Any:
    return call(world, "GET", f"/v1/visitors/{visitor_id}")


def is_for_buyers(world: World) -> None:
    """Have the only bid be for who bought its product."""
    (bid,) = world.call("GET", "/v1/bids").json()["items"]
    answer = world.call(
        "PATCH",
        f"/v1/bids/{bid['bid_id']}",
        {"audience": {"bought_product_within_days": 30, "product_ids": ["p1"]}},
        headers={"If-Match": f'"{bid["change_seq"]}"'},
    )
    assert answer.status_code == 200, answer.text
    world.publish()


def is_paid(world: World, visitor_id: str, **more: Any) -> bool:
    return any(one["is_sponsored"] for one in fill(world, visitor_id=visitor_id, **more)["placements"][0]["fills"])


# --- one person --------------------------------------------------------------------------------------------------


def test_a_store_order_is_in_the_profile_of_every_device_of_its_customer(shop: World) -> None:
    is_for_buyers(shop)
    navigate(shop, "phone", "laptop", "other")
    for device in ("phone", "laptop"):
        link(shop, device, "customer")
        assert not is_paid(shop, device)
    assert order(shop, "o1", LINE, LINE | {"quantity": 2}, customer_id="customer", channel="store") == "accepted"
    for device in ("phone", "laptop", "customer"):
        assert bought(shop, device) == 1
        assert is_paid(shop, device)
    assert not is_paid(shop, "other")
    profile = call(shop, "GET", "/v1/profiles/phone")["computed"]
    assert (profile["lifecycle"], profile["promophile"] is not None) == ("new", True)
    assert profile["rfm"] is not None
    state = held(shop, "laptop")["state"]
    assert (list(state["bought_products"]), list(state["bought_categories"])) == (["p1"], ["Shoes"])
    assert order(shop, "o1", LINE, LINE | {"quantity": 2}, customer_id="customer", channel="store") == "duplicate"
    assert order(shop, "o1", LINE | {"quantity": -1}, customer_id="customer", channel="store") == "accepted"
    assert order(shop, "o1", LINE | {"quantity": 7}, customer_id="customer", channel="store") == "conflict"
    assert bought(shop, "phone") == 1
    call(shop, "DELETE", "/v1/visitors/laptop/link", status=204)
    assert (bought(shop, "laptop"), bought(shop, "phone")) == (0, 1)


def test_orders_from_before_the_customer_was_known_join_when_they_are(world: World) -> None:
    world.wait_started()
    for number in range(3):
        order(world, f"o{number}", customer_id="customer", channel="store", occurred_at=at(days=number))
        order(world, f"x{number}", customer_id="by-profile", channel="store", occurred_at=at(days=number))
    assert world.call("GET", "/v1/profiles/customer", role="retailer").status_code == 404
    navigate(world, "phone", "laptop")
    link(world, "phone", "customer")
    assert bought(world, "phone") == 3
    link(world, "laptop", "customer")
    assert bought(world, "laptop") == 3
    call(world, "PUT", "/v1/profiles/by-profile", {"segments": ["vip"]})
    assert bought(world, "by-profile") == 3


def test_what_the_page_and_the_order_both_tell_counts_once_and_two_purchases_count_twice(world: World) -> None:
    world.wait_started()

    def buy(visitor_id: str, minutes: float) -> Any:
        return navigate(world, visitor_id, action="purchase", occurred_at=at(minutes=minutes))

    navigate(world, "page-first", "order-first", "store")
    for visitor_id, is_page_first in (("page-first", True), ("order-first", False)):
        for minutes in (40, 20):
            told = [
                lambda visitor_id=visitor_id, minutes=minutes: buy(visitor_id, minutes),
                lambda visitor_id=visitor_id, minutes=minutes: order(
                    world, f"{visitor_id}-{minutes}", visitor_id=visitor_id, occurred_at=at(minutes=minutes - 1)
                ),
            ]
            for tell in told if is_page_first else reversed(told):
                tell()
        assert bought(world, visitor_id) == 2
        purchases = [one for one in held(world, visitor_id)["navigation"] if one["action"] == "purchase"]
        assert len(purchases) == 2
    buy("store", 40)
    order(world, "s", visitor_id="store", channel="store", occurred_at=at(minutes=38))
    assert bought(world, "store") == 2  # nobody reports a till's sale from a page


def test_ga4s_purchase_and_the_order_of_its_transaction_are_one(world: World) -> None:
    world.wait_started()
    purchase = {
        "name": "purchase",
        "params": {"transaction_id": "T1", "items": [{"item_id": "p1"}, {"item_id": "p2"}]},
    }
    body = {"client_id": "1.2", "timestamp_micros": (NOW_MS - 60_000) * 1000, "events": [purchase, {"name": "scroll"}]}
    assert call(world, "POST", "/v1/navigation", body, 202) == {"recorded": 2, "duplicates": 0, "ignored": 1}
    assert call(world, "POST", "/v1/navigation", body, 202) == {"recorded": 0, "duplicates": 2, "ignored": 1}
    order(world, "T1", LINE, LINE | {"product_id": "p2"}, visitor_id="1.2", occurred_at=at(seconds=50))
    assert bought(world, "1.2") == 1
    assert len(held(world, "1.2")["navigation"]) == 2


def test_an_order_of_somebody_unknown_is_kept_for_attribution_and_makes_no_profile(world: World) -> None:
    world.wait_started()
    order(world, "o1", visitor_id="stranger")
    assert world.call("GET", "/v1/profiles/stranger", role="retailer").status_code == 404
    assert len(held(world, "stranger")["orders"]) == 1
    assert held(world, "stranger")["state"] is None


# --- what is held ------------------------------------------------------------------------------------------------


def test_everything_held_is_shown_to_those_who_may_and_nobody_elses(shop: World) -> None:
    navigate(shop, "phone", event_id="e1", traffic_source="mail", query="trail", action="search")
    navigate(shop, "laptop", "other")
    call(shop, "PUT", "/v1/profiles/phone", {"segments": ["vip"], "attributes": {"age": 40}})
    link(shop, "phone", "customer")
    link(shop, "laptop", "customer")
    order(shop, "o1", visitor_id="phone", customer_id="customer", channel="store", store_id="s-7")
    order(shop, "o2", visitor_id="other")
    (shown,) = fill(shop, visitor_id="laptop")["placements"][0]["fills"]
    click = {"event_id": "c1", "type": "click", "beacon_token": shown["beacon_token"]}
    call(shop, "POST", "/v1/events", {"events": [click]})

    everything = held(shop, "laptop")
    hide: Pseudonymizer = pseudonymizer_of(bytes.fromhex("5e" * 32))
    names = {name: hide.of(name).hex() for name in ("phone", "laptop", "customer")}
    assert {one["pseudonym"]: one["is_customer"] for one in everything["links"]} == {
        names["phone"]: False,
        names["laptop"]: False,
        names["customer"]: True,
    }
    assert (everything["segments"], everything["attributes"]) == (["vip"], {"age": 40})
    profiles = {one["pseudonym"]: one["profile"] for one in everything["links"]}
    assert profiles[names["phone"]] == {"segments": ["vip"], "attributes": {"age": 40}}
    assert profiles[names["laptop"]] is None
    assert everything["computed"]["order_count"] == 1
    told = [(one["pseudonym"], one["action"], one.get("query")) for one in everything["navigation"]]
    assert (names["phone"], "search", "trail") in told
    assert (names["laptop"], "view_item", None) in told
    assert (names["customer"], "purchase", None) in told
    assert len(told) == 3
    (ordered,) = everything["orders"]
    assert (ordered["order_id"], ordered["channel"], ordered["store_id"]) == ("o1", "store", "s-7")
    assert ordered["lines"] == [LINE]
    assert [one["type"] for one in everything["touches"]] == ["click"]
    assert everything["state"]["event_count"] == 3
    assert everything | {"visitor_id": ""} == held(shop, "customer") | {"visitor_id": ""}

    for role, status in (("crm", 200), ("admin", 200), ("advertiser", 403), ("site", 403), ("merchant", 403)):
        assert shop.call("GET", "/v1/visitors/laptop", role=role).status_code == status
    assert shop.call("GET", "/v1/visitors/nobody", role="retailer").json()["code"] == "visitor_unknown"
    assert shop.call("GET", "/v1/visitors/laptop", headers={"Authorization": ""}).status_code == 401


def test_an_erased_person_is_gone_from_every_answer_and_may_come_back_as_somebody_new(shop: World) -> None:
    navigate(shop, "phone")
    link(shop, "phone", "customer")
    call(shop, "PUT", "/v1/profiles/customer", {"segments": ["vip"]})
    order(shop, "o1", customer_id="customer", channel="store")
    call(shop, "DELETE", "/v1/visitors/phone", status=204)
    for one in ("phone", "customer"):
        assert shop.call("GET", f"/v1/visitors/{one}", role="retailer").status_code == 404
        assert shop.call("GET", f"/v1/profiles/{one}", role="retailer").status_code == 404
    link(shop, "phone", "customer")
    assert bought(shop, "phone") == 0  # the order is nobody's now
    assert order(shop, "o1", customer_id="customer", channel="store") == "duplicate"


def test_it_is_the_same_on_either_database(each_world: World) -> None:
    world = each_world
    world.wait_started()
    navigate(world, "phone", "other")
    link(world, "phone", "customer")
    call(world, "PUT", "/v1/profiles/customer", {"segments": ["vip"]})
    order(world, "o1", visitor_id="phone", customer_id="customer", channel="store")
    assert (len(held(world, "phone")["orders"]), bought(world, "phone")) == (1, 1)
    call(world, "DELETE", "/v1/visitors/phone", status=204)
    for one in ("phone", "customer"):
        assert world.call("GET", f"/v1/visitors/{one}", role="retailer").status_code == 404
    assert held(world, "other")["state"]["event_count"] == 1


# --- consent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says_so", ["page", "navigation", "tc string"])
def test_who_withdraws_consent_is_unknown_to_the_very_next_page_and_soon_off_the_disk(
    shop: World, says_so: str
) -> None:
    is_for_buyers(shop)
    navigate(shop, "ana", "bob", action="purchase")
    call(shop, "PUT", "/v1/profiles/ana", {"segments": ["vip"]})
    assert is_paid(shop, "ana")
    if says_so == "page":
        assert not is_paid(shop, "ana", consent=NO)
    else:
        refusal = NO if says_so == "navigation" else "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA"
        assert navigate(shop, "ana", consent=refusal) == {"recorded": 0, "duplicates": 0}
    assert not is_paid(shop, "ana")
    assert bought(shop, "ana") == 0
    assert is_paid(shop, "bob")
    marks = [pseudonymizer_of(bytes.fromhex("5e" * 32)).of("ana")]
    log = shop.serving.visitors.log
    assert log is not None
    ends = time.monotonic() + 5  # as promised
    while shop.serving.visitors.withdrawn or log.lines_of(marks):
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert shop.call("GET", "/v1/visitors/ana", role="retailer").status_code == 404
    assert log.lines_of([pseudonymizer_of(bytes.fromhex("5e" * 32)).of("bob")])


def test_a_page_that_says_nothing_of_consent_knows_nothing_and_forgets_nothing(shop: World) -> None:
    is_for_buyers(shop)
    navigate(shop, "ana", action="purchase")
    body = {
        "visitor_id": "ana",
        "page": {"type": "category", "category_id": "Shoes"},
        "placements": [{"placement_id": "top"}],
    }
    fills = call(shop, "POST", "/v1/fills", body)["placements"][0]["fills"]
    assert not any(one["is_sponsored"] for one in fills)
    assert is_paid(shop, "ana")


def test_a_preview_of_a_page_without_consent_forgets_nobody(shop: World) -> None:
    navigate(shop, "ana", action="purchase")
    body = {"visitor_id": "ana", "consent": NO, "page": {"type": "category", "category_id": "Shoes"}}
    answer = shop.call("POST", "/v1/rules/preview", body | {"placements": [{"placement_id": "top"}]}, role="merchant")
    assert answer.status_code == 200, answer.text
    assert bought(shop, "ana") == 1


def test_a_sites_own_key_cannot_have_customers_forgotten(shop: World) -> None:
    navigate(shop, "phone", "cookie", action="purchase")
    link(shop, "phone", "customer")
    navigate(shop, "customer", "cookie", role="site", consent=NO)
    assert (bought(shop, "phone"), bought(shop, "cookie")) == (1, 0)


@pytest.mark.parametrize("path", ["/v1/fills", "/v1/navigation"])
def test_consent_that_cannot_be_read_is_refused_and_nothing_is_done(shop: World, path: str) -> None:
    navigate(shop, "ana")
    body: dict[str, Any] = {"consent": "granted"}
    if path == "/v1/fills":
        body |= {"visitor_id": "ana", "page": {"type": "home"}, "placements": [{"placement_id": "top"}]}
    else:
        event = {"visitor_id": "ana", "action": "view_item", "occurred_at": at(seconds=1)}
        body |= {"events": [event]}
    answer = shop.call("POST", path, body, role="retailer")
    assert (answer.status_code, answer.json()["code"], answer.json()["pointer"]) == (
        422,
        "consent_unreadable",
        "/consent",
    )
    assert held(shop, "ana")["state"]["event_count"] == 1


def test_navigation_too_old_to_be_kept_goes_from_disk_and_memory(world: World) -> None:
    world.wait_started()
    visitors = world.serving.visitors
    navigate(world, "ana", occurred_at=at(hours=20))
    navigate(world, "ana", "bob", occurred_at=at(hours=1))
    visitors.settings = msgspec.structs.replace(visitors.settings, retention_days=1)
    world.clock.now_ms += 5 * 3_600_000
    world.portal.call(world.serving.drop_old_navigation)
    assert [len(held(world, one)["navigation"]) for one in ("ana", "bob")] == [1, 1]
    assert [held(world, one)["state"]["event_count"] for one in ("ana", "bob")] == [1, 1]
    world.clock.now_ms += 20 * 3_600_000
    world.portal.call(world.serving.drop_old_navigation)
    assert world.call("GET", "/v1/visitors/ana", role="retailer").status_code == 404


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "status", "code", "pointer"),
    [
        ({"action": "teleport"}, 400, "field_invalid", "/events/1/action"),
        ({"occurred_at": at(seconds=-301)}, 422, "occurred_at_in_future", "/events/1/occurred_at"),
        ({"occurred_at": at(hours=24, seconds=1)}, 422, "occurred_at_too_old", "/events/1/occurred_at"),
        ({"query": "q" * 10_240}, 400, "field_out_of_range", "/events/1/query"),
        ({"event_name": "search", "search_term": "q" * 10_240}, 400, "field_out_of_range", "/events/1/search_term"),
        ({"occurred_at": "yesterday"}, 400, "field_invalid", "/events/1/occurred_at"),
        ({"colour": "red"}, 400, "field_unknown", "/events/1/colour"),
    ],
)  # fmt: skip
def test_a_batch_with_a_bad_event_is_refused_whole_and_says_which(
    world: World, event: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    world.wait_started()
    good = {"visitor_id": "ana", "action": "search", "occurred_at": at(seconds=1)}
    answer = world.call("POST", "/v1/navigation", {"events": [good, good | event]}, role="retailer")
    assert (answer.status_code, answer.json()["code"], answer.json()["pointer"]) == (status, code, pointer)
    assert world.call("GET", "/v1/visitors/ana", role="retailer").status_code == 404


def test_a_query_of_ten_kilobytes_on_a_page_is_refused(shop: World) -> None:
    body = {"page": {"type": "search", "query": "q" * 10_240}, "placements": [{"placement_id": "top"}]}
    answer = shop.call("POST", "/v1/fills", body, role="retailer")
    assert (answer.status_code, answer.json()["pointer"]) == (400, "/page/query")


def test_ten_thousand_events_of_one_visitor_in_one_second_are_all_taken_and_few_are_remembered(world: World) -> None:
    world.wait_started()
    for batch in range(20):
        events = [
            {
                "visitor_id": "ana",
                "action": ("view_item", "purchase", "search", "dismiss")[number % 4],
                "product_id": f"p{batch}-{number}",
                "category_id": f"C{number}",
                "query": "q" * 500,
                "event_id": f"{batch}-{number}",
                "occurred_at": at(seconds=1 + number / 500),
            }
            for number in range(500)
        ]
        answer = world.call("POST", "/v1/navigation", {"events": events}, role="retailer")
        assert (answer.status_code, answer.json()["recorded"]) == (202, 500)
    visitors = world.serving.visitors
    record = visitors.record(visitors.pseudonym("ana"))
    assert record is not None
    assert record.events[-1].product_id == "p19-0"
    packed = visitors.records.packed(record.pseudonym)
    assert packed is not None
    assert 16_000 < len(packed[1]) <= visitors.settings.visitor_record_bytes_max  # such long queries: not 128 of them
    assert 10 < len(record.events) <= 128
    assert len(record.dismissed) <= 200
    for kept in (record.bought_product, record.bought_category, record.category_weight):
        assert len(kept) <= 256
