"""Navigation, profiles, links and erasure over HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from affinity import store
from affinity.endpoint import LinkDraft, routes
from affinity.erasure import Elsewhere, Eraser
from affinity.errors import AffinityRefused, ErasureUnfinished
from affinity.metrics import AffinityMetrics
from affinity.navigation_log import NavigationLog
from affinity.profile import ProfileDraft
from affinity.pseudonym import Pseudonymizer
from affinity.settings import Settings
from affinity.visitors import VisitorStore
from bidder_api.database import Database

NOW_MS = 1_700_000_000_000
R = "shop"


class Guard:
    """Does what the door does: decodes the body of what is not hot."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = {"PUT": ProfileDraft, "POST": LinkDraft}.get(scope.get("method", ""))
        if kind is not None and scope["path"] != "/v1/navigation":
            scope["body"] = msgspec.json.decode(await Request(scope, receive).body(), type=kind)
        await self.app(scope, receive, send)


async def refuse(_request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, AffinityRefused)
    return JSONResponse({"code": refusal.code, "pointer": refusal.pointer}, refusal.status)


@pytest.fixture
def visitors(tmp_path: Path) -> VisitorStore:
    return VisitorStore(Settings(), Pseudonymizer(b"k" * 32), NavigationLog(tmp_path / "navigation", 1 << 20))


@pytest.fixture
def client(visitors: VisitorStore, sqlite_database: Database) -> Iterator[TestClient]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield

    metrics = AffinityMetrics(CollectorRegistry())
    app = Starlette(
        routes=routes(visitors, sqlite_database.transact, R, lambda: NOW_MS, metrics),
        exception_handlers={AffinityRefused: refuse},
        middleware=[Middleware(Guard)],
        lifespan=lifespan,
    )
    with TestClient(app) as client:
        yield client


def batch(*visitor_ids: str, **more: Any) -> dict[str, Any]:
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC).isoformat()
    events = [
        {"visitor_id": one, "action": "purchase", "product_id": "p", "occurred_at": at, "price_micros": 5} | more
        for one in visitor_ids
    ]
    return {"events": events}


def test_events_are_in_the_log_when_they_are_acknowledged(client: TestClient, visitors: VisitorStore) -> None:
    answer = client.post("/v1/navigation", json=batch("v", "w", "v"))
    assert (answer.status_code, answer.json()) == (202, {"recorded": 3, "duplicates": 0})
    assert visitors.log is not None
    assert sum(1 for name in visitors.log.segments() for _ in visitors.log.read(name)) == 3


def test_a_batch_with_an_event_from_the_future_is_refused_whole(client: TestClient, visitors: VisitorStore) -> None:
    answer = client.post("/v1/navigation", json=batch("v", occurred_at="2099-01-01T00:00:00Z"))
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/events/0/occurred_at")
    assert len(visitors) == 0


def test_a_body_over_its_limit_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/navigation", content=b" " * 600_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_profile_is_kept_and_shown_with_what_is_computed(client: TestClient, sqlite_database: Database) -> None:
    assert client.get("/v1/profiles/v").status_code == 404
    client.post("/v1/navigation", json=batch("v"))
    body = {"segments": ["vip"], "attributes": {"age": 40}}
    answer = client.put("/v1/profiles/v", json=body)
    assert answer.status_code == 200
    assert client.get("/v1/profiles/v").json() == {
        "visitor_id": "v",
        **body,
        "computed": {
            "rfm": "lost",
            "clv_tier": "low",
            "clv_micros": 2,
            "lifecycle": "new",
            "order_count": 1,
            "order_status": "kept",
            "promophile": None,
            "promotion_share": None,
            "promotion_lift": None,
            "price_tier": None,
            "entered": [],
        },
    }
    assert len(sqlite_database.read(lambda c: store.read_profiles(c, R))) == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"segments": ["vip", "Trade-Union members"]}, "/segments/1"),
        ({"attributes": {"religion": "none of yours"}}, "/attributes/religion"),
        ({"attributes": {"interest": "Catholic"}}, "/attributes/interest"),
    ],
)
def test_a_profile_that_tells_of_a_special_category_is_refused_whole(
    client: TestClient, sqlite_database: Database, body: dict[str, Any], pointer: str
) -> None:
    answer = client.put("/v1/profiles/v", json=body)
    assert (answer.status_code, answer.json()) == (422, {"code": "special_category", "pointer": pointer})
    assert sqlite_database.read(lambda c: store.read_profiles(c, R)) == []
    assert client.put("/v1/profiles/v", json={"attributes": {"brand": "Christian Dior"}}).status_code == 200


