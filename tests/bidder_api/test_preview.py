"""A change of the rules is seen before it is published: same page, same visitor, before and after."""

from typing import Any

import pytest

from tests.bidder_api.world import World

PAGE = {"page": {"type": "category", "category_id": "Shoes"}, "placements": [{"placement_id": "shelf"}]}
PRODUCTS = ("boot", "clog", "slipper")


@pytest.fixture
def shop(world: World) -> World:
    for rank, product_id in enumerate(PRODUCTS):
        product = {
            "title": product_id.title(), "price_micros": 10_000_000, "product_type": "Shoes",
            "brand": product_id.title(), "relevance": 1.0 - rank / 10,
        }  # fmt: skip
        assert world.call("PUT", f"/v1/products/{product_id}", product, role="merchant").status_code == 201
    world.call("PUT", "/v1/placements/shelf", {"page_types": ["category"], "slot_count": 2}, role="merchant")
    world.publish()
    return world


def preview(world: World, **changes: Any) -> Any:
    answer = world.call("POST", "/v1/rules/preview", {**PAGE, **changes}, role="merchant")
    assert answer.status_code == 200, answer.text
    return answer.json()


def shown(page: Any) -> list[str]:
    return [tile["product_id"] for placement in page for tile in placement["tiles"]]


def test_without_a_change_the_page_stays_as_it_is(shop: World) -> None:
    answer = preview(shop)
    assert answer["before"] == answer["after"]
    assert len(shown(answer["before"])) == 2
    assert {tile["reason"] for tile in answer["before"][0]["tiles"]} == {"organic"}


def test_both_pages_are_ranked_by_what_clicks_have_taught(shop: World) -> None:
    server = shop.serving.slot_server
    first = shown(preview(shop)["before"])[0]
    for _ in range(500):
        server.counters.note_shown("shelf", first, 1, 10_000, 10_000)
    shop.portal.call(shop.serving.learn)
    answer = preview(shop)
    assert answer["before"] == answer["after"]
    assert first not in shown(answer["before"]), "shown five hundred times and never clicked"


def test_a_pin_is_seen_where_it_will_be_and_says_so(shop: World) -> None:
    rule = {"name": "Slippers first", "effect": {"pin": {"product_id": "slipper", "slot_position": 1}}}
    answer = preview(shop, rules=[rule])
    tile = answer["after"][0]["tiles"][0]
    assert (tile["product_id"], tile["reason"], tile["rule_ids"]) == ("slipper", "pinned", ["rules[0]"])
    assert "Slippers first" in tile["words"]
    assert shown(answer["before"]) == shown(preview(shop)["before"])


def test_what_is_kept_out_is_named_with_the_rule_that_does_it(shop: World) -> None:
    first = shown(preview(shop)["before"])[0]
    target = {"field": "product_id", "equals": first}
    rule = {"name": "Not this", "effect": {"exclude": True}, "target": target}
    answer = preview(shop, rules=[rule])
    assert first not in shown(answer["after"])
    gone = answer["after"][0]["gone"]
    assert [(one["product_id"], one["rule_ids"]) for one in gone] == [(first, ["rules[0]"])]
    assert "Not this" in gone[0]["words"]


def test_a_saved_draft_can_be_looked_at_and_a_live_rule_taken_away(shop: World) -> None:
    first = shown(preview(shop)["before"])[0]
    draft = {"name": "Out", "effect": {"exclude": True}, "target": {"field": "product_id", "equals": first}}
    made = shop.call("POST", "/v1/rules", draft, role="merchant")
    rule_id = made.json()["rule_id"]
    assert first not in shown(preview(shop, publish_rule_ids=[rule_id])["after"])
    shop.call(
        "PATCH", f"/v1/rules/{rule_id}", {"stage": "live"}, role="merchant", headers={"If-Match": made.headers["etag"]}
    )
    shop.publish()
    answer = preview(shop, withdraw_rule_ids=[rule_id])
    assert first not in shown(answer["before"])
    assert first in shown(answer["after"])


