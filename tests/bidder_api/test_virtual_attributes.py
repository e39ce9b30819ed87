"""Virtual attributes through the API: seen before they are kept, refused by name, and used by rules and pages."""

from typing import Any

import pytest

from tests.bidder_api.world import World

OIL = {"name": "is_oil", "matched": {"field": "title", "expression": "oil"}}
CHEAP = {"field": "price_micros", "at_most": 2}
PAGE = {"page": {"type": "home"}, "placements": [{"placement_id": "shelf"}], "mode": "merchandised"}


@pytest.fixture
def shop(world: World) -> World:
    for number, title in enumerate(("Olive oil", "Bread", "Engine oil"), 1):
        product = {"title": title, "price_micros": number, "attributes": {"colour": "red", "weight_g": number}}
        assert world.call("PUT", f"/v1/products/p{number}", product, role="merchant").status_code == 201
    world.call("PUT", "/v1/placements/shelf", {"page_types": ["home"], "slot_count": 3}, role="merchant")
    return world


def make(shop: World, body: Any) -> Any:
    return shop.call("POST", "/v1/virtual-attributes", body, role="merchant")


def shown(shop: World, **filters: Any) -> list[str]:
    shop.publish()
    page = {"type": "home", "filters": filters}
    answer = shop.call("POST", "/v1/fills", {**PAGE, "page": page}, role="retailer").json()
    return sorted(fill["product_id"] for fill in answer["placements"][0]["fills"])


def test_it_is_previewed_and_nothing_is_kept(shop: World) -> None:
    answer = shop.call("POST", "/v1/virtual-attributes/preview", OIL, role="merchant")
    assert answer.status_code == 200, answer.text
    assert answer.json()["type"] == "bool"
    assert [(one["product_id"], one["value"]) for one in answer.json()["products"]] == [
        ("p1", True), ("p2", False), ("p3", True),
    ]  # fmt: skip
    some = shop.call("POST", "/v1/virtual-attributes/preview", {**OIL, "product_ids": ["p2"]}, role="merchant")
    assert [one["title"] for one in some.json()["products"]] == ["Bread"]
    assert shop.call("GET", "/v1/virtual-attributes", role="merchant").json()["items"] == []


def test_rules_and_filters_use_it_and_it_stays_while_a_rule_does(shop: World) -> None:
    made = make(shop, OIL)
    assert (made.status_code, made.json()["type"]) == (201, "bool")
    assert shown(shop, is_oil=[True]) == ["p1", "p3"]
    target = {"field": "is_oil", "equals": True}
    body = {"name": "No oil", "effect": {"exclude": True}, "target": target, "stage": "live"}
    rule = shop.call("POST", "/v1/rules", body, role="merchant")
    assert rule.status_code == 201, rule.text
    assert shown(shop) == ["p2"]
    preview = {**PAGE, "withdraw_rule_ids": [rule.json()["rule_id"]]}
    pages = shop.call("POST", "/v1/rules/preview", preview, role="merchant").json()
    assert [len(pages[when][0]["tiles"]) for when in ("before", "after")] == [1, 3]
    again = {**PAGE, "rules": [body]}
    assert len(shop.call("POST", "/v1/rules/preview", again, role="merchant").json()["after"][0]["tiles"]) == 1
    kept = shop.call("DELETE", made.headers["location"], role="merchant")
    assert (kept.status_code, kept.json()["code"]) == (409, "virtual_attribute_in_use")
    shop.call("DELETE", rule.headers["location"], role="merchant")
    assert shop.call("DELETE", made.headers["location"], role="merchant").status_code == 204
    assert shown(shop, is_oil=[True]) == []
    assert make(shop, OIL).status_code == 201, "its name is free again"


def test_what_it_is_made_of_can_change_and_its_type_cannot(shop: World) -> None:
    made = make(shop, OIL)

    def change(body: Any) -> Any:
        etag = shop.call("GET", made.headers["location"], role="merchant").headers["etag"]
        return shop.call("PATCH", made.headers["location"], body, role="merchant", headers={"If-Match": etag})

    assert change({"matched": {"field": "title", "expression": "bread"}}).status_code == 200
    assert shown(shop, is_oil=[True]) == ["p2"]
    by_rule = {"matched": None, "derived": {"cases": [{"target": CHEAP, "value": True}], "otherwise": False}}
    assert change(by_rule).status_code == 200
    assert shown(shop, is_oil=[True]) == ["p1", "p2"]
    refused = change({"derived": {"cases": [{"target": CHEAP, "value": "yes"}]}})
    assert (refused.status_code, refused.json()["code"]) == (422, "type_fixed")
    assert change({"name": "other"}).json()["code"] == "field_unknown"


