"""Navigation patterns over HTTP: what is refused, and how far a visitor is with one, as a merchant is told."""

from datetime import UTC, datetime
from typing import Any

import pytest

from affinity.settings import Settings as AffinitySettings
from bidder_api.database import Database
from tests.bidder_api.world import World, world_over

SHOE = {"title": "Shoe", "price_micros": 5_000_000, "product_type": "Shoes > Running", "brand": "Acme"}
LOOKED_TWICE_THEN_SEARCHED = {
    "within": "session",
    "steps": [
        {"action": "view_item", "category_id": "Shoes", "at_least": 2},
        {"action": "search", "query_contains": "Trail", "traffic_source": "Mail"},
    ],
    "without": [{"action": "purchase", "category_id": "Shoes"}],
}
ONE_STEP = {"action": "view_item"}


@pytest.fixture
def shop(world: World) -> World:
    assert world.call("PUT", "/v1/products/shoe", SHOE, role="merchant").status_code == 201
    world.publish()
    world.wait_started()
    return world


def at(world: World, minute: float) -> str:
    return datetime.fromtimestamp(world.clock.now_ms / 1000 + minute * 60, UTC).isoformat()


def save(world: World, navigation_pattern: dict[str, Any]) -> Any:
    return world.call("POST", "/v1/navigation-patterns", {"name": "n", "navigation_pattern": navigation_pattern})


def saved(world: World) -> str:
    answer = save(world, LOOKED_TWICE_THEN_SEARCHED)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["pattern_id"])


def report(world: World, visitor_id: str, *events: tuple[str, float], consent: bool = True, **more: Any) -> None:
    """Report events of an action and a minute, counted from now."""
    what: dict[str, Any] = {"search": {"query": "trail shoes", "traffic_source": "mail"}}
    body = {
        "consent": {"personalised": consent},
        "events": [
            {"visitor_id": visitor_id, "action": action, "occurred_at": at(world, minute)}
            | what.get(action, {"product_id": "shoe"})
            | more
            for action, minute in events
        ],
    }
    answer = world.call("POST", "/v1/navigation", body, role="retailer")
    assert answer.status_code == 202, answer.text


def explain(world: World, pattern_id: str, visitor_id: str, role: str = "merchant", **more: Any) -> Any:
    path = f"/v1/navigation-patterns/{pattern_id}/explain"
    return world.call("GET", path, role=role, params={"visitor_id": visitor_id}, **more)


def counts(answer: Any) -> list[tuple[int, int]]:
    return [(step["done_count"], step["missing_count"]) for step in answer.json()["steps"]]


def test_a_merchant_sees_what_was_done_what_is_missing_and_when_it_lapses(shop: World) -> None:
    pattern_id = saved(shop)
    report(shop, "v 1", ("view_item", -9), ("view_item", -4))
    answer = explain(shop, pattern_id, "v 1")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    told = answer.json()
    assert counts(answer) == [(2, 0), (0, 1)]
    assert (told["status"], told["holds"], told["pattern_id"]) == ("begun", False, pattern_id)
    assert (told["visitor_id"], told["advertiser_id"]) == ("v 1", "acme")
    assert [datetime.fromisoformat(one) for one in told["steps"][0]["occurred_at"]] == [
        datetime.fromisoformat(at(shop, minute)) for minute in (-9, -4)
    ]
    assert datetime.fromisoformat(told["lapses_at"]) == datetime.fromisoformat(at(shop, 26))

    report(shop, "v 1", ("search", -1))
    told = explain(shop, pattern_id, "v 1").json()
    assert (told["status"], told["holds"]) == ("holds", True)
    report(shop, "v 1", ("purchase", 0))
    answer = explain(shop, pattern_id, "v 1")
    assert answer.json()["status"] == "ended"
    assert answer.json()["without"][0]["stands_in_the_way"] is True
    assert answer.json()["ended_run"]["ended_by"] == "without"
    assert counts(answer) == [(0, 2), (0, 1)]


def test_an_event_that_comes_late_is_told_where_it_belongs(shop: World) -> None:
    pattern_id = saved(shop)
    report(shop, "v", ("view_item", -4), ("search", -1))
    assert counts(explain(shop, pattern_id, "v")) == [(1, 1), (0, 1)]
    report(shop, "v", ("view_item", -2))
    assert explain(shop, pattern_id, "v").json()["holds"] is True


