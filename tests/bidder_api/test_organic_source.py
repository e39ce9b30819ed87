"""Where a placement's organic products come from, as the shop sees it: events go in, fills come out."""

from datetime import UTC, datetime
from typing import Any

import pytest

from affinity.signals import Signals
from affinity.store import next_change_seq, put_signals
from tests.bidder_api.world import RETAILER, World

CONSENT = {"personalised": True}
SOURCES = ("affinity", "recently_viewed", "cart", "complements", "best_sellers", "caller")
PRODUCTS = ("boot", "clog", "hat", "lace", "polish", "slipper")


def shelf(world: World, organic_source: str, **changes: Any) -> Any:
    body = {"page_types": ["home", "product", "search", "category"], "slot_count": 4, "organic_source": organic_source}
    answer = world.call("PUT", "/v1/placements/shelf", body | changes, role="merchant")
    assert answer.status_code in (200, 201), answer.text
    world.publish()
    return answer.json()


@pytest.fixture
def shop(world: World) -> World:
    for name in PRODUCTS:
        product = {
            "title": name.title(), "price_micros": 10_000_000, "brand": name, "advertiser_ids": ["acme"],
            "product_type": "Hats" if name == "hat" else "Shoes > Care" if name in ("lace", "polish") else "Shoes",
        }  # fmt: skip
        assert world.call("PUT", f"/v1/products/{name}", product, role="merchant").status_code == 201
    signals = Signals(
        computed_at_ms=0, from_ms=0, until_ms=0, best_sellers=["polish", "hat", "boot"], category_trends={},
        bought_together=[("boot", "polish", 9.0), ("clog", "lace", 8.0), ("boot", "lace", 3.0)],
    )  # fmt: skip
    world.database.transact(
        lambda connection: put_signals(connection, RETAILER, signals, next_change_seq(connection, RETAILER))
    )
    return world


def did(world: World, *done: str, visitor_id: str = "ana", consent: Any = CONSENT) -> None:
    """Report what a visitor did, a second apart: "view_item boot", "add_to_cart lace 2"."""
    events = []
    for text in done:
        action, product_id, *quantity = text.split()
        world.clock.now_ms += 1_000
        at = datetime.fromtimestamp(world.clock.now_ms / 1000, UTC).isoformat()
        event = {"visitor_id": visitor_id, "action": action, "product_id": product_id, "occurred_at": at}
        events.append(event | ({"quantity": int(quantity[0])} if quantity else {}))
    answer = world.call("POST", "/v1/navigation", {"events": events, "consent": consent}, role="retailer")
    assert answer.status_code == 202, answer.text


def ask(world: World, page: Any = None, visitor_id: str | None = "ana", consent: Any = CONSENT, **more: Any) -> Any:
    body = {
        "page": page or {"type": "home"}, "placements": [{"placement_id": "shelf"}], "mode": "merchandised",
        "visitor_id": visitor_id, "consent": consent, "tmax_ms": 10_000, **more,
    }  # fmt: skip
    answer = world.call("POST", "/v1/fills", body, role="retailer")
    assert answer.status_code == 200, answer.text
    return answer.json()


def shown(world: World, *asked: Any, **more: Any) -> list[str]:
    [place] = ask(world, *asked, **more)["placements"]
    assert place["fills"] or place["no_fill_reason"] == "organic_source_empty"
    return [fill["product_id"] for fill in place["fills"]]


def test_a_placement_says_its_source_and_affinity_where_it_was_told_none(shop: World) -> None:
    for source in SOURCES:
        assert shelf(shop, source)["organic_source"] == source
        assert shop.call("GET", "/v1/placements/shelf", role="merchant").json()["organic_source"] == source
    body = {"page_types": ["home"], "slot_count": 1}
    assert shop.call("PUT", "/v1/placements/plain", body, role="merchant").json()["organic_source"] == "affinity"
    refused = shop.call("PUT", "/v1/placements/plain", body | {"organic_source": "magic"}, role="merchant")
    assert (refused.status_code, refused.json()["pointer"]) == (400, "/organic_source")


def test_what_was_viewed_is_shown_until_it_is_bought_or_dismissed(shop: World) -> None:
    shelf(shop, "recently_viewed")
    assert shown(shop) == []
    did(shop, "view_item boot", "view_item hat", "view_item clog", "view_item boot")
    assert shown(shop) == ["boot", "clog", "hat"]
    assert shown(shop, {"type": "product", "product_id": "clog"}) == ["boot", "hat"]
    did(shop, "purchase boot")
    assert shown(shop) == ["clog", "hat"]
    did(shop, "dismiss hat")
    assert shown(shop) == ["clog"]
    did(shop, "view_item boot")
    assert shown(shop) == ["boot", "clog"]
    assert shown(shop, visitor_id="bob") == []