@pytest.mark.parametrize(
    ("changes", "status", "code", "pointer"),
    [
        ({"name": "Is Oil"}, 400, "field_out_of_range", "/name"),
        ({"name": "brand"}, 422, "name_taken", "/name"),
        ({"name": "colour"}, 422, "name_taken", "/name"),
        ({"matched": None}, 422, "virtual_attribute_ambiguous", ""),
        ({"derived": {"cases": [{"target": CHEAP, "value": 1}]}}, 422, "virtual_attribute_ambiguous", ""),
        ({"matched": {"field": "taste", "expression": "a"}}, 422, "field_unknown", "/matched/field"),
        ({"matched": {"field": "stock", "expression": "a"}}, 422, "field_type_differs", "/matched/field"),
        ({"matched": {"field": "weight_g", "expression": "a"}}, 422, "field_type_differs", "/matched/field"),
        ({"matched": {"field": "title", "expression": "(a)\\1"}}, 422, "expression_invalid", "/matched/expression"),
        ({"matched": {"field": "title", "expression": "(a)", "group": 2}}, 422, "group_unknown", "/matched/group"),
        ({"matched": {"field": "title", "expression": "a" * 501}}, 400, "field_out_of_range", "/matched/expression"),
        (
            {"matched": None, "derived": {"cases": [{"target": {"field": "is_oil", "equals": True}, "value": 1}]}},
            422,
            "field_unknown",
            "/derived/cases/0/target/field",
        ),
        (
            {"matched": None, "derived": {"cases": [{"target": CHEAP, "value": 1}], "otherwise": "none"}},
            422,
            "values_differ",
            "/derived",
        ),
    ],
)
def test_what_cannot_be_is_refused(shop: World, changes: Any, status: int, code: str, pointer: str) -> None:
    for path in ("/v1/virtual-attributes", "/v1/virtual-attributes/preview"):
        answer = shop.call("POST", path, OIL | changes, role="merchant")
        assert (answer.status_code, answer.json()["code"], answer.json()["pointer"]) == (status, code, pointer)


def test_a_name_is_used_once(shop: World) -> None:
    make(shop, OIL)
    again = make(shop, OIL)
    assert (again.status_code, again.json()["code"]) == (409, "name_in_use")


def test_a_bid_asks_for_it_and_for_nothing_that_is_the_merchants(shop: World) -> None:
    for number in (1, 2, 3):
        product = {"title": f"Oil {number}", "price_micros": number, "advertiser_ids": ["acme"]}
        shop.call("PUT", f"/v1/products/p{number}", product, role="merchant")
    make(shop, {"name": "is_cheap", "derived": {"cases": [{"target": CHEAP, "value": True}], "otherwise": False}})
    shop.call(
        "POST",
        "/v1/ledger/top-ups",
        {"advertiser_id": "acme", "amount_micros": 10**9, "reference": "x"},
        role="finance",
    )
    campaign = shop.call("POST", "/v1/campaigns", {"name": "All"}).json()
    body = {"campaign_id": campaign["campaign_id"], "product_ids": ["p1", "p2", "p3"], "bid_micros": 1_000_000}
    cheap = {"field": "is_cheap", "equals": True}
    made = shop.call("POST", "/v1/bids", body | {"product_target": cheap})
    assert (made.status_code, made.json()["product_target"]) == (201, cheap)
    for target, code in (
        ({"field": "margin_rate", "at_least": 0.5}, "field_not_allowed"),
        ({"not": {"any": [cheap, {"field": "stock", "at_most": 3}]}}, "field_not_allowed"),
        ({"field": "taste", "equals": "good"}, "field_unknown"),
        ({}, "target_ambiguous"),
    ):
        refused = shop.call("POST", "/v1/bids", body | {"product_target": target})
        assert (refused.status_code, refused.json()["code"]) == (422, code)
        assert refused.json()["pointer"].startswith("/product_target")
    shop.publish()
    shelf = {**PAGE, "mode": "sponsored"}
    answer = shop.call("POST", "/v1/fills", shelf, role="retailer").json()
    assert sorted(fill["product_id"] for fill in answer["placements"][0]["fills"]) == ["p1", "p2"]
