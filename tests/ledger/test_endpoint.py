"""The ledger over HTTP, behind a door as small as can be."""

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from ledger import reports
from ledger.attribution import Shelf
from ledger.command import CloseDraft, CreditLineDraft, OrderBatch, ReversalDraft, TopUpDraft
from ledger.endpoint import Books, routes
from ledger.errors import LedgerRefused, LedgerUnavailable
from ledger.metrics import LedgerMetrics
from ledger.pipe import LocalIntake
from ledger.sales import SalesFacts
from tests.ledger.world import MINUTE_MS, NOON_MS, RETAILER, World

DRAFTS: dict[str, Any] = {
    "/v1/ledger/top-ups": TopUpDraft,
    "/v1/ledger/promotional-credits": TopUpDraft,
    "/v1/ledger/credit-lines": CreditLineDraft,
    "/v1/ledger/reversals": ReversalDraft,
    "/v1/ledger/periods/2026-11/close": CloseDraft,
    "/v1/orders": OrderBatch,
}
QUERIES: dict[str, Any] = {
    "/v1/ledger/accounts": reports.LedgerQuery,
    "/v1/ledger/balances": reports.LedgerQuery,
    "/v1/ledger/transactions": reports.TransactionsQuery,
    "/v1/ledger/statements": reports.StatementQuery,
    "/v1/ledger/top-ups": reports.FundsQuery,
    "/v1/ledger/promotional-credits": reports.FundsQuery,
    "/v1/ledger/credit-lines": reports.FundsQuery,
    "/v1/reconciliation": reports.ReconciliationQuery,
}
LINKS = {
    "p1": "https://shop.example/p/1?a=b",
    "path": "/p/2",
    "js": "javascript:alert(1)",
    "data": "data:text/html,x",
    "other": "//evil.example/",
    "odd": "https:/\\evil.example",
    "split": "https://shop.example/\r\nSet-Cookie: a=b",
    "relative": "evil",
}


class Caller(msgspec.Struct):
    role: str
    advertiser_id: str | None = None


