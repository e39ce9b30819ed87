"""Webhooks over the API: whose they are, what is shown of them, and that no secret is kept."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from bidder_api.database import Database
from bidder_api.operations import Operation
from bidder_api.table import OPERATIONS
from bidder_api.webhooks import endpoint, store
from bidder_api.webhooks.deliverer import make_delivery
from ledger import notice
from ledger.store import spend
from tests.bidder_api.world import RETAILER, World, world_over
from tests.receiver import Receiver

HOOK = {"url": "https://brand.example/hook", "status": "paused"}  # paused: nobody is to be called by these tests
OPERATIONS_ON_ONE = [operation for operation in OPERATIONS if "{webhook_id}" in operation.path]
OPERATIONS_ON_FUNDS = [operation for operation in OPERATIONS if operation.path.startswith("/v1/ledger/low-funds")]
# Who makes a webhook, and to whom it exists besides an admin: an advertiser's to it and its agency, staff's to staff.
ACME, BRIO = ("advertiser", ("acme",)), ("advertiser", ("brio",))
AGENCY, OTHER_AGENCY = ("agency", ("acme", "cara")), ("agency", ("cara", "dora"))
RETAILERS, FINANCE, ADMIN = ("retailer", ()), ("finance", ()), ("admin", ())
CALLERS = [ACME, BRIO, AGENCY, OTHER_AGENCY, RETAILERS, FINANCE, ADMIN]
EXISTS_FOR = {ACME: [ACME, AGENCY, ADMIN], FINANCE: [RETAILERS, FINANCE, ADMIN]}


def call(
    world: World, caller: tuple[str, tuple[str, ...]], method: str, path: str, body: Any = None, **more: Any
) -> Any:
    return world.call(method, path, body, role=caller[0], tenants=caller[1], **more)


def create(world: World, caller: tuple[str, tuple[str, ...]] = ACME, **changes: Any) -> Any:
    answer = call(world, caller, "POST", "/v1/webhooks", HOOK | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


def keep_delivery(world: World, webhook_id: str, number: int = 1) -> str:
    made = make_delivery(webhook_id, number, f"ntc_{number}", "funds.low", "{}", world.clock())
    world.database.transact(lambda c: store.insert_deliveries(c, RETAILER, [made]))
    return made.delivery_id


@pytest.mark.parametrize("operation", OPERATIONS_ON_ONE, ids=lambda operation: operation.name)
@pytest.mark.parametrize("maker", [ACME, FINANCE], ids=["an advertiser's", "the staff's"])
def test_for_every_caller_a_foreign_webhook_is_an_unknown_one(
    shared_world: World, operation: Operation, maker: tuple[str, tuple[str, ...]]
) -> None:
    world = shared_world
    for caller in CALLERS:
        made = create(world, maker)
        webhook_id, delivery_id = made["webhook_id"], keep_delivery(world, made["webhook_id"])
        unknown = webhook_id[:-4] + "0000"
        answers = []
        for one in (webhook_id, unknown):
            path = operation.path.replace("{webhook_id}", one).replace("{delivery_id}", delivery_id)
            body = {"url": "https://other.example/"} if operation.method == "PATCH" else None
            answer = call(world, caller, operation.method, path, body, headers={"If-Match": "*"})
            answers.append((answer.status_code, answer.text.replace(one, "ID"), sorted(answer.headers)))
        assert answers[1][0] == 404
        if caller in EXISTS_FOR[maker]:
            assert answers[0][0] == operation.status, (caller, answers[0])
        else:
            assert answers[0] == answers[1], caller
            left = call(world, maker, "GET", f"/v1/webhooks/{webhook_id}").json()
            assert left == {name: value for name, value in made.items() if name != "secret"}
        call(world, ADMIN, "DELETE", f"/v1/webhooks/{webhook_id}")


def test_a_delivery_of_another_webhook_is_an_unknown_one(shared_world: World) -> None:
    """Also of another webhook of the same owner."""
    world = shared_world
    own, other = create(world)["webhook_id"], create(world)["webhook_id"]
    foreign = create(world, BRIO)["webhook_id"]
    texts = []
    for delivery_id in (keep_delivery(world, other), keep_delivery(world, foreign), "dlv_" + "0" * 26):
        answer = call(world, ACME, "POST", f"/v1/webhooks/{own}/deliveries/{delivery_id}/redeliver")
        assert answer.status_code == 404
        texts.append(answer.text.replace(delivery_id, "ID"))
    assert len(set(texts)) == 1


@pytest.mark.parametrize("operation", OPERATIONS_ON_FUNDS, ids=lambda operation: operation.name)
def test_a_foreign_advertisers_threshold_is_an_unknown_ones(shared_world: World, operation: Operation) -> None:
    world = shared_world
    for who in ("acme", "brio", "cara", "dora"):
        world.headers("advertiser", who)
    body = {"threshold_micros": 5} if operation.method == "PUT" else None
    own = {ACME: "acme", AGENCY: "cara", FINANCE: "brio", ADMIN: "brio"}
    for caller in (ACME, AGENCY, FINANCE, ADMIN):
        path = "/v1/ledger/low-funds/"
        assert call(world, caller, operation.method, path + own[caller], body).status_code == 200
        foreign = [call(world, caller, operation.method, path + one, body) for one in ("brio", "nobody")]
        if caller in (ACME, AGENCY):
            assert foreign[0].text.replace("brio", "ID") == foreign[1].text.replace("nobody", "ID")
            assert foreign[0].status_code == 404
        assert foreign[1].status_code == 404


def test_who_lists_sees_their_own(world: World) -> None:
    made = {maker: create(world, maker)["webhook_id"] for maker in (ACME, BRIO, FINANCE)}
    for caller in CALLERS:
        seen = {one["webhook_id"] for one in call(world, caller, "GET", "/v1/webhooks").json()["items"]}
        exists = {made[maker] for maker, whose in (EXISTS_FOR | {BRIO: [BRIO, ADMIN]}).items() if caller in whose}
        assert seen == exists, caller


def test_whose_a_webhook_is_comes_from_the_key(world: World) -> None:
    assert create(world, ACME)["advertiser_id"] == "acme"
    assert create(world, FINANCE)["advertiser_id"] is None
    assert create(world, ADMIN)["advertiser_id"] is None
    world.headers("advertiser", "acme")
    assert create(world, AGENCY, advertiser_id="acme")["advertiser_id"] == "acme"
    assert create(world, ADMIN, advertiser_id="acme")["advertiser_id"] == "acme"
    for caller, named, code in (
        (ACME, "acme", "advertiser_id_not_allowed"),
        (ACME, "brio", "advertiser_id_not_allowed"),
        (FINANCE, "acme", "advertiser_id_not_allowed"),
        (AGENCY, "brio", "advertiser_unknown"),
        (ADMIN, "nobody", "advertiser_unknown"),
    ):
        answer = call(world, caller, "POST", "/v1/webhooks", HOOK | {"advertiser_id": named})
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert call(world, AGENCY, "POST", "/v1/webhooks", HOOK).json()["code"] == "advertiser_id_missing"


@pytest.mark.parametrize("field", ["secret", "webhook_id", "secret_generation", "version", "previous_secret_until"])
def test_what_the_server_sets_cannot_be_sent(shared_world: World, field: str) -> None:
    made = create(shared_world)
    path = f"/v1/webhooks/{made['webhook_id']}"
    answers = [
        call(shared_world, ACME, "POST", "/v1/webhooks", HOOK | {field: "x"}),
        call(shared_world, ACME, "PATCH", path, {field: "x"}, headers={"If-Match": "*"}),
        call(shared_world, ACME, "PATCH", path, {"advertiser_id": "brio"}, headers={"If-Match": "*"}),
    ]
    assert {(one.status_code, one.json()["code"]) for one in answers} == {(400, "field_unknown")}


def test_a_secret_is_answered_once_and_is_in_no_table(each_world: World) -> None:
    world = each_world
    headers = {"Idempotency-Key": "make it once"}
    answers = [call(world, ACME, "POST", "/v1/webhooks", HOOK, headers=headers) for _ in range(2)]
    first, again = (answer.json() for answer in answers)
    secret = first["secret"]
    assert secret.startswith("whsec_")
    assert again == first | {"secret": None}
    path = f"/v1/webhooks/{first['webhook_id']}"
    rotated = call(world, ACME, "POST", path + "/rotate", headers={"Idempotency-Key": "turn"}).json()
    assert rotated["secret"] not in (None, secret)
    assert rotated["previous_secret_until"] is not None
    for shown in (call(world, ACME, "GET", path), call(world, ADMIN, "GET", "/v1/webhooks")):
        assert 'secret"' not in shown.text
    everything = b""
    with world.database.engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            for row in connection.exec_driver_sql(f'SELECT * FROM "{table}"'):
                everything += b"".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)
    for text in (secret, rotated["secret"]):
        raw = base64.b64decode(text.removeprefix("whsec_"))
        for trace in (text.removeprefix("whsec_").encode(), raw, raw.hex().encode()):
            assert trace not in everything
    assert first["webhook_id"].encode() in everything


def test_changes_need_the_tag_of_what_is_changed_and_are_logged(world: World) -> None:
    made = create(world)
    path = f"/v1/webhooks/{made['webhook_id']}"
    tag = call(world, ACME, "GET", path).headers["etag"]
    assert call(world, ACME, "PATCH", path, {"event_types": ["funds.low"]}).status_code == 428
    changed = call(world, ACME, "PATCH", path, {"event_types": ["funds.low", "funds.low"]}, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["event_types"]) == (200, ["funds.low"])
    stale = call(world, ACME, "PATCH", path, {"status": "active"}, headers={"If-Match": tag})
    assert (stale.status_code, stale.json()["code"]) == (412, "etag_stale")
    call(world, ACME, "POST", path + "/rotate")
    assert call(world, ACME, "DELETE", path).status_code == 204
    assert call(world, ACME, "GET", path).status_code == 404
    changes = call(world, ("auditor", ()), "GET", "/v1/changes").json()["items"]
    done = [one["action"] for one in changes if one["resource_id"] == made["webhook_id"]]
    assert done == ["create", "update", "rotate", "delete"]
    assert made["secret"] not in json.dumps(changes)


def test_urls_that_lead_nowhere_good_are_refused_at_the_field(shared_world: World) -> None:
    for url in ("http://brand.example/", "https://127.0.0.1/", "https://169.254.169.254/", "https://localhost/x"):
        answer = call(shared_world, ACME, "POST", "/v1/webhooks", HOOK | {"url": url})
        assert (answer.status_code, answer.json()["code"], answer.json()["pointer"]) == (422, "url_refused", "/url")
    made = create(shared_world)
    answer = call(
        shared_world,
        ACME,
        "PATCH",
        f"/v1/webhooks/{made['webhook_id']}",
        {"url": "https://10.0.0.1/"},
        headers={"If-Match": "*"},
    )
    assert answer.json()["code"] == "url_refused"
    for wrong in ({"event_types": ["visitor.seen"]}, {"status": "archived"}, {"url": None}):
        assert call(shared_world, ACME, "POST", "/v1/webhooks", HOOK | wrong).status_code == 400


def test_there_is_an_end_to_webhooks(world: World) -> None:
    for _ in range(endpoint.WEBHOOK_COUNT_MAX):
        create(world)
    answer = call(world, ACME, "POST", "/v1/webhooks", HOOK)
    assert (answer.status_code, answer.json()["code"]) == (409, "webhooks_too_many")
    create(world, BRIO)
    create(world, FINANCE)


def test_deliveries_are_listed_the_newest_first_by_status_and_page(world: World) -> None:
    webhook_id = create(world)["webhook_id"]
    path = f"/v1/webhooks/{webhook_id}/deliveries"
    made = []
    for number in range(1, 6):
        world.clock.now_ms += 1
        made.append(keep_delivery(world, webhook_id, number))
    first = call(world, ACME, "GET", path, params={"page_size": 3}).json()
    second = call(world, ACME, "GET", path, params={"page_size": 3, "page_token": first["next_page_token"]}).json()
    assert [one["delivery_id"] for one in first["items"] + second["items"]] == made[::-1]
    assert second["next_page_token"] is None
    assert call(world, ACME, "GET", path, params={"status": "dead"}).json()["items"] == []
    assert call(world, ACME, "GET", path, params={"status": "lost"}).status_code == 400


def test_deleting_takes_the_deliveries_along(each_world: World) -> None:
    world = each_world
    webhook_id = create(world)["webhook_id"]
    keep_delivery(world, webhook_id)
    call(world, ACME, "DELETE", f"/v1/webhooks/{webhook_id}")
    assert world.read(lambda c: store.list_deliveries(c, RETAILER, webhook_id)) == []


@pytest.fixture
def here(sqlite_database: Database) -> Iterator[World]:
    """A world whose webhooks may lead to this machine."""
    with world_over(sqlite_database, webhook_loopback="on") as made:
        yield made


def test_a_test_is_delivered_and_again_under_its_id(here: World) -> None:
    world = here
    with Receiver(500) as receiver:
        webhook_id = create(world, url=receiver.url, status="active")["webhook_id"]
        sent = call(world, ACME, "POST", f"/v1/webhooks/{webhook_id}/test")
        assert (sent.status_code, sent.json()["type"], sent.json()["status"]) == (202, "webhook.test", "pending")
        (failed,) = receiver.wait(1)
        path = f"/v1/webhooks/{webhook_id}/deliveries/{sent.json()['delivery_id']}/redeliver"
        assert failed.headers["webhook-id"] == sent.json()["notice_id"]
        while (
            call(world, ACME, "GET", f"/v1/webhooks/{webhook_id}/deliveries").json()["items"][0]["last_status"] != 500
        ):
            pass
        assert call(world, ACME, "POST", path).json()["attempt_count"] == 0
        receiver.wait(2)
        assert {one.headers["webhook-id"] for one in receiver.received} == {sent.json()["notice_id"]}
        assert json.loads(failed.body)["data"] == {"webhook_id": webhook_id}


def test_money_that_finance_books_is_told_to_the_advertiser(here: World) -> None:
    world = here
    world.headers("advertiser", "acme")
    with Receiver() as receiver:
        create(world, url=receiver.url, status="active", event_types=["payment.received"])
        body = {"advertiser_id": "acme", "amount_micros": 7_000_001, "reference": "wire 1"}
        assert call(world, FINANCE, "POST", "/v1/ledger/top-ups", body).status_code == 201
        (received,) = receiver.wait(1)
    told = json.loads(received.body)
    assert told["type"] == "payment.received"
    assert told["data"] == {
        "advertiser_id": "acme",
        "currency": "EUR",
        "kind": "top-up",
        "amount_micros": 7_000_001,
        "reference": "wire 1",
        "transaction_id": "txn_1",
    }


def test_the_threshold_is_the_advertisers_own_or_the_settings(world: World) -> None:
    path = "/v1/ledger/low-funds/acme"
    world.headers("advertiser", "acme")
    default = {"advertiser_id": "acme", "threshold_micros": 50_000_000, "is_default": True}
    assert call(world, ACME, "GET", path).json() == default
    put = call(world, ACME, "PUT", path, {"threshold_micros": 70_000_000})
    assert put.json() == {"advertiser_id": "acme", "threshold_micros": 70_000_000, "is_default": False}
    call(
        world,
        FINANCE,
        "POST",
        "/v1/ledger/top-ups",
        {"advertiser_id": "acme", "amount_micros": 80_000_000, "reference": "1"},
    )
    call(world, FINANCE, "PUT", path, {"threshold_micros": 90_000_000})
    kinds = world.read(lambda c: [row[0] for row in c.exec_driver_sql("SELECT type FROM notices ORDER BY seq")])
    assert kinds == ["payment.received", "funds.low"]
    assert call(world, ACME, "PUT", path, {"threshold_micros": None}).json() == default
    for wrong in ({"threshold_micros": -1}, {}, {"threshold_micros": 1.5}):
        assert call(world, ACME, "PUT", path, wrong).status_code == 400


def test_a_budget_lowered_over_the_api_and_a_booking_are_told_of(world: World) -> None:
    """What moves funds and limits outside the ledger's writer tells as well."""
    product = {"title": "Shoe", "price_micros": 1, "advertiser_ids": ["acme"]}
    call(world, ADMIN, "PUT", "/v1/products/p1", product)
    placement = {"page_types": ["category"], "slot_count": 2}
    assert call(world, ADMIN, "PUT", "/v1/placements/top", placement).status_code == 201
    call(world, FINANCE, "POST", "/v1/ledger/credit-lines", {"advertiser_id": "acme", "amount_micros": 80_000_000})
    booking = {
        "placement_id": "top",
        "slot_position": 1,
        "product_id": "p1",
        "advertiser_id": "acme",
        "starts_at": "2027-01-01T00:00:00Z",
        "ends_at": "2027-01-02T00:00:00Z",
        "price_micros": 40_000_000,
    }
    assert call(world, ("merchant", ()), "POST", "/v1/bookings", booking).status_code == 201
    campaign = call(world, ACME, "POST", "/v1/campaigns", {"name": "c", "daily_budget_micros": 9_000_000}).json()
    day = "2026-11-18"
    world.database.transact(lambda c: spend(c, RETAILER, [(campaign["campaign_id"], day, 9_000_000, 8_000_000)]))
    call(
        world,
        ACME,
        "PATCH",
        f"/v1/campaigns/{campaign['campaign_id']}",
        {"daily_budget_micros": 8_000_000},
        headers={"If-Match": "*"},
    )
    bodies = world.read(lambda c: [row[0] for row in c.exec_driver_sql("SELECT body FROM notices ORDER BY seq")])
    told = [msgspec.json.decode(body) for body in bodies]
    assert [one["type"] for one in told] == ["funds.low", "campaign.daily_budget_exhausted"]
    assert told[0]["data"]["owed_micros"] == 40_000_000
    assert told[1]["data"]["day"] == day


def test_the_types_a_webhook_may_ask_for_are_those_there_are() -> None:
    assert set(notice.NoticeType.__args__) == {  # type: ignore[attr-defined]
        "funds.low",
        "funds.exhausted",
        "campaign.daily_budget_exhausted",
        "campaign.total_budget_exhausted",
        "invoice.issued",
        "payment.received",
    }
