"""Each notice reaches each webhook that wants it, at least once and under one id, whatever fails in between."""

import asyncio
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
import structlog
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook as Verifier

from bidder_api.database import Database
from bidder_api.webhooks import deliverer, store
from bidder_api.webhooks.address import Outlets
from bidder_api.webhooks.deliverer import (
    ATTEMPT_COUNT_MAX,
    LEASE_MS,
    Deliverer,
    WebhookMetrics,
    after_attempt,
    delay_s,
    make_delivery,
)
from bidder_api.webhooks.sender import Outcome, Sender
from bidder_api.webhooks.signature import secret_of, show_secret
from bidder_api.webhooks.store import DeliveryRecord, WebhookRecord
from ledger import notice
from ledger import store as ledger_store
from tests.bidder_api.world import FakeClock
from tests.receiver import Receiver

RETAILER = "retailer"
MASTER = bytes(range(32))
DAY_MS = 86_400_000


class Post:
    """A database with webhooks and notices, and who delivers."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = FakeClock()
        self.registry = CollectorRegistry()
        self.deliverer = self.new_deliverer(self.registry)

    def new_deliverer(self, registry: CollectorRegistry | None = None) -> Deliverer:
        return Deliverer(
            self.database,
            RETAILER,
            MASTER,
            Sender(Outlets(loopback="on")),
            self.clock,
            WebhookMetrics(registry or CollectorRegistry()),
            random.Random(1),
        )

    def webhook(self, url: str, webhook_id: str = "whk_1", **changes: Any) -> WebhookRecord:
        values: dict[str, Any] = {
            "webhook_id": webhook_id,
            "advertiser_id": None,
            "url": url,
            "event_types": [],
            "status": "active",
            "secret_generation": 1,
            "previous_until_ms": None,
            "version": 1,
            "created_at_ms": self.clock(),
            "updated_at_ms": self.clock(),
        }
        record = WebhookRecord(**values | changes)
        self.database.transact(lambda c: store.insert_webhook(c, RETAILER, record))
        return record

    def notice(self, kind: str = "payment.received", advertiser_id: str = "acme", reference: str = "r1") -> None:
        data = notice.PaymentReceived(
            advertiser_id=advertiser_id,
            currency="EUR",
            kind="top-up",
            amount_micros=1,
            reference=reference,
            transaction_id="txn_1",
        )
        self.database.transact(lambda c: notice.tell(c, RETAILER, [(kind, data)], self.clock()))  # type: ignore[list-item]

    def deliveries(self, webhook_id: str = "whk_1") -> list[DeliveryRecord]:
        """Return a webhook's deliveries, the oldest notice first."""
        found = self.database.read(lambda c: store.list_deliveries(c, RETAILER, webhook_id))
        return sorted(found, key=lambda one: one.notice_seq)

    def run(self, *rounds: Callable[[], Awaitable[None]]) -> None:
        async def all_of_them() -> None:
            for one in rounds:
                await one()

        asyncio.run(all_of_them())

    def deliver(self) -> None:
        """Hand out and deliver what is due now."""

        async def round_() -> None:
            await self.deliverer.start_due()
            await self.deliverer.settle()

        self.run(round_)


@pytest.fixture
def post(database: Database) -> Post:
    return Post(database)


@pytest.fixture
def sqlite_post(sqlite_database: Database) -> Post:
    return Post(sqlite_database)


def references(receiver: Receiver) -> list[str]:
    return [json.loads(one.body)["data"]["reference"] for one in receiver.received]


def test_a_notice_is_delivered_once_signed_and_marked(post: Post) -> None:
    with Receiver() as receiver:
        webhook = post.webhook(receiver.url)
        post.notice()
        for _ in range(3):
            post.deliver()
            post.clock.now_ms += DAY_MS
    (received,) = receiver.received
    (delivery,) = post.deliveries()
    assert (delivery.status, delivery.attempt_count, delivery.last_status, delivery.last_error) == (
        "delivered",
        1,
        200,
        None,
    )
    assert received.headers["webhook-id"] == delivery.notice_id
    assert received.body.decode() == delivery.body
    at_s = int(received.headers["webhook-timestamp"])
    assert at_s == (post.clock() - 3 * DAY_MS) // 1000
    signed = Verifier(show_secret(secret_of(MASTER, webhook.webhook_id, 1)))
    signature = signed.sign(delivery.notice_id, moment_of(at_s), delivery.body)
    assert received.headers["webhook-signature"] == signature