class SmallDoor:
    """Does for these tests what the server's door does: who calls, the body, the query."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            role, _, advertiser_id = request.headers.get("x-caller", "").partition("/")
            scope["caller"] = Caller(role, advertiser_id or None) if role else None
            if request.method == "GET" and scope["path"] in QUERIES:
                scope["query"] = msgspec.convert(dict(request.query_params), QUERIES[scope["path"]], strict=False)
            if request.method == "POST" and scope["path"] in DRAFTS:
                scope["body"] = msgspec.json.decode(await request.body(), type=DRAFTS[scope["path"]])
        await self._app(scope, receive, send)


async def to_problem(_request: Request, refused: Exception) -> JSONResponse:
    if isinstance(refused, LedgerRefused):
        return JSONResponse({"code": refused.code, "pointer": refused.pointer}, refused.status)
    return JSONResponse({"code": "malformed"}, 400)


class Site:
    """A client, and the world behind it."""

    def __init__(self, world: World, client: TestClient, registry: CollectorRegistry) -> None:
        self.world, self.client, self.registry = world, client, registry

    def post(self, path: str, body: Any, role: str = "", **headers: str) -> tuple[int, Any]:
        answer = self.client.post(path, json=body, headers={"x-caller": role} | headers)
        return answer.status_code, answer.json()

    def get(self, path: str, role: str = "finance", **query: Any) -> tuple[int, Any]:
        answer = self.client.get(path, params=query, headers={"x-caller": role})
        return answer.status_code, answer.json()

    def follow(self, token: str, **headers: str) -> Any:
        return self.client.get(f"/v1/click/{token}", headers=headers, follow_redirects=False)


@contextmanager
def open_site(world: World) -> Iterator[Site]:
    registry = CollectorRegistry()
    metrics = LedgerMetrics(registry)
    intake = LocalIntake(world.writer, world.settings, metrics.moved, lambda failure: pytest.fail(str(failure)))
    metrics.watch(intake.unwritable_s)
    books = Books(
        retailer_id=RETAILER,
        intake=intake,
        read=world.database.read,
        keys=world.keys,
        product_link=LINKS.get,
        pseudonymize=lambda raw: raw.encode().ljust(16, b"*"),
        sales_facts=lambda connection, product_ids: SalesFacts(Shelf({}, {}), {}),
        settings=world.settings,
        metrics=metrics,
        now_ms=world.clock,
    )

    @asynccontextmanager
    async def lifespan(_app: Any) -> Any:
        async with intake:
            yield

    bad = {LedgerRefused: to_problem, msgspec.MsgspecError: to_problem, UnicodeDecodeError: to_problem}
    app = Starlette(routes=routes(books), lifespan=lifespan, exception_handlers=bad)  # type: ignore[arg-type]
    with TestClient(SmallDoor(app)) as client:
        yield Site(world, client, registry)


@pytest.fixture
def site(world: World) -> Iterator[Site]:
    with open_site(world) as opened:
        yield opened


def events(*some: dict[str, Any]) -> dict[str, Any]:
    return {"events": list(some)}


def click(token: str, event_id: str = "e1", **more: Any) -> dict[str, Any]:
    return {"event_id": event_id, "type": "click", "beacon_token": token, "occurred_at": "2026-11-24T12:00:00Z"} | more


def test_events_are_answered_in_order_and_amounts_only_shown_to_the_retailer(site: Site) -> None:
    site.world.fund("adv-1", 10**7)
    token = site.world.fill(123_457)
    assert site.post("/v1/events", events(click(token), click("forged", "e2"))) == (
        200,
        {
            "results": [
                {"event_id": "e1", "result": "accepted", "code": None, "amount_micros": None},
                {"event_id": "e2", "result": "rejected", "code": "forged", "amount_micros": None},
            ]
        },
    )
    for role, amount in (("retailer", 123_457), ("admin", 123_457), ("site", None)):
        _, answer = site.post("/v1/events", events(click(token)), role)
        assert answer["results"] == [{"event_id": "e1", "result": "duplicate", "code": None, "amount_micros": amount}]
    assert site.registry.get_sample_value(
        "endcap_ledger_events_total", {"type": "click", "result": "duplicate", "code": ""}
    ) == 3  # fmt: skip
    assert site.registry.get_sample_value("endcap_ledger_billed_micros_total") == 123_457
    assert site.registry.get_sample_value("endcap_ledger_unwritable_seconds") == 0


def test_a_beacon_sent_as_plain_text_from_anywhere_is_taken(site: Site) -> None:
    body = msgspec.json.encode(events(click(site.world.fill(charge_on=None))))
    headers = {"content-type": "text/plain;charset=UTF-8", "origin": "https://elsewhere.example"}
    answer = site.client.post("/v1/events", content=body, headers=headers)
    assert answer.json()["results"][0]["result"] == "unbilled"
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"events":[{"event_id":"e"}]}',
        b'{"events":[],"price":1}',
        b'{"events":[{"event_id":"e","type":"click","beacon_token":"t","amount_micros":5}]}',
        b'{"events":[{"event_id":"e","type":"order","beacon_token":"t"}]}',
        b'{"events":[{"event_id":"","type":"click","beacon_token":"t"}]}',
        b'{"events":[{"event_id":"a\\u0000b","type":"click","beacon_token":"t"}]}',
        b'{"events":[{"event_id":"e","type":"click","beacon_token":"t","occurred_at":"2026-11-24T12:00:00"}]}',
        b'{"events":[{"event_id":"e","type":"click","beacon_token":"t","occurred_at":NaN}]}',
        b'{"events":[' + b'{"event_id":"e","type":"click","beacon_token":"t"},' * 500
        + b'{"event_id":"e","type":"click","beacon_token":"t"}]}',
    ],
)  # fmt: skip
def test_a_body_that_breaks_a_rule_is_refused_and_writes_nothing(site: Site, body: bytes) -> None:
    assert site.client.post("/v1/events", content=body).status_code == 400
    assert site.world.one("SELECT COUNT(*) FROM events") == 0


def test_a_body_over_its_limit_is_refused(site: Site) -> None:
    assert site.client.post("/v1/events", content=b" " * (site.world.settings.body_bytes_max + 1)).status_code == 413


def test_only_the_retailer_speaks_for_another_browser(site: Site) -> None:
    site.world.fund("adv-1", 10**7)
    robot = {"user_agent": "ExampleBot/1.0", "ip": "192.0.2.1"}
    for body in (events(click("t", client=robot)), events(click("t")) | {"client": robot}):
        status, problem = site.post("/v1/events", body)
        assert (status, problem["code"]) == (403, "client_not_allowed")
    tokens = [site.world.fill(7_919) for _ in range(4)]
    said = events(click(tokens[0], "e0", client=robot), click(tokens[1], "e1", client={"user_agent": "Firefox"}))
    _, answer = site.post("/v1/events", said | {"client": robot}, "retailer")
    assert [r["result"] for r in answer["results"]] == ["unbilled", "accepted"]
    own_server = {"user-agent": "shop-crawler-and-server/2.0"}  # the retailer's own, and nobody's browser
    _, answer = site.post("/v1/events", events(click(tokens[2], "e2")), "retailer", **own_server)
    assert answer["results"][0]["result"] == "accepted"
    _, answer = site.post("/v1/events", events(click(tokens[3], "e3")), **own_server)
    assert answer["results"][0] == {"event_id": "e3", "result": "unbilled", "code": None, "amount_micros": None}
    _, again = site.post("/v1/events", events(click(tokens[3], "e3")), **own_server)
    assert (again["results"][0]["result"], again["results"][0]["code"]) == ("duplicate", None), (
        "a robot is not told why"
    )
    assert site.world.rows("SELECT code FROM events WHERE event_id = 'e3'") == [("robot",)]
    for (row,) in site.world.rows("SELECT event_id || COALESCE(code, '') || product_id FROM events"):
        assert "192.0.2.1" not in str(row)


@pytest.mark.parametrize(("product_id", "location"), [("p1", LINKS["p1"]), ("path", LINKS["path"])])
def test_a_click_is_recorded_and_led_to_the_catalogues_link(site: Site, product_id: str, location: str) -> None:
    site.world.fund("adv-1", 10**7)
    token = site.world.fill(7_919, product_id=product_id)
    for _ in range(2):
        answer = site.follow(token)
        assert (answer.status_code, answer.headers["location"]) == (302, location)
        assert answer.headers["cache-control"] == "no-store"
    assert site.world.rows("SELECT type, status, amount_micros FROM audit_event") == [("click", "accepted", 7_919)]


@pytest.mark.parametrize("product_id", ["js", "data", "other", "odd", "split", "relative", "unknown"])
def test_a_click_leads_nowhere_but_to_a_page(site: Site, product_id: str) -> None:
    answer = site.follow(site.world.fill(product_id=product_id))
    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert site.world.one("SELECT COUNT(*) FROM events") == 0


def test_a_forged_click_is_not_found_and_an_expired_one_still_leads_on(site: Site) -> None:
    token = site.world.fill()
    assert site.follow(token[:-2] + "zz").status_code == 404
    site.world.clock.pass_ms(25 * 60 * MINUTE_MS)
    assert site.follow(token).status_code == 302
    assert site.world.one("SELECT COUNT(*) FROM events") == 0


def test_looking_ahead_is_not_clicking(site: Site) -> None:
    token = site.world.fill()
    assert site.follow(token, **{"sec-purpose": "prefetch;prerender"}).status_code == 403
    assert site.client.head(f"/v1/click/{token}", follow_redirects=False).status_code == 302
    assert site.world.one("SELECT COUNT(*) FROM events") == 0


def test_a_click_that_cannot_be_written_is_not_acknowledged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LedgerUnavailable("storage_full")

    monkeypatch.setattr(site.world.writer, "_commit", fail)
    token = site.world.fill()
    assert site.follow(token).status_code == 503
    assert site.post("/v1/events", events(click(token)))[0] == 503
    assert site.registry.get_sample_value("endcap_ledger_events_unanswered_total") == 2


def test_finance_books_money_in_once_per_reference(site: Site) -> None:
    draft = {"advertiser_id": "adv-1", "amount_micros": 1_000_003, "reference": "bank 17"}
    status, booked = site.post("/v1/ledger/top-ups", draft)
    assert (status, booked["top_up_id"], booked["transaction_id"]) == (201, "bank 17", "txn_1")
    assert site.post("/v1/ledger/top-ups", draft) == (200, booked)
    assert site.post("/v1/ledger/top-ups", draft | {"amount_micros": 5})[0] == 409
    assert site.post("/v1/ledger/promotional-credits", draft)[0] == 201
    status, funds = site.post("/v1/ledger/credit-lines", {"advertiser_id": "adv-1", "amount_micros": 7})
    assert (status, funds["funds_micros"], funds["credit_line_micros"]) == (200, 2_000_013, 7)
    assert site.get("/v1/ledger/top-ups")[1]["items"] == [booked]
    assert site.get("/v1/ledger/promotional-credits")[1]["items"][0]["promotional_credit_id"] == "bank 17"
    assert site.get("/v1/ledger/credit-lines")[1]["items"] == [funds]
    status, reversal = site.post("/v1/ledger/reversals", {"transaction_id": "txn_3", "reason": "by mistake"})
    assert (status, reversal["transaction_id"], reversal["reverses"]) == (201, "txn_5", "txn_3")
    assert site.post("/v1/ledger/reversals", {"transaction_id": "txn_3", "reason": "again"})[0] == 409


def test_finance_reads_one_charge_in_balanced_postings(site: Site) -> None:
    site.world.fund("adv-1", 1_000_003)
    site.world.click(site.world.fill(123_457), event_id="e1")
    status, charge = site.get("/v1/ledger/transactions/txn_3")
    assert (status, charge["reason"], charge["currency"]) == (200, "charge:click", "EUR")
    assert charge["postings"] == [
        {"account": "wallet:adv-1", "side": "debit", "amount_micros": 123_457},
        {"account": "revenue:media", "side": "credit", "amount_micros": 123_457},
    ]
    assert site.get("/v1/ledger/transactions/txn_9")[0] == 404
    assert site.get("/v1/ledger/trial-balance")[1]["difference_micros"] == 0
    assert {one["account"] for one in site.get("/v1/ledger/accounts")[1]["items"]} == {
        "cash", "wallet:adv-1", "revenue:media",
    }  # fmt: skip
    assert site.get("/v1/ledger/balances", advertiser_id="adv-1")[1]["items"] == [
        {"account": "wallet:adv-1", "currency": "EUR", "posted_micros": -876_546}
    ]
    statement = site.get("/v1/ledger/statements", advertiser_id="adv-1", period="2026-11")[1]
    assert statement["accounts"][0]["closing_micros"] == -876_546
    (line,) = site.get("/v1/reconciliation", **{"from": "2026-11-24T00:00:00Z", "to": "2026-11-25T00:00:00Z"})[1][
        "items"
    ]
    assert (line["count"], line["amount_micros"], line["digest"]) == (1, 123_457, reports.digest_of(["e1"]))


def test_the_journal_is_paged_without_a_gap(site: Site) -> None:
    site.world.fund("adv-1", 1_000_003)
    for _ in range(7):
        site.world.click(site.world.fill(11))
    seen: list[str] = []
    token = None
    while True:
        query = {"page_size": 3} | ({} if token is None else {"page_token": token})
        _, page = site.get("/v1/ledger/transactions", **query)
        seen += [one["transaction_id"] for one in page["items"]]
        token = page["next_page_token"]
        if token is None:
            break
    assert seen == [f"txn_{n}" for n in range(1, 17, 2)]
    assert len(site.get("/v1/ledger/transactions", account="cash")[1]["items"]) == 1
    assert site.get("/v1/ledger/transactions", page_token="%%")[0] == 400
    assert site.get("/v1/ledger/transactions", period="2026-12")[1]["items"] == []


def test_an_advertisers_key_sees_its_own_figures_only(site: Site) -> None:
    for who in ("adv-1", "adv-2"):
        site.world.fund(who, 1_000_003)
    _, own = site.get("/v1/ledger/balances", "advertiser/adv-1")
    assert [one["account"] for one in own["items"]] == ["wallet:adv-1"]
    assert site.get("/v1/ledger/statements", "advertiser/adv-1", advertiser_id="adv-2", period="2026-11")[0] == 404


def test_orders_are_kept_under_pseudonyms(site: Site) -> None:
    lines = [{"product_id": "p1", "quantity": 1, "unit_price_micros": 990_000}]
    order = {"order_id": "o1", "visitor_id": "v-1", "occurred_at": "2026-11-24T12:00:00+01:00", "channel": "store"}
    body = {"orders": [order | {"lines": lines, "store_id": "s1"}]}
    assert site.post("/v1/orders", body) == (200, {"results": [{"order_id": "o1", "result": "accepted"}]})
    assert site.post("/v1/orders", body)[1]["results"][0]["result"] == "duplicate"
    ((visitor, customer, at_ms),) = site.world.rows("SELECT visitor, customer, occurred_at_ms FROM orders")
    assert (bytes(visitor), customer, at_ms) == (b"v-1".ljust(16, b"*"), None, NOON_MS - 60 * MINUTE_MS)  # type: ignore[call-overload]


def test_many_requests_at_once_are_all_answered(site: Site) -> None:
    tokens = [site.world.fill(charge_on=None) for _ in range(40)]

    async def send_all() -> list[int]:
        work = [
            asyncio.to_thread(site.client.post, "/v1/events", json=events(click(token, f"e{n}")))
            for n, token in enumerate(tokens)
        ]
        return [answer.status_code for answer in await asyncio.gather(*work)]

    assert asyncio.run(send_all()) == [200] * 40
    assert site.world.one("SELECT COUNT(*) FROM events") == 40