def test_an_order_reported_by_the_shop_counts_as_bought_too(shop: World) -> None:
    shelf(shop, "recently_viewed")
    did(shop, "view_item boot", "view_item hat", "add_to_cart hat", "add_to_cart lace")
    at = datetime.fromtimestamp(shop.clock.now_ms / 1000 + 1, UTC).isoformat()
    order = {
        "order_id": "o1", "visitor_id": "ana", "occurred_at": at, "channel": "web",
        "lines": [{"product_id": "hat", "quantity": 1, "unit_price_micros": 1}],
    }  # fmt: skip
    shop.clock.now_ms += 2_000
    assert shop.call("POST", "/v1/orders", {"orders": [order]}, role="retailer").status_code == 200
    assert shown(shop) == ["boot"]
    shelf(shop, "cart")
    assert shown(shop) == []


def test_the_cart_is_what_was_put_in_less_what_was_taken_out(shop: World) -> None:
    shelf(shop, "cart")
    did(shop, "view_item slipper", "add_to_cart boot", "add_to_cart lace 2", "add_to_cart hat", "remove_from_cart hat")
    assert shown(shop) == ["lace", "boot"]
    did(shop, "remove_from_cart lace")
    assert shown(shop) == ["lace", "boot"]
    did(shop, "remove_from_cart lace")
    assert shown(shop) == ["boot"]
    did(shop, "purchase boot", "add_to_cart clog")
    assert shown(shop) == ["clog"]


def test_complements_go_with_the_cart_else_with_the_page_s_product(shop: World) -> None:
    shelf(shop, "complements")
    boot_page = {"type": "product", "product_id": "boot"}
    assert shown(shop) == []
    assert shown(shop, boot_page) == shown(shop, boot_page, visitor_id=None, consent=None) == ["polish", "lace"]
    did(shop, "add_to_cart clog")
    assert shown(shop) == shown(shop, boot_page) == ["lace"]
    did(shop, "add_to_cart boot", "add_to_cart polish")
    assert shown(shop) == ["lace"], "the polish is in the cart already"
    did(shop, "purchase boot")
    assert shown(shop, boot_page) == ["polish", "lace"]


def test_best_sellers_are_those_of_the_page_for_everybody(shop: World) -> None:
    shelf(shop, "best_sellers")
    did(shop, "view_item slipper", "view_item boot")
    for who in ("ana", None):
        assert shown(shop, visitor_id=who) == ["polish", "hat", "boot"]
        assert shown(shop, {"type": "category", "category_id": "Shoes"}, visitor_id=who) == ["polish", "boot"]
        assert shown(shop, {"type": "search", "query": "hat"}, visitor_id=who) == ["hat"]
    assert shown(shop, {"type": "home", "filters": {"category_id": ["Hats"]}}) == ["hat"]
    shop.call("POST", "/v1/products:batch", {"changes": [{"product_id": "polish", "stock": 0}]}, role="merchant")
    shop.publish()
    assert shown(shop) == ["hat", "boot"]


def test_a_caller_s_list_is_the_only_one_looked_at(shop: World) -> None:
    did(shop, "view_item boot", "add_to_cart boot")
    for source in SOURCES:
        shelf(shop, source)
        asked = [{"placement_id": "shelf", "candidates": [{"product_id": "hat", "organic_rank": 1}]}]
        assert shown(shop, placements=asked) == ["hat"]
    shelf(shop, "caller")
    assert shown(shop) == []


def test_without_consent_and_once_it_is_withdrawn_there_is_nothing_of_the_visitor(shop: World) -> None:
    for source in ("recently_viewed", "cart"):
        shelf(shop, source)
        did(shop, "view_item boot", "add_to_cart boot")
        assert shown(shop) == ["boot"]
        assert shown(shop, visitor_id=None) == []
        assert shown(shop, consent={"personalised": False}) == [], "which withdraws what was given"
        assert shown(shop) == [], "and what was kept is gone"


def test_events_the_caller_sends_along_count(shop: World) -> None:
    shelf(shop, "recently_viewed")
    at = datetime.fromtimestamp(shop.clock.now_ms / 1000, UTC).isoformat()
    sent = [{"visitor_id": "x", "action": "view_item", "product_id": "hat", "occurred_at": at}]
    assert shown(shop, navigation=sent) == ["hat"]
    assert shown(shop) == []


def test_a_source_asked_for_later_finds_what_was_done_before(shop: World) -> None:
    shelf(shop, "affinity")
    did(shop, "view_item boot", "view_item hat")
    assert len(shown(shop)) == 4
    shelf(shop, "recently_viewed")
    assert shown(shop) == ["hat", "boot"]


