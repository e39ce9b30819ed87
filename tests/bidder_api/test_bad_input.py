"""Bad input to the management API: each a problem with a code and a pointer, nothing half written, and no 500."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bidder_api.store import list_changes
from tests.bidder_api.world import RETAILER, World

BID = {"product_ids": ["p1"], "bid_micros": 100_000}
ANY_BRAND = {"field": "brand", "equals": "Acme"}
PRODUCT = {"title": "Shoe", "price_micros": 1, "advertiser_ids": ["acme"], "product_type": "Shoes > Running"}


@pytest.fixture
def campaign_id(world: World) -> str:
    world.call("PUT", "/v1/products/p1", PRODUCT, role="merchant")
    world.call("PUT", "/v1/products/p2", {**PRODUCT, "advertiser_ids": ["brio"]}, role="merchant")
    return str(world.call("POST", "/v1/campaigns", {"name": "c"}).json()["campaign_id"])


@pytest.mark.parametrize(
    ("changed", "status", "code", "pointer"),
    [
        ({"product_ids": []}, 400, "field_out_of_range", "/product_ids"),
        ({"product_ids": ["p1", "p1"]}, 422, "product_repeated", "/product_ids/1"),
        ({"product_ids": ["p1", "p9"]}, 422, "product_unknown", "/product_ids/1"),
        ({"product_ids": ["p2"]}, 422, "product_not_entitled", "/product_ids/0"),
        ({"bid_micros": 0}, 400, "field_out_of_range", "/bid_micros"),
        ({"bid_micros": 10**9 + 1}, 400, "field_out_of_range", "/bid_micros"),
        ({"bid_micros": 1e3}, 400, "field_wrong_type", "/bid_micros"),
        ({"bid_micros": 1500, "charge_on": "impression"}, 422, "bid_micros_indivisible", "/bid_micros"),
        ({"bid_micros": 2000, "charge_on": "impression"}, 201, None, None),
        ({"charge_on": "order"}, 400, "field_invalid", "/charge_on"),
        ({"audience": {}}, 422, "audience_empty", "/audience"),
        ({"audience": {"all": [{"segment": "nobody"}]}}, 422, "segment_unknown", "/audience/all/0/segment"),
        ({"audience": {"bought_brand_within_days": 90}}, 201, None, None),
        (
            {"navigation_pattern": {"within": "session", "steps": [{"action": "view_item", "category_id": "Hats"}]}},
            422,
            "category_unknown",
            "/navigation_pattern/steps/0/category_id",
        ),
        ({"navigation_pattern": {"within": 0, "steps": [{"action": "search"}]}}, 400, "field_out_of_range", None),
        ({"placement_multipliers": {"top": 2}}, 422, "placement_unknown", "/placement_multipliers/top"),
        ({"placement_multipliers": {"top": 11}}, 400, "field_out_of_range", "/placement_multipliers"),
        ({"context": {"temperature_c": {}}}, 422, "temperature_empty", "/context/temperature_c"),
        ({"context": {"temperature_c": {"at_least": 20, "at_most": 25}}}, 201, None, None),
        ({"pages": ["nowhere"]}, 400, "field_invalid", "/pages/0"),
        ({"status": "archived"}, 400, "field_invalid", "/status"),
        ({"colour": "red"}, 400, "field_unknown", "/colour"),
    ],
)
def test_a_bid_is_taken_or_refused_by_name(
    world: World, campaign_id: str, changed: dict[str, Any], status: int, code: str | None, pointer: str | None
) -> None:
    before = world.read(lambda connection: len(list_changes(connection, RETAILER, 0, 200)))
    answer = world.call("POST", "/v1/bids", {**BID, "campaign_id": campaign_id, **changed})
    assert answer.status_code == status, answer.text
    after = world.read(lambda connection: len(list_changes(connection, RETAILER, 0, 200)))
    assert after - before == (status == 201)
    if code is not None:
        assert answer.json()["code"] == code
        assert pointer is None or answer.json()["pointer"] == pointer


def test_a_flight_that_ends_before_it_starts_is_refused_also_when_it_is_changed_to(world: World) -> None:
    body = {"name": "c", "flight_starts_at": "2026-02-01T00:00:00+01:00", "flight_ends_at": "2026-01-31T23:00:00Z"}
    answer = world.call("POST", "/v1/campaigns", body)
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/flight_ends_at")
    made = world.call("POST", "/v1/campaigns", {**body, "flight_ends_at": "2026-03-01T00:00:00Z"})
    answer = world.call(
        "PATCH",
        made.headers["location"],
        {"flight_starts_at": "2026-04-01T00:00:00Z"},
        headers={"If-Match": made.headers["etag"]},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "flight_ends_before_start")


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"effect": {}}, "effect_ambiguous", "/effect"),
        ({"effect": {"exclude": True, "boost": 2}}, "effect_ambiguous", "/effect"),
        ({"effect": {"pin": {"product_id": "p9", "slot_position": 1}}}, "product_unknown", "/effect/pin/product_id"),
        ({"effect": {"floor": {"impression": 1}}}, "floor_micros_indivisible", "/effect/floor/impression"),
        ({"effect": {"require": True}}, "target_missing", "/effect/require"),
        ({"effect": {"value": {}}}, "value_empty", "/effect/value"),
        ({"effect": {"own_brand_min": 1}, "target": ANY_BRAND}, "target_not_allowed", "/target"),
        ({"effect": {"sponsored_max": 1}, "target": ANY_BRAND}, "target_not_allowed", "/target"),
        ({"effect": {"exclude": True}, "target": {}}, "target_ambiguous", "/target"),
        ({"effect": {"exclude": True}, "when": [{}]}, "condition_ambiguous", "/when/0"),
        (
            {"effect": {"exclude": True}, "when": [{"hours": [1]}, {"device": ["a"], "hours": [1]}]},
            "condition_ambiguous",
            "/when/1",
        ),
        ({"effect": {"exclude": True}, "when": [{"hour": {"from": 3, "to": 3}}]}, "hours_empty", "/when/0/hour/to"),
        (
            {"effect": {"exclude": True}, "when": [{"temperature_c": {"at_least": 2, "at_most": 1}}]},
            "temperature_contradictory",
            "/when/0/temperature_c/at_most",
        ),
        ({"effect": {"exclude": True}, "target": {"field": "colour", "equals": 1}}, "field_unknown", "/target/field"),
        ({"effect": {"exclude": True}, "target": {"all": [{"field": "brand"}]}}, "target_incomplete", "/target/all/0"),
        (
            {"effect": {"exclude": True}, "target": {"not": {"field": "brand", "at_least": 1}}},
            "field_type_differs",
            "/target/not/at_least",
        ),
        ({"effect": {"exclude": True}, "scope": {"placements": ["top"]}}, "placement_unknown", "/scope/placements/0"),
        (
            {
                "effect": {"exclude": True},
                "schedule": {"starts_at": "2026-02-01T00:00:00Z", "ends_at": "2026-02-01T00:00:00Z"},
            },
            "schedule_ends_before_start",
            "/schedule/ends_at",
        ),
    ],
)
def test_a_rule_that_cannot_act_is_refused(
    world: World, campaign_id: str, body: dict[str, Any], code: str, pointer: str
) -> None:
    answer = world.call("POST", "/v1/rules", {"name": "r", **body}, role="merchant")
    assert (answer.status_code, answer.json()["code"], answer.json()["pointer"]) == (422, code, pointer)


@pytest.mark.parametrize(
    ("effect", "pointer"),
    [
        ({"value": {"amount_micros": 10**9 + 1}}, "/effect/value/amount_micros"),
        ({"value": {"margin_share": 1.1}}, "/effect/value/margin_share"),
        ({"value": {"novelty": {"amount_micros": 1, "within_days": 0}}}, "/effect/value/novelty/within_days"),
        ({"max_share": 1.01}, "/effect/max_share"),
        ({"spacing": {"slots": 1}}, "/effect/spacing/slots"),
        ({"own_brand_min": 0}, "/effect/own_brand_min"),
        ({"sponsored_max": -1}, "/effect/sponsored_max"),
    ],
)
def test_an_effect_out_of_its_bounds_is_refused(world: World, effect: dict[str, Any], pointer: str) -> None:
    answer = world.call("POST", "/v1/rules", {"name": "r", "effect": effect}, role="merchant")
    assert (answer.status_code, answer.json()["code"], answer.json()["pointer"]) == (400, "field_out_of_range", pointer)


@pytest.mark.parametrize(
    "effect",
    [
        {"require": True},
        {"value": {"amount_micros": 5, "margin_share": 0.01, "promotion_micros": 1}},
        {"max_share": 0.5},
        {"spacing": {"slots": 3, "of": "target"}},
    ],
)
def test_an_effect_on_a_target_is_kept_as_it_was_said(world: World, effect: dict[str, Any]) -> None:
    body = {"name": "r", "effect": effect, "target": ANY_BRAND}
    answer = world.call("POST", "/v1/rules", body, role="merchant")
    assert (answer.status_code, answer.json()["effect"]) == (201, effect)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"slot_count": 2, "attention_permille": [1000]}, 422, "attention_count_wrong"),
        ({"slot_count": 2, "attention_permille": [900, 1000]}, 422, "attention_rising"),
        (
            {"slot_count": 2, "attention_permille": {"click": [1000, 1], "impression": [1000]}},
            422,
            "attention_count_wrong",
        ),
        ({"slot_count": 2, "floor_micros": {"click": 5, "impression": 500}}, 422, "floor_micros_indivisible"),
        ({"slot_count": 2, "pricing": "second"}, 400, "field_invalid"),
        ({"slot_count": 2, "allocation": "best"}, 400, "field_invalid"),
        ({"slot_count": 2, "pricing": "vcg", "allocation": "exact"}, 201, None),
        ({"slot_count": 2, "pricing": "first"}, 201, None),
        ({"slot_count": 2, "brand_max": -1}, 400, "field_out_of_range"),
        ({"slot_count": 2, "attention_permille": []}, 400, "field_out_of_range"),
        ({"slot_count": 0}, 400, "field_out_of_range"),
        ({"slot_count": 2, "placement_id": "bottom"}, 422, "placement_id_differs"),
        ({"slot_count": 2, "placement_id": "top"}, 201, None),
    ],
)
def test_a_placement_is_taken_or_refused_by_name(
    world: World, body: dict[str, Any], status: int, code: str | None
) -> None:
    answer = world.call("PUT", "/v1/placements/top", {"page_types": ["home"], **body}, role="merchant")
    assert answer.status_code == status, answer.text
    assert answer.json().get("code") == code


def test_a_product_is_set_by_its_path_and_may_say_its_id_again(world: World) -> None:
    assert world.call("PUT", "/v1/products/a%2Fb", PRODUCT, role="merchant").json()["product_id"] == "a/b"
    assert world.call("PUT", "/v1/products/a%2Fb", {**PRODUCT, "product_id": "a/b"}, role="merchant").status_code == 200
    answer = world.call("PUT", "/v1/products/a%2Fb", {**PRODUCT, "product_id": "c"}, role="merchant")
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/product_id")
    attribute = {**PRODUCT, "attributes": {"colour": "red"}}
    assert world.call("PUT", "/v1/products/d", attribute, role="merchant").status_code == 201
    other_type = {**PRODUCT, "attributes": {"colour": 1}}
    answer = world.call("PUT", "/v1/products/e", other_type, role="merchant")
    assert (answer.status_code, answer.json()["code"]) == (422, "attribute_type_differs")


def test_a_batch_of_changes_names_the_products_there_are_not(world: World, campaign_id: str) -> None:
    body = {"changes": [{"product_id": "p1", "stock": 0}, {"product_id": "p9", "price_micros": 5}]}
    answer = world.call("POST", "/v1/products:batch", body, role="retailer")
    assert [(one["product_id"], one["result"], one["code"]) for one in answer.json()["results"]] == [
        ("p1", "accepted", None),
        ("p9", "rejected", "product_unknown"),
    ]
    assert world.call("GET", "/v1/products/p1", role="merchant").json()["stock"] == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"role": "advertiser"}, "advertiser_id_missing"),
        ({"role": "agency"}, "advertiser_id_missing"),
        ({"role": "merchant", "advertiser_id": "acme"}, "advertiser_id_not_allowed"),
        ({"role": "merchant", "origin": "https://a.example"}, "origin_wrong"),
        ({"role": "merchant", "expires_at": "2020-01-01T00:00:00Z"}, "expires_in_the_past"),
        ({"role": "king"}, "field_invalid"),
        ({"role": "site", "origin": "shop.example"}, "field_out_of_range"),
    ],
)
def test_a_key_that_would_speak_for_nobody_or_everybody_is_refused(
    world: World, body: dict[str, Any], code: str
) -> None:
    answer = world.call("POST", "/v1/keys", body, role="admin")
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=12), children, max_size=4),
    max_leaves=12,
)
FIELDS = ["name", "campaign_id", "product_ids", "bid_micros", "audience", "navigation_pattern", "effect", "target"]
PATHS = ["/v1/campaigns", "/v1/bids", "/v1/audiences", "/v1/navigation-patterns", "/v1/rules", "/v1/keys"]


@given(path=st.sampled_from(PATHS), body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5) | JSON)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_json_makes_the_server_stumble(world: World, path: str, body: Any) -> None:
    answer = world.call("POST", path, body if body is not None else {}, role="admin")
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.json()["code"]


@given(st.binary(max_size=200))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_not_json_makes_the_server_stumble(world: World, body: bytes) -> None:
    answer = world.call("POST", "/v1/bids", role="admin", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