def moment_of(at_s: int) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def test_each_webhook_gets_what_it_wants_and_no_other_advertisers(post: Post) -> None:
    with Receiver() as receiver:
        post.webhook(receiver.url, "whk_all")
        post.webhook(receiver.url, "whk_acme", advertiser_id="acme")
        post.webhook(receiver.url, "whk_brio", advertiser_id="brio", event_types=["funds.low"])
        post.notice(advertiser_id="acme", reference="a")
        post.notice(advertiser_id="brio", reference="b")
        post.notice("funds.low", advertiser_id="brio", reference="c")
        post.deliver()
    got = {
        name: [json.loads(one.body)["data"]["reference"] for one in post.deliveries(name)]
        for name in ("whk_all", "whk_acme", "whk_brio")
    }
    assert got == {"whk_all": ["a", "b", "c"], "whk_acme": ["a"], "whk_brio": ["c"]}


def test_a_webhook_hears_nothing_of_before_it_was_made(post: Post) -> None:
    with Receiver() as receiver:
        post.notice(reference="before")
        post.clock.now_ms += 1
        post.webhook(receiver.url)
        post.notice(reference="after")
        post.deliver()
    assert references(receiver) == ["after"]


def test_who_is_down_is_tried_again_and_gets_it(post: Post) -> None:
    with Receiver() as receiver:
        port = receiver.port
    post.webhook(receiver.url)
    post.notice()
    post.deliver()
    (waiting,) = post.deliveries()
    assert (waiting.status, waiting.last_error, waiting.last_status) == ("pending", "connection_failed", None)
    with Receiver(port=port) as receiver:
        post.deliver()
        assert receiver.received == [], "not before its time"
        post.clock.now_ms = waiting.next_attempt_at_ms
        post.deliver()
        (received,) = receiver.received
    assert received.headers["webhook-id"] == waiting.notice_id
    assert int(received.headers["webhook-timestamp"]) == post.clock() // 1000, "the attempt's, not the notice's"
    assert post.deliveries()[0].status == "delivered"


def test_five_hundreds_back_off_for_about_three_days_then_it_is_dead(sqlite_post: Post) -> None:
    post = sqlite_post
    with Receiver(*[500] * 1000) as receiver:
        post.webhook(receiver.url)
        post.notice()
        began_ms = post.clock()
        gaps = []
        post.deliver()
        while (delivery := post.deliveries()[0]).status == "pending":
            gaps.append((delivery.next_attempt_at_ms - post.clock()) / 1000)
            post.clock.now_ms = delivery.next_attempt_at_ms - 1
            count = len(receiver.received)
            post.deliver()
            assert len(receiver.received) == count
            post.clock.now_ms += 1
            post.deliver()
            assert len(receiver.received) == count + 1
    assert delivery.status == "dead"
    assert (delivery.last_error, delivery.last_status, delivery.attempt_count) == ("refused", 500, ATTEMPT_COUNT_MAX)
    assert 2.5 <= (post.clock() - began_ms) / DAY_MS <= 3.5
    assert gaps[0] <= 6
    assert all(5 * 3**number * 0.8 <= gap <= 5 * 3**number * 1.2 for number, gap in enumerate(gaps[:7]))
    assert all(6 * 3600 * 0.8 <= gap <= 6 * 3600 * 1.2 for gap in gaps[9:])
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
    post.clock.now_ms += 30 * DAY_MS
    post.deliver()
    assert len(receiver.received) == ATTEMPT_COUNT_MAX


def test_the_jitter_keeps_attempts_apart() -> None:
    chance = random.Random(3)
    assert len({delay_s(5, chance) for _ in range(20)}) == 20


def test_retry_after_is_kept_to() -> None:
    delivery = make_delivery("whk_1", 1, "ntc_1", "funds.low", "{}", 0)
    after = after_attempt(delivery, Outcome(503, "refused", 3600), 0, random.Random(1))
    assert after.next_attempt_at_ms == 3_600_000