def test_paid_fills_compete_as_always_and_the_receipt_says_where_the_others_are_from(shop: World) -> None:
    top_up = {"advertiser_id": "acme", "amount_micros": 100_000_000, "reference": "r"}
    assert shop.call("POST", "/v1/ledger/top-ups", top_up, role="finance").status_code == 201
    campaign = shop.call("POST", "/v1/campaigns", {"name": "c"}).json()["campaign_id"]
    bid = {"campaign_id": campaign, "product_ids": ["slipper"], "bid_micros": 9_000_000}
    assert shop.call("POST", "/v1/bids", bid).status_code == 201
    shelf(shop, "recently_viewed")
    did(shop, "view_item boot")
    answer = ask(shop)
    fills = answer["placements"][0]["fills"]
    assert [(fill["product_id"], fill["is_sponsored"]) for fill in fills] == [("slipper", True), ("boot", False)]
    receipt = shop.call("GET", f"/v1/auctions/{answer['auction_id']}", role="retailer").json()["placements"][0]
    assert receipt["organic_source"] == "recently_viewed"
    organic = [one for one in receipt["candidates"] if not one["is_sponsored"]]
    assert [(one["product_id"], one["value_micros"]) for one in organic] == [("boot", 20_000)]
    body = {"page": {"type": "home"}, "placements": [{"placement_id": "shelf"}], "visitor_id": "ana"}
    for mode, reasons in (("merchandised", ["won", "organic"]), ("sponsored", ["won"])):
        answer = shop.call("POST", "/v1/rules/preview", body | {"mode": mode}, role="merchant")
        assert [one["reason"] for one in answer.json()["before"][0]["tiles"]] == reasons
    answer = ask(shop, mode="sponsored")
    receipt = shop.call("GET", f"/v1/auctions/{answer['auction_id']}", role="retailer").json()["placements"][0]
    assert receipt["organic_source"] is None
    theirs = shop.call("GET", f"/v1/auctions/{answer['auction_id']}", role="advertiser").json()["placements"][0]
    assert "organic_source" not in theirs


def test_a_preview_shows_the_visitor_s_own_and_why_each_is_there(shop: World) -> None:
    shelf(shop, "recently_viewed")
    did(shop, "view_item boot", "view_item hat", "view_item clog")
    exclude = {
        "name": "No hats", "effect": {"exclude": True}, "target": {"field": "product_id", "equals": "hat"},
    }  # fmt: skip
    body = {
        "page": {"type": "home"},
        "placements": [{"placement_id": "shelf"}],
        "visitor_id": "ana",
        "rules": [exclude],
    }

    def preview(**changes: Any) -> Any:
        answer = shop.call("POST", "/v1/rules/preview", body | changes, role="merchant")
        assert answer.status_code == 200, answer.text
        return answer.json()

    before, after = [
        [(one["product_id"], one["words"]) for one in preview()[page][0]["tiles"]] for page in ("before", "after")
    ]
    assert before == [
        ("clog", "number 1 of what the visitor viewed last"),
        ("hat", "number 2 of what the visitor viewed last"),
        ("boot", "number 3 of what the visitor viewed last"),
    ]
    assert after == [before[0], before[2]]
    assert [one["product_id"] for one in preview()["after"][0]["gone"]] == ["hat"]
    nobody = preview(visitor_id=None)["before"][0]
    assert (nobody["tiles"], nobody["no_fill_reason"]) == ([], "organic_source_empty")
    pin = {"name": "Lace first", "effect": {"pin": {"product_id": "lace", "slot_position": 1}}}
    pinned = preview(rules=[pin])["after"][0]["tiles"]
    assert [one["product_id"] for one in pinned] == ["lace", "clog", "hat", "boot"]
    assert [one["reason"] for one in pinned] == ["pinned", "organic", "organic", "organic"]
    shelf(shop, "best_sellers")
    first = preview()["before"][0]["tiles"][0]
    assert first["words"] == "number 1 of the best-sellers of the page's context"


def test_a_rule_acts_on_a_source_as_on_a_list_of_the_caller(shop: World) -> None:
    shelf(shop, "cart")
    did(shop, "add_to_cart boot", "add_to_cart hat", "add_to_cart clog")
    assert shown(shop) == ["clog", "hat", "boot"]
    made = shop.call("POST", "/v1/rules", {
        "name": "Boots", "effect": {"boost": 1.5}, "target": {"field": "product_id", "equals": "boot"}, "stage": "live",
    }, role="merchant")  # fmt: skip
    assert made.status_code == 201, made.text
    shop.publish()
    assert shown(shop) == ["boot", "clog", "hat"]
    assert shown(shop, rules="off") == ["clog", "hat", "boot"]


def test_an_erased_visitor_has_nothing_to_be_shown(shop: World) -> None:
    shelf(shop, "recently_viewed")
    did(shop, "view_item boot")
    assert shown(shop) == ["boot"]
    assert shop.call("DELETE", "/v1/visitors/ana", role="retailer").status_code in (200, 202, 204)
    assert shown(shop) == []
