"""One management call is one transaction: its effect, its answer, its line in the log and its leaf in the chain."""

import threading
from typing import Any

import sqlalchemy as sa

from bidder_api.changes import CHAIN_KIND, change_leaves
from bidder_api.idempotency import KEPT_MS, forget_old
from bidder_api.store import list_changes
from ledger import store as ledger_store
from ledger.chain import hash_leaf, merkle_root
from tests.bidder_api.world import RETAILER, World

CAMPAIGN = {"name": "Spring", "daily_budget_micros": 5_000_003, "total_budget_micros": 50_000_007}


def create(world: World, key: str | None = None, **more: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return world.call("POST", "/v1/campaigns", {**CAMPAIGN, **more.pop("body", {})}, headers=headers, **more)


def count(world: World) -> int:
    return len(world.call("GET", "/v1/campaigns?page_size=200").json()["items"])


def test_the_same_key_twice_is_one_campaign_and_one_answer(each_world: World) -> None:
    first, second = create(each_world, "k"), create(each_world, "k")
    assert (first.status_code, first.json(), first.headers["etag"]) == (
        second.status_code,
        second.json(),
        second.headers["etag"],
    )
    assert second.headers["idempotent-replayed"] == "true"
    assert count(each_world) == 1


def test_the_same_key_with_another_body_is_a_conflict(world: World) -> None:
    create(world, "k")
    answer = create(world, "k", body={"name": "Autumn"})
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")


def test_keys_of_different_tenants_do_not_meet(world: World) -> None:
    ids = {create(world, "k", tenants=[who]).json()["campaign_id"] for who in ("acme", "brio")}
    assert len(ids) == 2


def test_a_refused_call_keeps_nothing_so_that_its_key_can_be_used_again(world: World) -> None:
    assert (
        create(
            world, "k", body={"flight_starts_at": "2026-02-01T00:00:00Z", "flight_ends_at": "2026-01-01T00:00:00Z"}
        ).status_code
        == 422
    )
    assert create(world, "k").status_code == 201


def test_two_at_once_with_one_key_make_one_campaign(each_world: World) -> None:
    create(each_world)  # the key of the caller is made
    answers: list[Any] = []

    def send() -> None:
        answers.append(create(each_world, "k"))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["campaign_id"] for answer in answers}) == 1
    assert count(each_world) == 2


def test_an_answer_is_kept_for_a_day_at_least(world: World) -> None:
    first = create(world, "k")
    world.clock.now_ms += 24 * 3600 * 1000
    world.database.transact(lambda connection: forget_old(connection, RETAILER, world.clock()))
    assert create(world, "k").json() == first.json()
    world.clock.now_ms += KEPT_MS
    assert world.database.transact(lambda connection: forget_old(connection, RETAILER, world.clock())) == 1