def test_order_is_kept_and_what_fails_steps_aside(post: Post) -> None:
    with Receiver(200, 500) as receiver:
        post.webhook(receiver.url)
        for number in range(5):
            post.notice(reference=str(number))
        post.deliver()
        assert references(receiver) == ["0", "1"], "the others wait for the next look"
        post.deliver()
        assert references(receiver) == ["0", "1", "2", "3", "4"]
        post.clock.now_ms += 10_000
        post.deliver()
    assert references(receiver) == ["0", "1", "2", "3", "4", "1"]
    assert {one.status for one in post.deliveries()} == {"delivered"}


def test_who_is_slow_or_down_holds_up_nobody_else(sqlite_post: Post) -> None:
    post = sqlite_post

    def slow(handler: Any) -> None:
        time.sleep(0.5)
        handler.send_response(200)
        handler.end_headers()

    with Receiver(slow) as other, Receiver() as receiver:
        post.webhook(other.url, "whk_0")
        post.webhook(receiver.url, "whk_1")
        for number in range(3):
            post.notice(reference=str(number))

        async def rounds() -> None:
            await post.deliverer.start_due()
            await asyncio.sleep(0.3)
            assert len(receiver.received) == 3
            assert len(other.received) == 1
            await post.deliverer.settle()

        post.run(rounds)
        assert len(other.received) == 3


