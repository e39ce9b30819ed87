"""What bidders are told of the auction is what is configured, and says how often that changes."""

from tests.bidder_api.world import World


def test_it_says_what_holds_now_and_how_often_it_changed(world: World) -> None:
    shelf = {
        "page_types": ["home"],
        "slot_count": 2,
        "pricing": "vcg",
        "floor_micros": {"click": 7, "impression": 3_000},
    }
    world.call("PUT", "/v1/placements/shelf", shelf, role="merchant")
    world.clock.now_ms += 10 * 86_400_000
    world.call("PUT", "/v1/placements/shelf", shelf | {"pricing": "critical", "brand_max": 1}, role="merchant")
    rule = {"name": "Push", "effect": {"boost": 1.5}, "target": {"field": "is_own_brand", "equals": True}}
    world.call("POST", "/v1/rules", rule | {"stage": "live"}, role="merchant")
    world.call("POST", "/v1/rules", rule, role="merchant")
    for role in ("advertiser", "agency", "auditor", "finance", "merchant"):
        answer = world.call("GET", "/v1/disclosure", role=role)
        assert answer.status_code == 200, answer.text
    told = answer.json()
    (placement,) = told["placements"]
    assert "least bid" in placement["price_rule"]
    assert (placement["floors"], placement["brand_max"]) == ({"click": 7, "impression": 3_000}, 1)
    assert told["live_rule_count"] == 1
    changes = {one["kind"]: one for one in told["changes"]}
    assert [changes["placement"][f"last_{days}_days"] for days in (7, 30, 90)] == [1, 2, 2]
    assert changes["rule"]["last_7_days"] == 2
    assert changes["page_type"]["last_changed_at"] is None
    assert told["experiment"] == "None runs now."
    assert world.call("GET", "/v1/disclosure", role="site").status_code == 403