def test_a_customers_devices_are_told_together(shop: World) -> None:
    pattern_id = saved(shop)
    report(shop, "phone", ("view_item", -4))
    report(shop, "laptop", ("view_item", -3))
    for device in ("phone", "laptop"):
        shop.call("POST", f"/v1/visitors/{device}/link", {"customer_id": "anna"}, role="retailer")
    assert counts(explain(shop, pattern_id, "phone")) == [(2, 0), (0, 1)]
    shop.call("DELETE", "/v1/visitors/laptop/link", role="retailer")
    assert counts(explain(shop, pattern_id, "phone")) == [(1, 1), (0, 1)]


def test_a_visitor_never_seen_without_consent_or_erased_is_unknown(shop: World) -> None:
    pattern_id = saved(shop)
    report(shop, "shy", ("view_item", -4), consent=False)
    report(shop, "erased", ("view_item", -4))
    assert explain(shop, pattern_id, "erased").json()["status"] == "begun"
    assert shop.call("DELETE", "/v1/visitors/erased", role="retailer").status_code == 204
    for visitor_id in ("never", "shy", "erased"):
        answer = explain(shop, pattern_id, visitor_id)
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["event_count"]) == ("visitor_unknown", 0)
        assert "did not consent" in answer.json()["explanation"]
    assert len(shop.serving.visitors) == 0


def test_the_next_fill_sees_the_pattern_begin_hold_and_end(shop: World) -> None:
    """And what an auction sees is what the merchant is told, at every step."""
    shop.call("PUT", "/v1/products/shoe", {**SHOE, "advertiser_ids": ["acme"]}, role="merchant")
    shop.call("PUT", "/v1/placements/top", {"page_types": ["category"], "slot_count": 1}, role="merchant")
    top_up = {"advertiser_id": "acme", "amount_micros": 10_000_000, "reference": "r"}
    assert shop.call("POST", "/v1/ledger/top-ups", top_up, role="finance").status_code == 201
    campaign_id = shop.call("POST", "/v1/campaigns", {"name": "c"}).json()["campaign_id"]
    bid = {"campaign_id": campaign_id, "product_ids": ["shoe"], "bid_micros": 90_000}
    answer = shop.call("POST", "/v1/bids", {**bid, "navigation_pattern": LOOKED_TWICE_THEN_SEARCHED})
    assert answer.status_code == 201, answer.text
    pattern_id = saved(shop)
    shop.publish()

    def holds() -> bool:
        body = {
            "visitor_id": "v", "consent": {"personalised": True}, "tmax_ms": 10_000,
            "page": {"type": "category", "category_id": "Shoes"}, "placements": [{"placement_id": "top"}],
        }  # fmt: skip
        answer = shop.call("POST", "/v1/fills", body, role="retailer")
        assert answer.status_code == 200, answer.text
        is_sponsored = any(one["is_sponsored"] for one in answer.json()["placements"][0]["fills"])
        assert explain(shop, pattern_id, "v").json()["holds"] is is_sponsored
        return is_sponsored

    assert not holds()
    report(shop, "v", ("view_item", -20), ("search", -10))
    assert not holds()
    report(shop, "v", ("view_item", -15))
    assert holds()
    report(shop, "v", ("purchase", -17))
    assert not holds()
    report(shop, "v", ("view_item", -12))
    assert holds()
    shop.clock.now_ms += 20 * 60_000
    assert holds()
    shop.clock.now_ms += 1
    assert not holds()


@pytest.mark.parametrize("role", ["advertiser", "agency", "retailer", "site", "crm", "finance", "auditor"])
def test_nobody_but_a_merchant_learns_about_a_visitor(shop: World, role: str) -> None:
    pattern_id = saved(shop)
    report(shop, "v", ("view_item", -4))
    answer = explain(shop, pattern_id, "v", role=role)
    assert answer.status_code == 403
    assert "done_count" not in answer.text
    assert explain(shop, pattern_id, "v", role="admin").status_code == 200


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "parameter_missing"),
        ("visitor_id=", "parameter_out_of_range"),
        ("visitor_id=v&as=me", "parameter_unknown"),
    ],
)
def test_it_must_be_asked_for_one_visitor(shop: World, query: str, code: str) -> None:
    answer = shop.call("GET", f"/v1/navigation-patterns/{saved(shop)}/explain?{query}", role="merchant")
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_a_pattern_that_is_not_there_cannot_be_explained(shop: World) -> None:
    answer = explain(shop, "pat_nothing", "v")
    assert (answer.status_code, answer.json()["code"]) == (404, "pattern_unknown")


