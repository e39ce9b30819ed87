"""The serving process as a whole: what it takes up while it runs, and how it answers browsers."""

import time
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from affinity import store
from affinity.catalog import Product
from affinity.computed import DAY_MS, CustomerScale, Purchases
from affinity.customers import ComputedProfile, SegmentEntry
from affinity.kinds import read_attributes
from affinity.model import BoundModel, neutral_model
from affinity.profile import ProfileDraft
from affinity.store import put_profile
from bidder_api.database import Database
from bidder_api.serving import CurrentModel, ProductBook
from ledger import store as ledger_store
from ledger.errors import LedgerUnavailable
from tests.bidder_api.world import NOW_MS, ORIGIN, RETAILER, World, world_over

MOMENT = "2026-11-18T11:06:39Z"  # a second before the world's clock


PLACEMENT = {"page_types": ["category"], "slot_count": 1, "floor_micros": 50_021}


@pytest.fixture
def shop(world: World) -> World:
    product = {
        "title": "Shoe", "link": "https://shop.example/p1", "price_micros": 10_000_000, "brand": "Acme",
        "product_type": "Shoes", "advertiser_ids": ["acme"],
    }  # fmt: skip
    world.call("PUT", "/v1/products/p1", product, role="merchant")
    world.call("PUT", "/v1/placements/top", PLACEMENT, role="merchant")
    top_up = {"advertiser_id": "acme", "amount_micros": 1_000_003, "reference": "r"}
    assert world.call("POST", "/v1/ledger/top-ups", top_up, role="finance").status_code == 201
    campaign = world.call("POST", "/v1/campaigns", {"name": "c"}).json()["campaign_id"]
    bid = {"campaign_id": campaign, "product_ids": ["p1"], "bid_micros": 90_001}
    assert world.call("POST", "/v1/bids", bid).status_code == 201
    world.publish()
    return world


def fill(world: World, **more: Any) -> Any:
    body = {
        "visitor_id": "ana", "consent": {"personalised": True}, "page": {"type": "category", "category_id": "Shoes"},
        "placements": [{"placement_id": "top"}], "tmax_ms": 10_000, **more,
    }  # fmt: skip
    answer = world.call("POST", "/v1/fills", body, role="retailer")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_is_ready_only_when_everything_is_there(world: World) -> None:
    assert world.client.get("/healthz").status_code == 200
    answer = world.client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "snapshot" in answer.json()["detail"]
    assert "Retry-After" in answer.headers
    body = {"page": {"type": "home"}, "placements": [{"placement_id": "x"}]}
    assert world.call("POST", "/v1/fills", body, role="retailer").json()["code"] == "not_ready"
    world.wait_started()
    world.publish()
    assert world.client.get("/readyz").status_code == 200


def test_a_published_bid_is_filled_billed_and_explained(shop: World) -> None:
    answer = fill(shop)
    given = answer["placements"][0]["fills"][0]
    assert (given["product_id"], given["advertiser_id"]) == ("p1", "acme")
    click = {"event_id": "e1", "type": "click", "beacon_token": given["beacon_token"]}
    done = shop.call("POST", "/v1/events", {"events": [click]}, role="retailer").json()["results"][0]
    assert (done["result"], done["amount_micros"]) == ("accepted", given["clearing_price_micros"])
    receipt = shop.call("GET", f"/v1/auctions/{answer['auction_id']}", role="advertiser")
    assert (receipt.status_code, receipt.json()["seen_by"]) == (200, "advertiser")
    foreign = shop.call("GET", f"/v1/auctions/{answer['auction_id']}", role="advertiser", tenants=["brio"])
    unknown = shop.call("GET", "/v1/auctions/auc_x", role="advertiser", tenants=["brio"])
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text.replace(answer["auction_id"], "ID") == unknown.text.replace("auc_x", "ID")


