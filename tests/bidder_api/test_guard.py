"""What comes through the door is in order, and what is not is refused without harm."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bidder_api.errors import Refused
from bidder_api.guard import Doors, read_body, read_query
from bidder_api.operations import ANYBODY, Operation
from bidder_api.resources import PageQuery
from tests.bidder_api.world import World

OPERATION = Operation(
    method="POST", path="/v1/things/{thing_id}", name="x", summary="", tag="t", roles=ANYBODY, body_size_max=10
)


async def nothing(_request: Request) -> Response:
    return Response()


def test_an_operation_without_a_route_and_a_route_without_an_operation_are_noticed() -> None:
    route = Route("/v1/things/{thing_id}", nothing, methods=["POST"])
    Doors([OPERATION], [route])
    with pytest.raises(ValueError, match="differ"):
        Doors([OPERATION], [])
    with pytest.raises(ValueError, match="differ"):
        Doors([], [route])


def test_an_id_may_hold_a_slash_when_it_is_written_as_one_part() -> None:
    doors = Doors([OPERATION], [Route("/v1/things/{thing_id}", nothing, methods=["POST"])])
    found = doors.find(b"/v1/things/a%2Fb")
    assert found is not None
    assert found[1] == {"thing_id": b"a/b"}
    assert doors.find(b"/v1/things/a/b") is None
    assert doors.find(b"/v1/things") is None


def test_a_body_over_the_limit_is_refused_before_it_is_all_there() -> None:
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"12345", "more_body": True}

    with pytest.raises(Refused) as refusal:
        asyncio.run(read_body(receive, OPERATION, 5.0))
    assert (refusal.value.code, refusal.value.status, asked) == ("body_too_large", 413, 3)


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(Refused) as refusal:
        asyncio.run(read_body(receive, OPERATION, 0.01))
    assert (refusal.value.code, refusal.value.status) == ("body_too_slow", 408)


@pytest.mark.parametrize(
    ("query", "code", "parameter"),
    [
        (b"page_size=0", "parameter_out_of_range", "page_size"),
        (b"page_size=x", "parameter_wrong_type", "page_size"),
        (b"page_size=1&page_size=2", "parameter_repeated", "page_size"),
        (b"size=1", "parameter_unknown", "size"),
        (b"page_size", "query_malformed", None),
        (b"page_token=null", "parameter_out_of_range", "page_token"),
        (b"page_token=%ff", "query_malformed", None),
        (b"\xff", "query_malformed", None),
    ],
)
def test_a_query_is_checked_like_a_body(query: bytes, code: str, parameter: str | None) -> None:
    with pytest.raises(Refused) as refusal:
        read_query(query, PageQuery)
    assert (refusal.value.code, refusal.value.parameter) == (code, parameter)


def test_a_wrong_method_is_told_the_right_ones(world: World) -> None:
    answer = world.client.put("/v1/campaigns")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    assert answer.json()["code"] == "method_not_allowed"


def test_a_path_with_a_slash_too_many_is_not_another_path(world: World) -> None:
    for path in ("/v1/campaigns/", "//v1/campaigns", "/v1//campaigns", "/docs/"):
        assert world.client.get(path, follow_redirects=False).status_code in (400, 404), path


@pytest.mark.parametrize("identifier", ["a" * 65, "%00", "a%0A", "%ff"])
def test_an_id_that_cannot_be_is_refused(world: World, identifier: str) -> None:
    answer = world.call("GET", f"/v1/campaigns/{identifier}")
    assert (answer.status_code, answer.json()["code"]) == (400, "parameter_invalid")
    assert answer.json()["parameter"] == "campaign_id"


def test_a_request_without_exactly_one_host_is_refused(world: World) -> None:
    app: Any = world.client.app

    async def ask(hosts: int, version: str = "1.1") -> int:
        statuses: list[int] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http", "method": "GET", "path": "/healthz", "raw_path": b"/healthz", "query_string": b"",
            "http_version": version, "headers": [(b"host", b"a")] * hosts, "root_path": "",
        }  # fmt: skip
        await app(scope, receive, send)
        return statuses[0]

    assert [asyncio.run(ask(hosts)) for hosts in (0, 1, 2)] == [400, 200, 400]
    assert asyncio.run(ask(0, "1.0")) == 200


def test_a_body_of_another_kind_is_refused(world: World) -> None:
    answer = world.call("POST", "/v1/campaigns", headers={"Content-Type": "text/xml"}, content=b"<a/>")
    assert (answer.status_code, answer.json()["code"]) == (415, "body_not_json")


def test_a_large_body_is_refused_by_its_announced_length(world: World) -> None:
    answer = world.call("POST", "/v1/campaigns", content=b" " * 300_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_head_is_answered_like_a_get_without_a_body(world: World) -> None:
    assert world.call("HEAD", "/v1/campaigns").status_code == 200


def test_a_mistake_of_ours_is_a_problem_without_particulars(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bidder_api.campaigns.list_campaigns", lambda *_, **__: 1 / 0)
    answer = world.call("GET", "/v1/campaigns")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "division" not in answer.text


def test_no_answer_of_the_management_api_may_be_kept_by_a_cache(world: World) -> None:
    assert world.call("GET", "/v1/campaigns").headers["cache-control"] == "no-store"
    assert world.call("GET", "/v1/campaigns/cmp_x").headers["cache-control"] == "no-store"