def test_the_text_of_a_key_is_answered_once_even_to_the_same_idempotency_key(world: World) -> None:
    answers = [
        world.call("POST", "/v1/keys", {"role": "crm"}, role="admin", headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    first, second = (answer.json() for answer in answers)
    assert first["key"].startswith("ec_sk_")
    assert second == {**first, "key": None}


def test_a_stale_etag_is_refused_and_a_missing_one_too(world: World) -> None:
    made = create(world)
    path, tag = made.headers["location"], made.headers["etag"]
    assert world.call("PATCH", path, {"name": "A"}).status_code == 428
    changed = world.call("PATCH", path, {"name": "A"}, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["name"]) == (200, "A")
    assert changed.headers["etag"] != tag
    assert world.call("PATCH", path, {"name": "B"}, headers={"If-Match": tag}).status_code == 412
    assert world.call("GET", path).json()["name"] == "A"


def test_a_patch_changes_what_it_names_and_null_takes_a_limit_away(world: World) -> None:
    made = create(world)
    changed = world.call(
        "PATCH", made.headers["location"], {"daily_budget_micros": None}, headers={"If-Match": made.headers["etag"]}
    ).json()
    assert changed["daily_budget_micros"] is None
    assert changed["total_budget_micros"] == CAMPAIGN["total_budget_micros"]
    limits = ledger_store.campaign_limits
    row = world.read(
        lambda connection: connection.execute(sa.select(limits.c.daily_micros, limits.c.total_micros)).one()
    )
    assert tuple(row) == (None, CAMPAIGN["total_budget_micros"])


def test_an_archived_campaign_is_not_listed_and_cannot_be_changed(world: World) -> None:
    made = create(world)
    path = made.headers["location"]
    assert world.call("DELETE", path).status_code == 204
    assert world.call("DELETE", path).status_code == 204
    assert count(world) == 0
    assert [item["status"] for item in world.call("GET", "/v1/campaigns?status=archived").json()["items"]] == [
        "archived"
    ]
    answer = world.call("PATCH", path, {"name": "A"}, headers={"If-Match": "*"})
    assert (answer.status_code, answer.json()["code"]) == (409, "campaign_archived")


def test_pages_follow_one_another_without_gap_or_repeat(world: World) -> None:
    made = [create(world).json()["campaign_id"] for _ in range(7)]
    seen: list[str] = []
    token: str | None = ""
    while token is not None:
        page = world.call("GET", f"/v1/campaigns?page_size=3{'&page_token=' + token if token else ''}").json()
        seen += [item["campaign_id"] for item in page["items"]]
        token = page["next_page_token"]
    assert seen == sorted(made)


def test_a_token_of_somewhere_else_is_refused(world: World) -> None:
    for token in ("x", "MQ", "%00", "a" * 1025):
        answer = world.call("GET", f"/v1/campaigns?page_token={token}")
        assert answer.status_code == 400
        assert answer.json()["parameter"] == "page_token"
    assert world.call("GET", "/v1/campaigns?page_size=201").json()["code"] == "parameter_out_of_range"


def test_every_change_is_logged_with_who_what_before_and_after(world: World) -> None:
    made = create(world)
    world.call("PATCH", made.headers["location"], {"name": "A"}, headers={"If-Match": made.headers["etag"]})
    log = world.call("GET", "/v1/changes?page_size=200", role="auditor").json()["items"]
    update = log[-1]
    assert [line["seq"] for line in log] == list(range(1, len(log) + 1))
    assert (update["action"], update["kind"], update["role"]) == ("update", "campaign", "advertiser")
    assert update["resource_id"] == made.json()["campaign_id"]
    assert (update["before"]["name"], update["after"]["name"]) == ("Spring", "A")
    assert update["key_id"].startswith("key_")


def test_what_is_refused_leaves_no_line(world: World) -> None:
    create(world)
    before = world.read(lambda connection: len(list_changes(connection, RETAILER, 0, 100)))
    world.call("POST", "/v1/bids", {"campaign_id": "cmp_x", "product_ids": ["p"], "bid_micros": 1})
    assert world.read(lambda connection: len(list_changes(connection, RETAILER, 0, 100))) == before


def test_every_line_of_the_log_is_a_leaf_of_the_chain(each_world: World) -> None:
    create(each_world)
    create(each_world)
    leaves = each_world.read(lambda connection: list(change_leaves(connection, RETAILER)))
    table = ledger_store.chain
    query = sa.select(table.c.first_seq, table.c.last_seq, table.c.root_hex).where(table.c.kind == CHAIN_KIND)
    batches = each_world.read(lambda connection: connection.execute(query.order_by(table.c.batch)).all())
    assert [seq for first, last, _ in batches for seq in range(first, last + 1)] == list(range(1, len(leaves) + 1))
    for first, last, root_hex in batches:
        hashes = [hash_leaf(CHAIN_KIND, leaf) for leaf in leaves[first - 1 : last]]
        assert merkle_root(hashes).hex() == root_hex