def test_each_placement_bills_by_its_own_rule_and_a_page_is_filled_in_one_way(shop: World) -> None:
    product = {
        "title": "Sock", "link": "https://shop.example/p2", "price_micros": 1_000_000, "brand": "Acme",
        "product_type": "Shoes", "advertiser_ids": ["acme"],
    }  # fmt: skip
    shop.call("PUT", "/v1/products/p2", product, role="merchant")
    campaign = shop.call("GET", "/v1/campaigns").json()["items"][0]["campaign_id"]
    bid = {"campaign_id": campaign, "product_ids": ["p2"], "bid_micros": 80_003}
    assert shop.call("POST", "/v1/bids", bid).status_code == 201
    both = [{"placement_id": "top"}, {"placement_id": "side"}]

    def put(name: str, **changes: Any) -> None:
        answer = shop.call("PUT", f"/v1/placements/{name}", PLACEMENT | changes, role="merchant")
        assert answer.status_code in (200, 201), answer.text
        shop.publish()

    put("side", pricing="first")
    places = fill(shop, placements=both)["placements"]
    assert [one["fills"][0]["clearing_price_micros"] for one in places] == [50_021, 80_003]
    put("side", pricing="vcg")
    answer = fill(shop, placements=both)
    assert [one["fills"][0]["clearing_price_micros"] for one in answer["placements"]] == [50_021, 50_021]
    put("side", allocation="exact")
    asked = {"page": {"type": "category", "category_id": "Shoes"}, "placements": both}
    refused = shop.call("POST", "/v1/fills", asked, role="retailer")
    assert (refused.status_code, refused.json()["code"]) == (422, "allocation_mixed")
    assert refused.json()["pointer"] == "/placements/1/placement_id"
    put("top", allocation="exact")
    answer = fill(shop, placements=both)
    receipt = shop.call("GET", f"/v1/auctions/{answer['auction_id']}", role="retailer").json()
    assert receipt["allocation"] == "exact"


def test_money_spent_is_known_to_the_auction_at_once(shop: World) -> None:
    total = 0
    for number in range(40):
        fills = fill(shop)["placements"][0]["fills"]
        if not fills or not fills[0]["is_sponsored"]:
            break
        event = {"event_id": f"e{number}", "type": "click", "beacon_token": fills[0]["beacon_token"]}
        done = shop.call("POST", "/v1/events", {"events": [event]}, role="retailer").json()["results"][0]
        total += done["amount_micros"]
    assert total <= 1_000_003
    assert number < 39


def test_a_stock_of_nothing_is_not_filled_after_the_next_snapshot(shop: World) -> None:
    changes = {"changes": [{"product_id": "p1", "availability": "out_of_stock"}]}
    assert shop.call("POST", "/v1/products:batch", changes, role="retailer").status_code == 200
    shop.publish()
    assert fill(shop)["placements"][0]["fills"] == []


