"""Many bids at once: each on its own terms, all of them in one transaction."""

from typing import Any

import pytest

from tests.bidder_api.world import World

PATH = "/v1/bids:batch"


@pytest.fixture
def campaign_id(world: World) -> str:
    for product_id, owner in (("p1", "acme"), ("p2", "brio")):
        product = {"title": "Shoe", "price_micros": 1, "advertiser_ids": [owner]}
        assert world.call("PUT", f"/v1/products/{product_id}", product, role="admin").status_code == 201
    return str(world.call("POST", "/v1/campaigns", {"name": "c"}).json()["campaign_id"])


def creation(campaign_id: str, **changed: Any) -> dict[str, Any]:
    return {"op": "create", "bid": {"campaign_id": campaign_id, "product_ids": ["p1"], "bid_micros": 101_003} | changed}


def sent(world: World, *items: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    answer = world.call("POST", PATH, {"items": items}, **more)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    assert len(results) == len(items)
    return results


def bid_of(world: World, bid_id: str) -> dict[str, Any]:
    return dict(world.call("GET", f"/v1/bids/{bid_id}").json())


def test_bids_are_made_changed_and_archived_in_the_order_they_are_named(world: World, campaign_id: str) -> None:
    first, second = sent(world, creation(campaign_id), creation(campaign_id, bid_micros=7))
    assert [first["result"], second["result"]] == ["created", "created"]
    changed, archived = sent(
        world,
        {"op": "update", "bid_id": first["bid_id"], "change": {"bid_micros": 9}, "if_match": first["etag"]},
        {"op": "archive", "bid_id": second["bid_id"]},
    )
    assert (changed["result"], archived["result"]) == ("updated", "archived")
    now = world.call("GET", f"/v1/bids/{first['bid_id']}")
    assert (now.json()["bid_micros"], now.headers["etag"]) == (9, changed["etag"])
    gone = world.call("GET", f"/v1/bids/{second['bid_id']}")
    assert (gone.json()["status"], gone.headers["etag"]) == ("archived", archived["etag"])


def test_what_is_refused_says_why_and_the_others_take_effect(world: World, campaign_id: str) -> None:
    foreign = world.call("POST", "/v1/campaigns", {"name": "c"}, tenants=["brio"]).json()["campaign_id"]
    unknown = "bid_" + "0" * 26
    results = sent(
        world,
        creation(campaign_id),
        creation(campaign_id, product_ids=["p2"]),
        creation(campaign_id, charge_on="impression", bid_micros=1_001),
        creation(foreign),
        creation("cmp_" + "0" * 26),
        {"op": "update", "bid_id": unknown, "change": {"bid_micros": 5}},
        {"op": "archive", "bid_id": unknown},
        creation(campaign_id, bid_micros=8),
    )
    assert [one["result"] for one in results] == ["created", *["rejected"] * 6, "created"]
    problems = [(one["problem"]["code"], one["problem"]["pointer"]) for one in results[1:7]]
    assert problems == [
        ("product_not_entitled", "/items/1/bid/product_ids/0"),
        ("bid_micros_indivisible", "/items/2/bid/bid_micros"),
        ("campaign_unknown", "/items/3/bid/campaign_id"),
        ("campaign_unknown", "/items/4/bid/campaign_id"),
        ("bid_unknown", "/items/5"),
        ("bid_unknown", "/items/6"),
    ]
    listed = world.call("GET", "/v1/bids").json()["items"]
    assert sorted(bid["bid_micros"] for bid in listed) == [8, 101_003]
    logged = world.call("GET", "/v1/changes", role="admin").json()["items"]
    assert [change["resource_id"] for change in logged if change["kind"] == "bid"] == [
        results[0]["bid_id"],
        results[7]["bid_id"],
    ]


def test_another_advertisers_bid_answers_as_one_that_is_not_there(world: World, campaign_id: str) -> None:
    (made,) = sent(world, creation(campaign_id))
    unknown = made["bid_id"][:-4] + "0000"
    asked = [
        item
        for bid_id in (made["bid_id"], unknown)
        for item in ({"op": "update", "bid_id": bid_id, "change": {}}, {"op": "archive", "bid_id": bid_id})
    ]
    answers = [
        str(one | {"problem": one["problem"] | {"pointer": ""}}).replace(one["bid_id"], "ID")
        for one in sent(world, *asked, tenants=["brio"])
    ]
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert "bid_unknown" in answers[0]
    assert bid_of(world, made["bid_id"])["status"] == "active"


def test_a_bid_changed_meanwhile_is_left_alone(world: World, campaign_id: str) -> None:
    (made,) = sent(world, creation(campaign_id))
    stale = made["etag"]
    sent(world, {"op": "update", "bid_id": made["bid_id"], "change": {"bid_micros": 11}})
    (refused, also) = sent(
        world,
        {"op": "update", "bid_id": made["bid_id"], "change": {"bid_micros": 12}, "if_match": stale},
        {"op": "archive", "bid_id": made["bid_id"], "if_match": stale},
    )
    assert [one["problem"]["code"] for one in (refused, also)] == ["etag_stale", "etag_stale"]
    assert bid_of(world, made["bid_id"])["bid_micros"] == 11


def test_the_same_idempotency_key_makes_nothing_twice(world: World, campaign_id: str) -> None:
    headers = {"Idempotency-Key": "batch-1"}
    once = sent(world, creation(campaign_id), creation(campaign_id), headers=headers)
    assert sent(world, creation(campaign_id), creation(campaign_id), headers=headers) == once
    assert len(world.call("GET", "/v1/bids").json()["items"]) == 2


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([], "field_out_of_range"),
        ([{"op": "create"}], "field_missing"),
        ([{"op": "delete", "bid_id": "b"}], "field_invalid"),
        ([{"op": "archive", "bid_id": "b", "advertiser_id": "acme"}], "field_unknown"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_whole(
    world: World, campaign_id: str, items: list[dict[str, Any]], code: str
) -> None:
    answer = world.call("POST", PATH, {"items": [creation(campaign_id), *items] if items else []})
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] == code
    assert answer.json()["pointer"].startswith("/items")
    assert world.call("GET", "/v1/bids").json()["items"] == []


def test_a_thousand_bids_are_one_call(world: World, campaign_id: str) -> None:
    results = sent(world, *[creation(campaign_id, bid_micros=1 + number) for number in range(1_000)])
    assert {one["result"] for one in results} == {"created"}
    too_many = world.call("POST", PATH, {"items": [creation(campaign_id)] * 1_001})
    assert (too_many.json()["code"], too_many.json()["pointer"]) == ("field_out_of_range", "/items")
