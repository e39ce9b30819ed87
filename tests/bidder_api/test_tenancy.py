"""Who may do what: every operation × every role, and whose things exist for whom. Generated from the table."""

from typing import Any

import pytest

from bidder_api.access import Role
from bidder_api.operations import Operation
from bidder_api.table import OPERATIONS
from tests.bidder_api.world import World

TENANT_RESOURCES: dict[str, dict[str, Any]] = {
    "/v1/campaigns": {"name": "c"},
    "/v1/bids": {"product_ids": ["p1"], "bid_micros": 100_000},
    "/v1/audiences": {"name": "a", "audience": {"score": "promophile", "at_least": 60}},
    "/v1/navigation-patterns": {
        "name": "n",
        "navigation_pattern": {"within": "session", "steps": [{"action": "view_item", "at_least": 2}]},
    },
    "/v1/webhooks": {"url": "https://brand.example/hook", "status": "paused"},
}
PATCHES = {
    "/v1/campaigns": {"name": "d"},
    "/v1/bids": {"bid_micros": 1},
    "/v1/audiences": {"name": "d"},
    "/v1/navigation-patterns": {"name": "d"},
    "/v1/webhooks": {"url": "https://other.example/"},
}
ITEM_METHODS = ["GET", "PATCH", "DELETE"]


def filled(operation: Operation) -> str:
    """Return the operation's path with ids nothing has."""
    return "/".join("nothing" if part.startswith("{") else part for part in ("", *operation.segments))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_role_is_let_in_exactly_where_the_table_says(shared_world: World, operation: Operation) -> None:
    headers = {"If-Match": "*"} if operation.needs_if_match else {}
    for role in Role:
        answer = shared_world.call(operation.method, filled(operation), role=role, headers=headers)
        is_admitted = role in operation.roles or role is Role.ADMIN or not operation.roles
        assert answer.status_code != 401
        assert (answer.status_code == 403) != is_admitted, (role, answer.text)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_nobody_is_let_in_without_a_key_but_where_the_table_says(shared_world: World, operation: Operation) -> None:
    answer = shared_world.client.request(operation.method, filled(operation))
    assert (answer.status_code == 401) == bool(operation.roles)
    assert answer.headers["content-type"] == "application/problem+json"


def make(world: World, path: str, advertiser_id: str) -> Any:
    """Make one of the things at a path, for an advertiser, and what it needs."""
    body = dict(TENANT_RESOURCES[path])
    if path == "/v1/bids":
        product = {"title": "Shoe", "price_micros": 1, "advertiser_ids": ["acme", "brio"]}
        assert world.call("PUT", "/v1/products/p1", product, role="admin").status_code in (200, 201)
        campaign = world.call("POST", "/v1/campaigns", {"name": "c"}, tenants=[advertiser_id])
        body["campaign_id"] = campaign.json()["campaign_id"]
    answer = world.call("POST", path, body, tenants=[advertiser_id])
    assert answer.status_code == 201, answer.text
    return answer


@pytest.mark.parametrize("method", ITEM_METHODS)
@pytest.mark.parametrize("path", TENANT_RESOURCES)
def test_what_belongs_to_another_answers_exactly_as_what_does_not_exist(
    shared_world: World, path: str, method: str
) -> None:
    world = shared_world
    made = make(world, path, "acme")
    foreign = made.headers["location"].rpartition("/")[2]
    unknown = foreign[:-4] + "0000"
    answers = []
    for identifier in (foreign, unknown):
        body = PATCHES[path] if method == "PATCH" else None
        answer = world.call(
            method, f"{path}/{identifier}", body, tenants=["brio"], headers={"If-Match": made.headers["etag"]}
        )
        answers.append((answer.status_code, answer.text.replace(identifier, "ID"), sorted(answer.headers)))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    own = world.call("GET", f"{path}/{foreign}", tenants=["acme"])
    assert (own.status_code, own.headers["etag"]) == (200, made.headers["etag"])


@pytest.mark.parametrize("path", TENANT_RESOURCES)
def test_a_list_holds_ones_own_things_only(world: World, path: str) -> None:
    own, foreign = (make(world, path, who).headers["location"].rpartition("/")[2] for who in ("acme", "brio"))

    def listed(**caller: Any) -> str:
        answer = world.call("GET", path, **caller)
        assert answer.status_code == 200
        return str(answer.text)

    assert own in listed(tenants=["acme"])
    assert foreign not in listed(tenants=["acme"])
    both = listed(role="agency", tenants=["acme", "brio"])
    assert own in both
    assert foreign in both
    everything = listed(role="admin")
    assert own in everything
    assert foreign in everything
    assert own not in listed(role="agency", tenants=["cara"])


def test_an_agency_acts_for_its_advertisers_and_no_other(world: World) -> None:
    def create(advertiser_id: str | None) -> Any:
        body = {"name": "c"} if advertiser_id is None else {"name": "c", "advertiser_id": advertiser_id}
        return world.call("POST", "/v1/campaigns", body, role="agency", tenants=["acme", "brio"])

    assert create("brio").json()["advertiser_id"] == "brio"
    assert create(None).json()["code"] == "advertiser_id_missing"
    world.key("advertiser", "cara")
    assert create("cara").text.replace("cara", "ID") == create("nobody").text.replace("nobody", "ID")


def test_an_advertiser_cannot_name_another_nor_itself(world: World) -> None:
    for named in ("acme", "brio"):
        answer = world.call("POST", "/v1/campaigns", {"name": "c", "advertiser_id": named})
        assert (answer.status_code, answer.json()["code"]) == (422, "advertiser_id_not_allowed")


@pytest.mark.parametrize("field", ["campaign_id", "spent_micros", "role", "price", "created_at", "change_seq"])
def test_what_the_server_sets_cannot_be_sent(world: World, field: str) -> None:
    answer = world.call("POST", "/v1/campaigns", {"name": "c", field: "x"})
    assert (answer.status_code, answer.json()["code"], answer.json()["pointer"]) == (400, "field_unknown", f"/{field}")
    made = make(world, "/v1/campaigns", "acme")
    answer = world.call("PATCH", made.headers["location"], {field: "x"}, headers={"If-Match": made.headers["etag"]})
    assert (answer.status_code, answer.json()["code"]) == (400, "field_unknown")


def test_a_campaign_cannot_change_hands(world: World) -> None:
    made = make(world, "/v1/campaigns", "acme")
    answer = world.call(
        "PATCH",
        made.headers["location"],
        {"advertiser_id": "brio"},
        role="admin",
        headers={"If-Match": made.headers["etag"]},
    )
    assert answer.json()["code"] == "field_unknown"


def test_a_bid_in_another_ones_campaign_answers_as_in_none(world: World) -> None:
    foreign = make(world, "/v1/campaigns", "brio").json()["campaign_id"]
    unknown = foreign[:-4] + "0000"
    body = {"product_ids": ["p1"], "bid_micros": 1}
    answers = [
        world.call("POST", "/v1/bids", {**body, "campaign_id": identifier}).text.replace(identifier, "ID")
        for identifier in (foreign, unknown)
    ]
    assert answers[0] == answers[1]
    assert "campaign_unknown" in answers[0]