def test_a_click_leads_to_the_catalogues_link_only(shop: World) -> None:
    token = fill(shop)["placements"][0]["fills"][0]["beacon_token"]
    answer = shop.client.get(f"/v1/click/{token}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, "https://shop.example/p1")
    assert "no-store" in answer.headers["cache-control"]
    assert shop.client.get("/v1/click/forged", follow_redirects=False).status_code == 404


def test_browsers_of_any_origin_may_send_events_and_of_ones_own_navigation(shop: World) -> None:
    origin = {"Origin": "https://elsewhere.example"}
    events = shop.client.post("/v1/events", json={"events": []}, headers=origin)
    assert (events.status_code, events.headers["access-control-allow-origin"]) == (200, "*")
    text = shop.client.post("/v1/events", content=b'{"events":[]}', headers={"Content-Type": "text/plain", **origin})
    assert text.status_code == 200
    asked = shop.client.options("/v1/navigation", headers={**origin, "Access-Control-Request-Method": "POST"})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
    assert "Authorization" in asked.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in shop.client.options("/v1/campaigns", headers=origin).headers

    event = {"visitor_id": "ana", "action": "view_item", "product_id": "p1", "occurred_at": MOMENT}
    sent = shop.call("POST", "/v1/navigation", {"events": [event]}, role="site")
    assert (sent.status_code, sent.headers["access-control-allow-origin"]) == (202, "*")
    stolen = shop.call("POST", "/v1/navigation", {"events": [event]}, role="site", headers=origin)
    assert (stolen.status_code, stolen.json()["code"]) == (403, "origin_not_allowed")
    assert stolen.headers["access-control-allow-origin"] == "*"
    assert ORIGIN not in stolen.headers.values()


def test_a_profile_another_process_wrote_is_taken_up(shop: World) -> None:
    pseudonym = shop.serving.visitors.pseudonym("ana")
    shop.wait_started()
    shop.database.transact(
        lambda connection: put_profile(connection, RETAILER, pseudonym, ProfileDraft(segments=["vip"]), NOW_MS)
    )
    shop.portal.call(shop.serving.tick)
    assert shop.call("GET", "/v1/profiles/ana", role="crm").json()["segments"] == ["vip"]


def test_erasing_a_visitor_leaves_nothing_under_their_key_and_the_books_as_they_were(shop: World) -> None:
    token = fill(shop)["placements"][0]["fills"][0]["beacon_token"]
    click = {"event_id": "e1", "type": "click", "beacon_token": token}
    shop.call("POST", "/v1/events", {"events": [click]}, role="retailer")
    line = {"product_id": "p1", "quantity": 1, "unit_price_micros": 5}
    order = {"order_id": "o1", "visitor_id": "ana", "occurred_at": MOMENT, "lines": [line]}
    assert shop.call("POST", "/v1/orders", {"orders": [order]}, role="retailer").status_code == 200

    def kept(connection: sa.Connection) -> tuple[int, int, int]:
        touches = connection.execute(sa.select(sa.func.count()).select_from(ledger_store.touches)).scalar_one()
        named = sa.select(sa.func.count()).where(ledger_store.orders.c.visitor.is_not(None))
        events = connection.execute(sa.select(sa.func.count()).select_from(ledger_store.events)).scalar_one()
        return touches, connection.execute(named).scalar_one(), events

    assert shop.read(kept) == (1, 1, 1)
    assert shop.call("DELETE", "/v1/visitors/ana", role="crm").status_code == 204
    assert shop.read(kept) == (0, 0, 1)
    assert shop.call("GET", "/v1/profiles/ana", role="crm").status_code == 404


def test_paid_fills_pause_while_events_cannot_be_written(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop.serving.intake, "unwritable_s", lambda: 60.0)
    shop.portal.call(shop.serving.tick)
    assert [one["is_sponsored"] for one in fill(shop)["placements"][0]["fills"]] in ([], [False])
    monkeypatch.undo()
    shop.portal.call(shop.serving.tick)
    assert fill(shop)["placements"][0]["fills"][0]["is_sponsored"]


def test_without_a_writer_events_are_to_be_sent_again(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise LedgerUnavailable("writer_gone", "the ledger's writer is not there yet")

    monkeypatch.setattr(shop.serving.intake, "_there", gone)
    event = {"event_id": "e", "type": "click", "beacon_token": "x"}
    answer = shop.client.post("/v1/events", json={"events": [event]})
    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert "retry-after" in answer.headers


def test_a_saved_audience_tells_no_number_under_fifty(shop: World) -> None:
    body = {"name": "a", "audience": {"lifecycle": ["prospect", "new", "active", "lapsing", "lost"]}}
    assert shop.call("POST", "/v1/audiences", body).json()["visitor_count"] is None
    events = [
        {"visitor_id": f"v{number}", "action": "view_item", "product_id": "p1", "occurred_at": MOMENT}
        for number in range(60)
    ]
    assert shop.call("POST", "/v1/navigation", {"events": events}, role="retailer").status_code == 202
    made = shop.call("POST", "/v1/audiences", body)
    assert made.json()["visitor_count"] == 60


def put_profiles(shop: World, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        body = {"segments": ["vip"]}
        assert shop.call("PUT", f"/v1/profiles/w{number}", body, role="crm").status_code == 200


def test_an_audience_of_fifty_is_targeted_and_one_of_fewer_is_not(shop: World) -> None:
    put_profiles(shop, 49)
    bid = shop.call("GET", "/v1/bids").json()["items"][0]
    headers = {"If-Match": f'"{bid["change_seq"]}"'}
    change = {"audience": {"segment": "vip"}}
    assert shop.call("PATCH", f"/v1/bids/{bid['bid_id']}", change, headers=headers).status_code == 200
    shop.publish()
    assert fill(shop, visitor_id="w1")["placements"][0]["fills"] == []
    put_profiles(shop, 1, 49)
    ends = time.monotonic() + 20
    while not fill(shop, visitor_id="w1")["placements"][0]["fills"] and time.monotonic() < ends:
        time.sleep(0.1)  # the application counts about every second
    assert fill(shop, visitor_id="w1")["placements"][0]["fills"][0]["is_sponsored"]
    assert fill(shop, visitor_id="ana")["placements"][0]["fills"] == []


def test_a_saved_list_of_audiences_tells_the_number_of_each_and_a_bid_takes_one(shop: World) -> None:
    put_profiles(shop, 60)
    vip = {"name": "vip", "audience": {"segment": "vip"}}
    buyers = {"name": "buyers", "audience": {"lifecycle": ["new", "active"]}}
    made = shop.call("POST", "/v1/audiences", {"name": "l", "audience": {"list": [vip, buyers]}})
    assert made.status_code == 201, made.text
    assert made.json()["visitor_counts"] == {"vip": 60, "buyers": None, "other": None}
    assert made.json()["visitor_count"] is None
    seen = shop.call("POST", "/v1/audiences/preview", {"audience": {"any": [vip["audience"], buyers["audience"]]}})
    assert seen.json() == {"visitor_count": 60, "visitor_counts": None}
    bid = shop.call("GET", "/v1/bids").json()["items"][0]

    def change(audience: dict[str, Any]) -> Any:
        body = {"campaign_id": bid["campaign_id"], "product_ids": ["p1"], "bid_micros": 99_001, "audience": audience}
        return shop.call("POST", "/v1/bids", body)

    refused = change({"list": [vip, buyers]})
    assert (refused.status_code, refused.json()["code"]) == (422, "audience_incomplete")
    assert change({"list": [vip, buyers], "is": "vip"}).status_code == 201
    shop.publish()
    price = {"clearing_price_micros", "bid_id"}
    first, other = (fill(shop, visitor_id=one)["placements"][0]["fills"][0] for one in ("w1", "ana"))
    assert price <= first.keys()
    assert first["bid_id"] != bid["bid_id"] == other["bid_id"]


@pytest.mark.parametrize(
    ("audience", "code", "pointer"),
    [
        ({"segment": "HIV patients"}, "special_category", "/audience/segment"),
        ({"all": [{"lifecycle": ["prospect"]}, {"rfm": ["loyal"]}]}, "audience_contradictory", "/audience/all/1"),
        ({"score": "price_tier", "at_least": 9, "at_most": 8}, "audience_contradictory", "/audience"),
    ],
)
def test_who_cannot_be_targeted_is_refused_in_bids_and_saved_audiences(
    shop: World, audience: dict[str, Any], code: str, pointer: str
) -> None:
    campaign = shop.call("GET", "/v1/bids").json()["items"][0]["campaign_id"]
    bid = {"campaign_id": campaign, "product_ids": ["p1"], "bid_micros": 99_001, "audience": audience}
    saved = {"name": "x", "audience": audience}
    for path, body in (("/v1/bids", bid), ("/v1/audiences", saved), ("/v1/audiences/preview", {"audience": audience})):
        answer = shop.call("POST", path, body)
        assert (answer.status_code, answer.json()["code"], answer.json()["pointer"]) == (422, code, pointer)
    assert shop.call("PUT", "/v1/profiles/w1", {"segments": ["HIV patients"]}, role="crm").status_code == 422


def test_a_rule_for_a_special_category_is_refused_when_made_and_when_changed(shop: World) -> None:
    rule = {"name": "r", "effect": {"boost": 2.0}, "target": {"field": "is_own_brand", "equals": True}}
    scope = {"segments": ["vip", "HIV patients"]}
    made = shop.call("POST", "/v1/rules", rule, role="merchant")
    assert made.status_code == 201, made.text
    headers = {"If-Match": made.headers["ETag"]}
    for answer in (
        shop.call("POST", "/v1/rules", rule | {"scope": scope}, role="merchant"),
        shop.call("PATCH", f"/v1/rules/{made.json()['rule_id']}", {"scope": scope}, role="merchant", headers=headers),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "special_category")
        assert answer.json()["pointer"] == "/scope/segments/1"


def test_what_is_computed_beside_it_is_taken_up_and_goes_with_the_visitor(shop: World) -> None:
    pseudonym = shop.serving.visitors.pseudonym("ana")
    purchases = Purchases(order_count=2, first_at_ms=1, last_at_ms=NOW_MS - 100 * DAY_MS, amount_micros=30)
    computed = ComputedProfile(through_ms=NOW_MS, purchases=purchases, segments={"lifecycle": "lapsing"})
    entries = [SegmentEntry(pseudonym, "lifecycle:lapsing", origin, NOW_MS) for origin in ("", "lifecycle:active")]

    def keep(connection: sa.Connection) -> None:
        seen = store.begin_computation(connection, RETAILER)
        assert store.put_computed_profiles(connection, RETAILER, {pseudonym: computed}, entries, seen)
        store.finish_computation(connection, RETAILER, CustomerScale(promotion_share=0.25), NOW_MS)

    shop.database.transact(keep)
    shop.portal.call(shop.serving.tick)
    profile = shop.call("GET", "/v1/profiles/ana", role="crm").json()["computed"]
    assert (profile["lifecycle"], profile["order_count"]) == ("lapsing", 2)
    assert [(one["segment"], one["from_segment"]) for one in profile["entered"]] == [
        ("lifecycle:lapsing", None),
        ("lifecycle:lapsing", "lifecycle:active"),
    ]
    assert shop.serving.visitors.scale.promotion_share == 0.25
    assert shop.call("DELETE", "/v1/visitors/ana", role="retailer").status_code == 204
    assert shop.call("GET", "/v1/profiles/ana", role="crm").status_code == 404
    changes = shop.read(lambda connection: store.read_visitor_changes(connection, RETAILER, -1))
    assert (changes.computed, changes.entries) == ([], [])


def test_who_is_erased_while_changes_are_taken_over_does_not_come_back(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitors = shop.serving.visitors
    ana, bob = visitors.pseudonym("ana"), visitors.pseudonym("bob")
    shop.portal.call(shop.serving.tick)

    def keep(connection: sa.Connection) -> None:
        put_profile(connection, RETAILER, bob, ProfileDraft(segments=["vip"]), NOW_MS)
        computed = ComputedProfile(through_ms=NOW_MS, purchases=Purchases(order_count=2))
        store.put_computed_profiles(
            connection, RETAILER, {ana: computed}, [], store.begin_computation(connection, RETAILER)
        )

    shop.database.transact(keep)
    take_over = visitors.put_profiles

    def erase_meanwhile(profiles: Any) -> None:
        take_over(profiles)
        shop.database.transact(lambda connection: store.delete_visitor(connection, RETAILER, [ana]))
        visitors.forget([ana])

    with monkeypatch.context() as patch:
        patch.setattr(visitors, "put_profiles", erase_meanwhile)
        shop.portal.call(shop.serving.tick)
    assert visitors.record(ana) is None
    shop.portal.call(shop.serving.tick)
    assert visitors.record(ana) is None
    assert visitors.record(bob) is not None


def test_metrics_show_fills_events_and_problems(shop: World) -> None:
    fill(shop)
    shop.call("GET", "/v1/campaigns/cmp_x")
    text = shop.client.get("/metrics").text
    for line in (
        'fills_total{kind="sponsored"} 1.0',
        'problems_total{code="campaign_unknown"} 1.0',
        "snapshot_version",
    ):
        assert line in text, line


@pytest.mark.parametrize(
    ("mode", "statuses"), [("open", [200, 200, 200]), ("key", [401, 403, 200]), ("off", [404, 404, 404])]
)
def test_metrics_are_read_by_whom_the_setting_says(sqlite_database: Database, mode: str, statuses: list[int]) -> None:
    with world_over(sqlite_database, metrics=mode) as world:
        callers = [{}, world.headers("merchant"), world.headers("auditor")]
        assert [world.client.get("/metrics", headers=headers).status_code for headers in callers] == statuses


def test_a_product_keeps_its_place_among_prices_until_the_next_start() -> None:
    book = ProductBook()
    dear, cheap = (
        Product(product_id=name, product_type="A", price_micros=price) for name, price in (("a", 9), ("b", 1))
    )
    book.apply([dear, cheap], 1)
    assert (book.facts["a"].price_rank, book.link("a")) == (1.0, None)
    book.apply([Product(product_id="a", product_type="A", price_micros=2, link="https://x.example/a")], 2)
    assert (book.facts["a"].price_rank, book.facts["a"].price_micros) == (1.0, 2)
    assert (book.link("a"), book.change_seq) == ("https://x.example/a", 2)


def test_snapshots_share_a_binding_until_model_or_products_change() -> None:
    model = CurrentModel()

    def bound(*products: Product) -> BoundModel:
        return model([product.product_id for product in products], read_attributes(products))

    one, other = Product(product_id="a", product_type="A", brand="x"), Product(product_id="b", product_type="B")
    first = bound(one, other)
    assert bound(one, other) is first
    assert bound(other, one).product_ids == ["b", "a"]
    again = bound(one, other)
    moved = bound(msgspec.structs.replace(one, product_type="B"), other)
    assert moved is not again
    again = bound(one, other)
    assert bound(msgspec.structs.replace(one, brand="y"), other) is again  # brands are told apart, not named
    model.bind = lambda product_ids, attributes: neutral_model(product_ids)
    assert bound(one, other) is not again
