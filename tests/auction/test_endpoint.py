"""HTTP of the slot path: sizes, shapes, what is refused and how, and who is told what."""

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from auction.endpoint import routes
from auction.errors import AuctionRefused
from auction.request import SlotResponse
from auction.settings import Settings
from tests.auction.servers import Served
from tests.auction.worlds import bid, placement, source

BODY: dict[str, Any] = {
    "page": {"type": "category", "category_id": "Shoes > Running"},
    "placements": [{"placement_id": "top", "candidates": [{"product_id": "p1", "organic_rank": 1}, "p2"]}],
}


class Caller(msgspec.Struct):
    """Who asks, as the door leaves it."""

    advertiser_id: str | None


def refused(_request: Request, refusal: Exception) -> JSONResponse:
    assert isinstance(refusal, AuctionRefused)
    return JSONResponse({"code": refusal.code, "pointer": refusal.pointer}, refusal.status)


def malformed(_request: Request, refusal: Exception) -> JSONResponse:
    return JSONResponse({"code": type(refusal).__name__, "detail": str(refusal)}, 400)


class Door:
    """Stands for the guard: says who asks."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        scope["caller"] = Caller(headers[b"x-as"].decode() if b"x-as" in headers else None)
        await self._app(scope, receive, send)


@pytest.fixture
def served(tmp_path: Path) -> Served:
    bids = [bid("bid_1", ["p1"], 2_000_000, "cmp_a"), bid("bid_2", ["p2"], 1_000_000, "cmp_b")]
    return Served(source(bids=bids, placements=[placement(slot_count=1)]), tmp_path, Settings(body_bytes_max=2_000))


@pytest.fixture
def client(served: Served) -> TestClient:
    app = Starlette(
        routes=routes(served.server),
        exception_handlers={AuctionRefused: refused, msgspec.MsgspecError: malformed},
    )
    return TestClient(Door(app))


def test_a_page_is_filled(client: TestClient) -> None:
    answer = client.post("/v1/fills", json=BODY)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    response = msgspec.json.decode(answer.content, type=SlotResponse)
    assert [fill.product_id for fill in response.placements[0].fills] == ["p1"]


def test_optional_fields_have_defaults(client: TestClient) -> None:
    answer = client.post("/v1/fills", json={"page": {"type": "home"}, "placements": [{"placement_id": "top"}]})
    assert answer.status_code == 200
    assert answer.json()["partial"] is False


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"tmax_ms": 0},
        {"placements": []},
        {"placements": [{"placement_id": "top"}] * 6},
        {"placements": [{"placement_id": "top", "slot_count": 0}]},
        {"placements": [{"placement_id": "top", "candidates": [{"product_id": "p1", "relevance": 1.5}]}]},
        {"placements": [{"placement_id": "top", "candidates": [{"product_id": "p1", "organic_rank": 0}]}]},
        {"page": {"type": "elsewhere"}},
        {"mode": "free"},
        {"visitor_id": "v" * 65},
        {"visitor_id": "v\x00"},
    ],
)
def test_what_breaks_the_contract_is_refused(client: TestClient, change: dict[str, Any]) -> None:
    assert client.post("/v1/fills", json=BODY | change).status_code == 400


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b"nul", b'{"page":{"type":"home"},"placements":NaN}'])
def test_what_is_no_json_is_refused(client: TestClient, raw: bytes) -> None:
    assert client.post("/v1/fills", content=raw).status_code == 400


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/fills", content=b'{"page":' + b" " * 3_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("placements", "status", "code", "pointer"),
    [
        ([{"placement_id": "none"}], 404, "placement_unknown", "/placements/0/placement_id"),
        ([{"placement_id": "top"}] * 2, 422, "placement_repeated", "/placements/1/placement_id"),
        ([{"placement_id": "top", "slot_count": 2}], 422, "slot_count_too_large", "/placements/0/slot_count"),
    ],
)
def test_placements_that_cannot_be_filled(
    client: TestClient, placements: Any, status: int, code: str, pointer: str
) -> None:
    answer = client.post("/v1/fills", json=BODY | {"placements": placements})
    assert (answer.status_code, answer.json()) == (status, {"code": code, "pointer": pointer})


def test_a_placement_of_another_page_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/fills", json=BODY | {"page": {"type": "cart"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "placement_not_on_page")


def test_the_receipt_depends_on_who_asks(client: TestClient) -> None:
    auction_id = client.post("/v1/fills", json=BODY).json()["auction_id"]
    everything = client.get(f"/v1/auctions/{auction_id}").json()
    assert {one["bid_id"] for one in everything["placements"][0]["candidates"]} == {"bid_1", "bid_2"}
    own = client.get(f"/v1/auctions/{auction_id}", headers={"x-as": "adv_b"}).json()
    assert [one["bid_id"] for one in own["placements"][0]["candidates"]] == ["bid_2"]
    assert client.get(f"/v1/auctions/{auction_id}", headers={"x-as": "adv_c"}).status_code == 404
    assert client.get("/v1/auctions/auc_unknown").status_code == 404


def test_an_answer_over_its_time_is_partial_not_an_error(client: TestClient, served: Served) -> None:
    ticks = itertools.count(0, 2_000_000)  # every look at the clock finds it 2 ms later
    served.server.clock_ns = lambda: next(ticks)
    answer = client.post("/v1/fills", json=BODY | {"tmax_ms": 1})
    assert (answer.status_code, answer.json()["partial"]) == (200, True)
    assert answer.json()["placements"][0]["no_fill_reason"] == "timeout"