def test_no_more_are_under_way_than_may_be(sqlite_post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post = sqlite_post
    monkeypatch.setattr(deliverer, "CONCURRENCY", 3)
    running, most = 0, 0

    async def post_slowly(*_: object) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return Outcome(200, None)

    monkeypatch.setattr(Sender, "post", post_slowly)
    for number in range(10):
        post.webhook("https://shop.example/", f"whk_{number}")
    post.notice()
    for _ in range(4):
        post.deliver()
    assert most == 3
    assert {post.deliveries(f"whk_{number}")[0].status for number in range(10)} == {"delivered"}


def test_many_slow_webhooks_do_not_keep_the_others_from_their_turn(
    sqlite_post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = sqlite_post
    monkeypatch.setattr(deliverer, "CONCURRENCY", 2)
    monkeypatch.setattr(deliverer, "TURN_S", 0.02)
    slow_count = 0

    async def be_slow(_self: Sender, url: str, *_: object) -> Outcome:
        nonlocal slow_count
        if "slow" in url:
            slow_count += 1
            await asyncio.sleep(0.03)
        return Outcome(200, None)

    monkeypatch.setattr(Sender, "post", be_slow)
    for number in range(4):
        post.webhook("https://slow.example/", f"whk_{number}")
    post.webhook("https://quick.example/", "whk_9")
    for _ in range(5):
        post.notice()
    for _ in range(3):  # two of five webhooks a time
        post.deliver()
    assert post.deliveries("whk_9")[0].status == "delivered"
    assert slow_count < 20, "and the slow ones were not done"


def test_a_paused_webhook_gets_everything_once_it_goes_on(post: Post) -> None:
    with Receiver() as receiver:
        webhook = post.webhook(receiver.url, status="paused")
        post.notice(reference="1")
        post.notice(reference="2")
        post.deliver()
        assert receiver.received == []
        active = msgspec.structs.replace(webhook, status="active")
        post.database.transact(lambda c: store.update_webhook(c, RETAILER, active))
        post.deliver()
    assert references(receiver) == ["1", "2"]


def test_who_says_that_it_is_gone_is_paused_and_nothing_lost(post: Post) -> None:
    with Receiver(410) as receiver:
        post.webhook(receiver.url)
        post.notice()
        post.deliver()
        post.clock.now_ms += DAY_MS
        post.deliver()
    assert len(receiver.received) == 1
    webhook = post.database.read(lambda c: store.get_webhook(c, RETAILER, "whk_1"))
    assert webhook is not None
    assert (webhook.status, webhook.version) == ("paused", 2)
    assert post.deliveries()[0].status == "pending"
    with post.database.engine.connect() as connection:
        changes = list(connection.execute(sa.text("SELECT key_id, action, kind, resource_id FROM change_log")))
    assert [tuple(one) for one in changes] == [("webhooks", "pause", "webhook", "whk_1")]


def test_both_secrets_sign_while_both_live(sqlite_post: Post) -> None:
    post = sqlite_post
    with Receiver() as receiver:
        post.webhook(receiver.url, secret_generation=2, previous_until_ms=post.clock() + 1000)
        post.notice(reference="1")
        post.deliver()
        post.clock.now_ms += 1000
        post.notice(reference="2")
        post.deliver()
    both, one = (received.headers["webhook-signature"].split() for received in receiver.received)
    assert (len(both), len(one)) == (2, 1)
    for received, generations in zip(receiver.received, ((2, 1), (2,)), strict=True):
        for generation, signature in zip(generations, received.headers["webhook-signature"].split(), strict=True):
            signed = Verifier(show_secret(secret_of(MASTER, "whk_1", generation)))
            at = moment_of(int(received.headers["webhook-timestamp"]))
            assert signed.sign(received.headers["webhook-id"], at, received.body.decode()) == signature


# --- several processes, and deaths


def test_one_delivers_at_a_time_and_another_takes_over_when_it_is_gone(post: Post) -> None:
    other = post.new_deliverer()
    with Receiver() as receiver:
        post.webhook(receiver.url)
        post.notice(reference="1")
        post.deliver()
        post.notice(reference="2")

        async def others_round() -> None:
            await other.start_due()
            await other.settle()

        post.run(others_round)
        assert references(receiver) == ["1"], "the first one holds the lease"
        post.clock.now_ms += LEASE_MS  # it never came back
        post.run(others_round)
        assert references(receiver) == ["1", "2"]
        post.notice(reference="3")
        post.deliver()
        assert references(receiver) == ["1", "2"], "and now the other does"
        post.run(other.close)
        post.deliver()
    assert references(receiver) == ["1", "2", "3"], "one that ends well lets go at once"


def test_of_many_who_reach_for_the_lease_at_once_one_gets_it(post: Post) -> None:
    meeting = threading.Barrier(6, timeout=30)
    now_ms = post.clock()

    def reach(name: str, at_ms: int) -> bool:
        meeting.wait()
        until_ms = at_ms + LEASE_MS
        return post.database.transact(lambda c: store.take_lease(c, RETAILER, name, at_ms, until_ms)) is not None

    with ThreadPoolExecutor(6) as threads:
        for number in range(10):
            at_ms = now_ms + number * LEASE_MS
            got = list(threads.map(lambda name, at_ms=at_ms: reach(name, at_ms), [f"{number} {n}" for n in range(6)]))
            assert sum(got) == 1


def test_two_at_once_hand_out_each_notice_once(post: Post) -> None:
    others = [post.new_deliverer() for _ in range(4)]
    post.webhook("https://shop.example/")

    async def all_at_once() -> None:
        await asyncio.gather(*(other.start_due() for other in others), return_exceptions=True)
        for other in others:
            await other.close()

    for number in range(5):
        post.notice(reference=str(number))
        post.run(all_at_once)
    assert len(post.deliveries()) == 5


class KilledError(BaseException):
    """Ends a task as a kill would: nothing after it is done."""


def test_who_is_killed_before_the_answer_is_marked_delivers_again(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KilledError

    with Receiver() as receiver:
        post.webhook(receiver.url)
        post.notice()
        with monkeypatch.context() as killed:
            killed.setattr(store, "keep_attempt", die)
            post.deliver()
        assert (len(receiver.received), post.deliveries()[0].status) == (1, "pending")
        successor = post.new_deliverer()
        post.clock.now_ms += LEASE_MS

        async def round_() -> None:
            await successor.start_due()
            await successor.settle()

        post.run(round_)
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
    assert len(receiver.received) == 2
    assert post.deliveries()[0].status == "delivered"


def test_who_is_killed_while_handing_out_hands_out_all_or_nothing(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KilledError

    with Receiver() as receiver:
        post.webhook(receiver.url)
        post.notice()
        with monkeypatch.context() as killed:
            killed.setattr(store, "set_handed_out", die)
            with pytest.raises(KilledError):
                post.deliver()
        assert post.deliveries() == []
        post.deliver()
    assert len(receiver.received) == 1


def test_a_mark_that_is_not_moved_is_caught(sqlite_post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault planted, past the table's own guard: each look hands everything out again."""
    post = sqlite_post
    with post.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX webhook_deliveries_by_notice")
    monkeypatch.setattr(store, "set_handed_out", lambda *_: None)
    with Receiver() as receiver:
        post.webhook(receiver.url)
        post.notice()
        for _ in range(3):
            post.deliver()
    assert len(receiver.received) > 1


def test_the_table_too_refuses_to_hand_out_twice(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "set_handed_out", lambda *_: None)
    with Receiver() as receiver:
        post.webhook(receiver.url)
        post.notice()
        for _ in range(3):
            post.deliver()
    assert len(receiver.received) == 1


def test_a_delivery_marked_before_its_answer_is_caught(sqlite_post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault planted: kept as delivered first, sent then. A kill between the two loses it."""
    post = sqlite_post

    async def mark_then_die(self: Deliverer, webhook: WebhookRecord, delivery: DeliveryRecord) -> bool:
        after = after_attempt(delivery, Outcome(200, None), post.clock(), random.Random(1))
        await self._transact(lambda c: store.keep_attempt(c, RETAILER, delivery, after))
        raise KilledError

    with Receiver() as receiver:
        post.webhook(receiver.url)
        post.notice()
        with monkeypatch.context() as planted:
            planted.setattr(Deliverer, "_attempt", mark_then_die)
            post.deliver()
        post.deliverer = post.new_deliverer()
        post.clock.now_ms += LEASE_MS
        post.deliver()
    assert receiver.received == []


def test_a_database_that_is_gone_for_a_moment_delays_only(sqlite_post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post = sqlite_post
    with Receiver() as receiver:
        post.webhook(receiver.url)
        post.notice()

        def refuse(*_: object) -> None:
            raise sa.exc.OperationalError("look", {}, Exception("gone"))

        with monkeypatch.context() as gone:
            gone.setattr(store, "next_due", refuse)
            post.deliver()
        assert receiver.received == []
        post.deliver()
    assert len(receiver.received) == 1


# --- keeping house


def test_nothing_is_written_while_there_is_nothing_to_do(sqlite_post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post = sqlite_post
    with Receiver() as receiver:
        post.webhook(receiver.url)
        post.notice()
        post.deliver()

        def refuse(_work: object) -> None:
            raise AssertionError("it writes")

        monkeypatch.setattr(post.database, "transact", refuse)
        post.deliver()


def test_what_is_over_is_forgotten_after_a_month_and_nothing_is_numbered_twice(post: Post) -> None:
    with Receiver() as receiver:
        post.webhook(receiver.url)
        post.notice(reference="1")
        post.notice(reference="2")
        post.deliver()
        with post.database.engine.begin() as connection:
            connection.execute(sa.text("UPDATE webhook_deliveries SET status = 'pending' WHERE notice_seq = 2"))
        post.clock.now_ms += 31 * DAY_MS
        post.run(post.deliverer.forget_old)
        assert [one.notice_seq for one in post.deliveries()] == [2], "what waits stays"
        left = post.database.read(lambda c: ledger_store.read_notices_after(c, RETAILER, 0, 10))
        assert [row.seq for row in left] == [2]
        post.notice(reference="3")
        post.deliver()
    assert references(receiver)[-1] == "3"


def test_metrics_tell_what_waits_what_is_dead_and_since_when(sqlite_post: Post) -> None:
    post = sqlite_post

    def figures() -> list[float | None]:
        post.run(post.deliverer.take_tally)
        names = ("pending", "dead", "oldest_pending_seconds")
        return [post.registry.get_sample_value(f"endcap_webhook_{name}") for name in names]

    with Receiver(500) as receiver:
        post.webhook(receiver.url)
        assert figures() == [0, 0, 0]
        post.notice()
        post.deliver()
        post.clock.now_ms += 7_000
        assert figures() == [1, 0, 7]
        post.deliver()
        assert figures() == [0, 0, 0]
    for result in ("refused", "delivered"):
        assert post.registry.get_sample_value("endcap_webhook_attempts_total", {"result": result}) == 1


def test_logs_hold_no_secret_no_path_and_no_body(sqlite_post: Post) -> None:
    post = sqlite_post
    with Receiver(500) as receiver, structlog.testing.capture_logs() as logged:
        post.webhook(receiver.url + "/token-of-theirs?key=theirs")
        post.notice(reference="a reference")
        post.deliver()
    (line,) = logged
    assert (line["event"], line["host"], line["status"]) == ("delivery_failed", "127.0.0.1", 500)
    for trace in ("theirs", "a reference", "whsec", secret_of(MASTER, "whk_1", 1).hex()):
        assert trace not in str(logged)
