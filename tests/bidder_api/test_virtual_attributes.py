"""Virtual attributes through the API: seen before they are kept, refused by name, and used by rules and pages."""

from datetime import UTC, datetime
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


OIL_TARGET = {"field": "is_oil", "equals": True}
LOOKED_AT_OIL = {
    "within": "session",
    "steps": [{"action": "view_item", "at_least": 2, "product_target": OIL_TARGET}],
    "without": [{"action": "purchase", "product_target": OIL_TARGET}],
}


class TestNavigationPatterns:
    @pytest.fixture
    def market(self, shop: World) -> World:
        """A shop in which acme has money, a product and a campaign, and the merchant an attribute."""
        bread = {"title": "Bread", "price_micros": 2, "advertiser_ids": ["acme"]}
        shop.call("PUT", "/v1/products/p2", bread, role="merchant")
        assert make(shop, OIL).status_code == 201
        top_up = {"advertiser_id": "acme", "amount_micros": 10**9, "reference": "x"}
        shop.call("POST", "/v1/ledger/top-ups", top_up, role="finance")
        shop.wait_started()
        return shop

    def bid(self, market: World, pattern: Any, **more: Any) -> Any:
        campaign = market.call("POST", "/v1/campaigns", {"name": "All"}).json()
        body = {"campaign_id": campaign["campaign_id"], "product_ids": ["p2"], "bid_micros": 1_000_000}
        return market.call("POST", "/v1/bids", body | {"navigation_pattern": pattern} | more)

    def save(self, market: World, pattern: Any = LOOKED_AT_OIL) -> Any:
        return market.call("POST", "/v1/navigation-patterns", {"name": "Oil", "navigation_pattern": pattern})

    def look(self, market: World, visitor_id: str, *product_ids: str, action: str = "view_item") -> None:
        occurred_at = datetime.fromtimestamp(market.clock.now_ms / 1000, UTC).isoformat()
        events = [
            {"visitor_id": visitor_id, "action": action, "product_id": product_id, "occurred_at": occurred_at}
            for product_id in product_ids
        ]
        body = {"consent": {"personalised": True}, "events": events}
        assert market.call("POST", "/v1/navigation", body, role="retailer").status_code == 202

    def paid(self, market: World, visitor_id: str) -> list[str]:
        page = PAGE | {"mode": "sponsored", "visitor_id": visitor_id, "consent": {"personalised": True}}
        answer = market.call("POST", "/v1/fills", page, role="retailer").json()
        return [fill["product_id"] for fill in answer["placements"][0]["fills"]]

    def test_the_place_is_paid_only_for_who_looked_at_products_of_the_attribute(self, market: World) -> None:
        made = self.bid(market, LOOKED_AT_OIL)
        assert (made.status_code, made.json()["navigation_pattern"]) == (201, LOOKED_AT_OIL)
        market.publish()
        self.look(market, "oily", "p1", "p3")
        self.look(market, "half", "p1", "p2")
        self.look(market, "lost", "p1", "gone")
        self.look(market, "done", "p1", "p3")
        self.look(market, "done", "p1", action="purchase")
        self.look(market, "fed", "p1", "p3")
        self.look(market, "fed", "p2", action="purchase")
        found = {name: self.paid(market, name) for name in ("oily", "half", "lost", "done", "fed", "new")}
        assert found == {"oily": ["p2"], "half": [], "lost": [], "done": [], "fed": ["p2"], "new": []}

    def test_what_was_done_counts_by_what_the_attribute_and_its_products_are_now(self, market: World) -> None:
        self.bid(market, LOOKED_AT_OIL)
        market.publish()
        self.look(market, "oily", "p1", "p3")
        self.look(market, "baker", "p2", "p2")
        assert (self.paid(market, "oily"), self.paid(market, "baker")) == (["p2"], [])
        [attribute] = market.call("GET", "/v1/virtual-attributes", role="merchant").json()["items"]
        path = f"/v1/virtual-attributes/{attribute['virtual_attribute_id']}"
        changed = market.call(
            "PATCH",
            path,
            {"matched": {"field": "title", "expression": "bread"}},
            role="merchant",
            headers={"If-Match": f'"{attribute["change_seq"]}"'},
        )
        assert changed.status_code == 200
        market.publish()
        assert (self.paid(market, "oily"), self.paid(market, "baker")) == ([], ["p2"])
        for product_id in ("p1", "p3"):
            market.call("PUT", f"/v1/products/{product_id}", {"title": "Flatbread", "price_micros": 1}, role="merchant")
        market.publish()
        assert (self.paid(market, "oily"), self.paid(market, "baker")) == (["p2"], ["p2"])

    def test_attributes_of_the_feed_and_trees_of_them_do_as_well(self, market: World) -> None:
        target = {"all": [{"field": "colour", "equals": "red"}, {"not": {"field": "weight_g", "at_least": 2}}]}
        assert self.bid(market, {"within": 60, "steps": [{"action": "view_item", "product_target": target}]})
        market.publish()
        self.look(market, "light", "p1")
        self.look(market, "heavy", "p3")
        assert (self.paid(market, "light"), self.paid(market, "heavy")) == (["p2"], [])

    @pytest.mark.parametrize(
        ("target", "code", "pointer", "detail"),
        [
            ({"field": "taste", "equals": 1}, "field_unknown", "/field", "no product has a field 'taste'"),
            ({"any": [OIL_TARGET, {}]}, "target_ambiguous", "/any/1", "a node is one of all, any, not, field"),
            ({"not": {"field": "margin_rate", "at_least": 0.2}}, "field_not_allowed", "", "margin_rate is the merch"),
            ({"field": "is_oil", "at_least": 1}, "field_type_differs", "/at_least", "is_oil is not a number"),
        ],
    )
    def test_what_no_product_says_is_refused_where_it_stands(
        self, market: World, target: Any, code: str, pointer: str, detail: str
    ) -> None:
        step = {"action": "view_item", "product_target": target}
        for place, pattern in (
            ("steps/1", {"within": 60, "steps": [{"action": "search"}, step]}),
            ("without/0", {"within": 60, "steps": [{"action": "search"}], "without": [step]}),
        ):
            for refused in (self.save(market, pattern), self.bid(market, pattern)):
                said = refused.json()
                at = f"/navigation_pattern/{place}/product_target{pointer}"
                assert (refused.status_code, said["code"], said["pointer"]) == (422, code, at)
                assert said["detail"].startswith(detail)

    def test_a_step_every_event_of_which_is_forbidden_is_refused(self, market: World) -> None:
        look = LOOKED_AT_OIL["steps"]
        refused = self.save(
            market, LOOKED_AT_OIL | {"without": [{"action": "view_item", "product_target": OIL_TARGET}]}
        )
        assert (refused.status_code, refused.json()["code"]) == (422, "pattern_unsatisfiable")
        other = {"action": "view_item", "product_target": {"field": "is_oil", "equals": False}}
        assert self.save(market, {"within": 60, "steps": look, "without": [other]}).status_code == 201

    def test_an_attribute_stays_while_a_pattern_or_a_bid_asks_for_it(self, market: World) -> None:
        [attribute] = market.call("GET", "/v1/virtual-attributes", role="merchant").json()["items"]
        path = f"/v1/virtual-attributes/{attribute['virtual_attribute_id']}"
        saved = self.save(market)
        with_pattern = self.bid(market, LOOKED_AT_OIL)
        market.clock.now_ms += 1  # bids are looked through in the order they were made
        with_target = self.bid(market, None, product_target={"not": OIL_TARGET})
        without = self.bid(market, {"within": 60, "steps": [{"action": "search", "query_contains": "is_oil"}]})
        assert without.status_code == 201
        for asking, words in (
            (saved, f"navigation pattern {saved.json()['pattern_id']} (Oil) of acme"),
            (with_pattern, f"the navigation pattern of bid {with_pattern.json()['bid_id']} of acme"),
            (with_target, f"bid {with_target.json()['bid_id']} of acme"),
        ):
            kept = market.call("DELETE", path, role="merchant")
            assert (kept.status_code, kept.json()["code"]) == (409, "virtual_attribute_in_use")
            assert kept.json()["detail"] == f"{words} asks for is_oil: archive it first"
            assert market.call("DELETE", asking.headers["location"]).status_code == 204
        assert market.call("DELETE", path, role="merchant").status_code == 204

    def test_bids_of_an_archived_campaign_keep_no_attribute(self, market: World) -> None:
        [attribute] = market.call("GET", "/v1/virtual-attributes", role="merchant").json()["items"]
        path = f"/v1/virtual-attributes/{attribute['virtual_attribute_id']}"
        made = self.bid(market, LOOKED_AT_OIL).json()
        assert market.call("DELETE", path, role="merchant").status_code == 409
        assert market.call("DELETE", f"/v1/campaigns/{made['campaign_id']}").status_code == 204
        assert market.call("DELETE", path, role="merchant").status_code == 204

    def test_a_pattern_is_explained_and_counted_by_what_products_are_now(self, market: World) -> None:
        for number in range(60):
            self.look(market, f"v{number}", "p1", "p3" if number < 55 else "p2")
        pattern = self.save(market).json()
        assert pattern["visitor_count"] == 50, "fifty-five, rounded down; no bid has the pattern yet"
        self.bid(market, LOOKED_AT_OIL)
        market.publish()
        again = market.call("GET", f"/v1/navigation-patterns/{pattern['pattern_id']}")
        assert again.json()["visitor_count"] == 50

        def told(visitor_id: str) -> Any:
            path = f"/v1/navigation-patterns/{pattern['pattern_id']}/explain"
            return market.call("GET", path, role="merchant", params={"visitor_id": visitor_id}).json()

        assert told("v1")["holds"] is True
        assert (told("v57")["status"], told("v57")["steps"][0]["done_count"]) == ("begun", 1)
        assert told("v57")["explanation"] == "Missing next: step 1, 1 more, of a product where is_oil is true."