@pytest.mark.parametrize(
    ("changed", "status", "code", "pointer"),
    [
        ({"steps": []}, 400, "field_out_of_range", "/navigation_pattern/steps"),
        ({"steps": [ONE_STEP] * 9}, 400, "field_out_of_range", "/navigation_pattern/steps"),
        ({"steps": [ONE_STEP] * 50}, 400, "field_out_of_range", "/navigation_pattern/steps"),
        ({"without": [ONE_STEP] * 9}, 400, "field_out_of_range", "/navigation_pattern/without"),
        ({"steps": [{**ONE_STEP, "at_least": 0}]}, 400, "field_out_of_range", "/navigation_pattern/steps/0/at_least"),
        ({"steps": [{**ONE_STEP, "at_least": 60}] * 2}, 422, "pattern_too_long", "/navigation_pattern/steps"),
        ({"within": 0}, 400, "field_out_of_range", "/navigation_pattern/within"),
        ({"within": "day"}, 400, None, "/navigation_pattern/within"),
        ({"steps": [{"action": "look"}]}, 400, "field_invalid", "/navigation_pattern/steps/0/action"),
        ({"steps": [{}]}, 400, "field_missing", None),
        (
            {"steps": [{"action": "search", "query_contains": "x" * 10_000}]},
            400,
            "field_out_of_range",
            "/navigation_pattern/steps/0/query_contains",
        ),
        (
            {"steps": [{"action": "search", "traffic_source": ""}]},
            400,
            "field_out_of_range",
            "/navigation_pattern/steps/0/traffic_source",
        ),
        (
            {"steps": [ONE_STEP, ONE_STEP], "without": [ONE_STEP]},
            422,
            "pattern_unsatisfiable",
            "/navigation_pattern/steps/1",
        ),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_where_it_stands(
    shop: World, changed: dict[str, Any], status: int, code: str | None, pointer: str | None
) -> None:
    answer = save(shop, {"within": "session", "steps": [ONE_STEP], **changed})
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["code"] == code
    assert pointer is None or answer.json()["pointer"] == pointer


def test_a_query_of_10_kb_is_refused_whole(shop: World) -> None:
    event = {"visitor_id": "v", "action": "search", "query": "q" * 10_000, "occurred_at": at(shop, 0)}
    answer = shop.call("POST", "/v1/navigation", {"events": [event]}, role="retailer")
    assert (answer.status_code, answer.json()["code"]) == (400, "field_out_of_range")
    assert answer.json()["pointer"] == "/events/0/query"
    assert len(shop.serving.visitors) == 0


def test_the_patterns_of_all_bids_name_only_so_many_product_targets(sqlite_database: Database) -> None:
    def colour(value: str) -> dict[str, Any]:
        return {"within": 60, "steps": [ONE_STEP | {"product_target": {"field": "colour", "equals": value}}]}

    with world_over(sqlite_database, AffinitySettings(pattern_target_count_max=2)) as world:
        shoe = SHOE | {"attributes": {"colour": "red"}, "advertiser_ids": ["acme"]}
        world.call("PUT", "/v1/products/shoe", shoe, role="merchant")
        campaign = world.call("POST", "/v1/campaigns", {"name": "All"}).json()
        body = {"campaign_id": campaign["campaign_id"], "product_ids": ["shoe"], "bid_micros": 1_000}

        def place(value: str) -> Any:
            answer = world.call("POST", "/v1/bids", body | {"navigation_pattern": colour(value)})
            world.publish()
            return answer

        red, blue = place("red"), place("blue")
        assert (red.status_code, blue.status_code) == (201, 201)
        full = place("green")
        assert (full.status_code, full.json()["code"]) == (409, "pattern_targets_full")
        assert full.json()["pointer"] == "/navigation_pattern"
        assert place("red").status_code == 201, "what is named already takes no more room"
        assert save(world, colour("green")).status_code == 201, "what no bid is written with takes none"
        assert world.call("DELETE", blue.headers["location"]).status_code == 204
        world.publish()
        assert place("green").status_code == 201