def test_a_rule_that_does_nothing_here_says_why(shop: World) -> None:
    pins = [
        {"name": "High", "effect": {"pin": {"product_id": "slipper", "slot_position": 1}}, "priority": 900},
        {"name": "Low", "effect": {"pin": {"product_id": "clog", "slot_position": 1}}},
        {"name": "Far", "effect": {"pin": {"product_id": "clog", "slot_position": 9}}},
    ]
    answer = preview(shop, rules=pins)
    assert [one["rule_id"] for one in answer["after"][0]["ignored"]] == ["rules[1]", "rules[2]"]
    assert answer["after"][0]["ignored"][0]["words"] == "another pin comes first in slot 1"
    assert "no slot 9" in answer["after"][0]["ignored"][1]["words"]
    shop.call("POST", "/v1/products:batch", {"changes": [{"product_id": "slipper", "stock": 0}]}, role="merchant")
    shop.publish()
    words = [one["words"] for one in preview(shop, rules=pins[:1])["after"][0]["ignored"]]
    assert words == ["product 'slipper' is out of stock"]


def test_what_a_required_target_keeps_out_names_the_rule(shop: World) -> None:
    rule = {"name": "Clogs", "effect": {"require": True}, "target": {"field": "product_id", "equals": "clog"}}
    answer = preview(shop, rules=[rule])
    assert shown(answer["after"]) == ["clog"]
    assert all(one["rule_ids"] == ["rules[0]"] for one in answer["after"][0]["gone"])


def test_the_order_in_which_rules_act_is_told(shop: World) -> None:
    order = preview(shop)["evaluation_order"]
    assert order[0].startswith("exclude and require")


def test_slots_kept_for_own_brand_are_told(shop: World) -> None:
    answer = preview(shop, rules=[{"name": "Ours", "effect": {"own_brand_min": 1}}])
    assert (answer["before"][0]["reserved_slot_count"], answer["after"][0]["reserved_slot_count"]) == (0, 1)
    assert len(shown(answer["after"])) == 1


def test_looking_changes_nothing(shop: World) -> None:
    before = shop.call("GET", "/v1/changes?page_size=200", role="auditor").json()
    preview(shop, rules=[{"name": "x", "effect": {"exclude": True}}])
    assert shop.call("GET", "/v1/changes?page_size=200", role="auditor").json() == before
    assert shop.call("GET", "/v1/rules", role="merchant").json()["items"] == []


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"publish_rule_ids": ["rul_x"]}, "rule_unknown", "/publish_rule_ids/0"),
        ({"withdraw_rule_ids": ["rul_x"]}, "rule_unknown", "/withdraw_rule_ids/0"),
        ({"rules": [{"name": "r", "effect": {}}]}, "effect_ambiguous", "/rules/0/effect"),
        ({"placements": [{"placement_id": "nowhere"}]}, "placement_unknown", "/placements/0/placement_id"),
    ],
)
def test_what_is_not_there_cannot_be_previewed(shop: World, changes: Any, code: str, pointer: str) -> None:
    answer = shop.call("POST", "/v1/rules/preview", {**PAGE, **changes}, role="merchant")
    assert (answer.json()["code"], answer.json()["pointer"]) == (code, pointer)


def test_rules_that_contradict_each_other_are_told_in_a_preview_and_when_saved(shop: World) -> None:
    first = {"name": "One", "effect": {"pin": {"product_id": "clog", "slot_position": 1}}, "stage": "live"}
    other = {"name": "Two", "effect": {"pin": {"product_id": "boot", "slot_position": 1}}}
    conflicts = preview(shop, rules=[first, other])["conflicts"]
    assert [(one["code"], one["rule_ids"]) for one in conflicts] == [("pins_on_one_slot", ["rules[0]", "rules[1]"])]
    assert preview(shop, rules=[first])["conflicts"] == []
    saved = shop.call("POST", "/v1/rules", first, role="merchant").json()
    assert saved["warnings"] == []
    draft = shop.call("POST", "/v1/rules", other, role="merchant").json()
    assert [(one["code"], one["rule_ids"]) for one in draft["warnings"]] == [
        ("pins_on_one_slot", [draft["rule_id"], saved["rule_id"]])
    ]
    read = shop.call("GET", f"/v1/rules/{draft['rule_id']}", role="merchant").json()
    assert read["warnings"] == draft["warnings"]