def test_a_link_is_made_once_and_undone_once(client: TestClient, sqlite_database: Database) -> None:
    assert client.post("/v1/visitors/v/link", json={"customer_id": "c"}).json() == {
        "visitor_id": "v",
        "customer_id": "c",
    }
    assert client.post("/v1/visitors/v/link", json={"customer_id": "c"}).status_code == 200
    assert client.post("/v1/visitors/v/link", json={"customer_id": "d"}).status_code == 409
    client.put("/v1/profiles/v", json={"segments": ["vip"]})
    assert client.get("/v1/profiles/c").json()["segments"] == ["vip"]
    assert client.delete("/v1/visitors/v/link").status_code == 204
    assert client.delete("/v1/visitors/v/link").status_code == 404
    assert sqlite_database.read(lambda c: store.read_links(c, R)) == {}


def test_erasing_leaves_nothing_under_the_visitors_key_or_their_devices(
    client: TestClient, visitors: VisitorStore, sqlite_database: Database
) -> None:
    client.post("/v1/navigation", json=batch("phone", "laptop", "other"))
    client.put("/v1/profiles/phone", json={"segments": ["vip"]})
    client.post("/v1/visitors/phone/link", json={"customer_id": "c"})
    client.post("/v1/visitors/laptop/link", json={"customer_id": "c"})
    client.put("/v1/profiles/laptop", json={"segments": ["x"]})
    assert client.delete("/v1/visitors/laptop").status_code == 204
    assert visitors.log is not None
    left = {line.pseudonym for name in visitors.log.segments() for line in visitors.log.read(name)}
    assert left == {visitors.pseudonym("other")}
    assert sqlite_database.read(lambda c: store.read_profiles(c, R)) == []
    assert sqlite_database.read(lambda c: store.read_links(c, R)) == {}
    for name in ("phone", "laptop", "c"):
        assert visitors.record(visitors.pseudonym(name)) is None
    assert client.delete("/v1/visitors/laptop").status_code == 204
    client.post("/v1/navigation", json=batch("laptop"))
    assert visitors.record(visitors.pseudonym("laptop")) is not None


def test_an_erasure_that_could_not_be_finished_says_so_and_is_finished_when_asked_again(
    visitors: VisitorStore, sqlite_database: Database
) -> None:
    scrubbed: list[set[bytes]] = []

    def scrub(pseudonyms: Collection[bytes]) -> None:
        scrubbed.append(set(pseudonyms))
        if len(scrubbed) == 1:
            raise ErasureUnfinished("somebody reads")

    eraser = Eraser(visitors, sqlite_database.transact, R, Elsewhere(scrub=scrub))
    phone, customer = visitors.pseudonym("phone"), visitors.pseudonym("customer")
    sqlite_database.transact(lambda c: store.put_link(c, R, phone, customer, 1))
    visitors.link(phone, customer)
    with pytest.raises(ErasureUnfinished) as refused:
        asyncio.run(eraser.erase_person(phone))
    assert (refused.value.status, refused.value.retryable) == (503, True)
    asyncio.run(eraser.erase_person(phone))  # whose customer is nowhere any more
    assert scrubbed == [{phone, customer}, {phone, customer}]
    asyncio.run(eraser.erase_person(phone))
    assert scrubbed[2] == {phone}
