"""Hands notices out to the webhooks that want them, and delivers each until it is taken.

A notice becomes one delivery per webhook in the transaction that moves the mark of what is handed out, so that none is
forgotten and none handed out twice. A delivery is marked after its answer: whoever is killed in between delivers it
again, under the same id. One process at a time does both: it holds a lease, and where it dies the next takes over when
the lease runs out.

To each webhook one delivery is under way at a time, in the order of the notices. One that fails steps aside and is
tried again later, so that it does not hold up those behind it: order holds as long as nothing fails.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy.engine import Connection

from bidder_api.access import Role
from bidder_api.changes import Actor, Change, record_changes
from bidder_api.database import Database
from bidder_api.webhooks import store
from bidder_api.webhooks.sender import Outcome, Sender
from bidder_api.webhooks.signature import secret_of, sign
from bidder_api.webhooks.store import DeliveryRecord, WebhookRecord
from ledger.store import forget_notices, read_last_notice, read_notices_after
from ledger.terms import new_id

T = TypeVar("T")

POLL_S = 1.0
LEASE_MS = 20_000  # so long after a death another process takes over
RENEWED_MS = 10_000  # it is held for longer once no more than this is left
HAND_OUT_COUNT = 500  # notices handed out in one transaction
CONCURRENCY = 8  # webhooks delivered to at the same time
TURN_S = 15.0  # after so long a webhook lets those go first that wait, however much waits for it
FIRST_DELAY_S = 5.0
DELAY_GROWTH = 3
DELAY_S_MAX = 6 * 3600.0
JITTER = 0.2
ATTEMPT_COUNT_MAX = 20  # the last is made about three days after the first
KEPT_MS = 30 * 86_400_000  # deliveries that are over, and notices
TALLY_EVERY_S = 5.0
HOUSEKEEPING_EVERY_S = 3600.0
GONE = 410
DELIVERER = "webhooks"  # the actor of what deliveries change

_log = structlog.get_logger("webhooks")


def delay_s(attempt_count: int, chance: random.Random) -> float:
    """Return how long to wait after so many failed attempts: 5 s, three times as long each time, up to 6 h, ± 20 %."""
    plain_s = min(FIRST_DELAY_S * float(DELAY_GROWTH) ** min(attempt_count - 1, 20), DELAY_S_MAX)
    return plain_s * chance.uniform(1 - JITTER, 1 + JITTER)


class WebhookMetrics:
    """What one watches of deliveries.

    Args:
        registry: where it is shown.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.attempts = Counter(
            "endcap_webhook_attempts",
            "Attempts to deliver a notice, by what became of them",
            ["result"],
            registry=registry,
        )
        self.pending = Gauge("endcap_webhook_pending", "Deliveries that wait to be made", registry=registry)
        self.dead = Gauge("endcap_webhook_dead", "Deliveries given up in the last 30 days", registry=registry)
        self.oldest_seconds = Gauge(
            "endcap_webhook_oldest_pending_seconds",
            "Age of the oldest delivery that waits; 0 is none",
            registry=registry,
        )


class Deliverer:
    """Delivers, as long as it holds the lease.

    Args:
        database: the deployment's.
        retailer_id: whose.
        master: what webhooks' secrets are derived from.
        sender: makes an attempt.
        clock_ms: UTC, milliseconds since 1970.
        metrics: where attempts are counted.
        chance: of the jitter.
    """

    def __init__(
        self,
        database: Database,
        retailer_id: str,
        master: bytes,
        sender: Sender,
        clock_ms: Callable[[], int],
        metrics: WebhookMetrics,
        chance: random.Random,
    ) -> None:
        self._database = database
        self._retailer_id = retailer_id
        self._master = master
        self._sender = sender
        self._clock_ms = clock_ms
        self._metrics = metrics
        self._chance = chance
        self._name = secrets.token_hex(8)
        self._held_until_ms = 0
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._turn = 0
        self._last_turns: dict[str, int] = {}

    async def run(self) -> None:
        """Deliver for ever; what the database refuses is raised, and is tried again by whoever calls."""
        tallied_at = kept_house_at = 0.0
        while True:
            await self.start_due()
            now = time.monotonic()
            if now - tallied_at > TALLY_EVERY_S:
                tallied_at = now
                await self.take_tally()
            if self._held_until_ms and now - kept_house_at > HOUSEKEEPING_EVERY_S:
                kept_house_at = now
                await self.forget_old()
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """Stop what is under way (it is delivered again) and let somebody else take over at once."""
        for task in self._under_way.values():
            task.cancel()
        await self.settle()
        if self._held_until_ms:
            self._held_until_ms = 0
            await self._transact(lambda connection: store.release_lease(connection, self._retailer_id, self._name))
        await self._sender.close()

    async def start_due(self) -> None:
        """Hand out new notices, and begin to deliver what is due; does nothing while another process does."""
        if self._under_way:
            await self._hold()
        if not await self._read(self._has_work):
            return
        is_held, count = True, HAND_OUT_COUNT
        while is_held and count == HAND_OUT_COUNT:
            now_ms = self._clock_ms()
            is_held, count = await self._transact(partial(self._hand_out, now_ms))
            self._held_until_ms = now_ms + LEASE_MS if is_held else 0
        if not is_held:
            return
        due = await self._read(lambda connection: store.list_due(connection, self._retailer_id, self._clock_ms()))
        for webhook_id in sorted(due, key=lambda one: self._last_turns.get(one, 0)):
            if len(self._under_way) >= CONCURRENCY:
                return
            if webhook_id not in self._under_way:
                task = asyncio.create_task(self._deliver_in_order(webhook_id))
                self._under_way[webhook_id] = task
                self._turn += 1
                self._last_turns[webhook_id] = self._turn
                task.add_done_callback(partial(self._is_over, webhook_id))

    def _is_over(self, webhook_id: str, _task: asyncio.Task[None]) -> None:
        del self._under_way[webhook_id]

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await asyncio.sleep(0)

    async def take_tally(self) -> None:
        """Show how deliveries stand."""
        found = await self._read(lambda connection: store.tally(connection, self._retailer_id))
        self._metrics.pending.set(found.pending_count)
        self._metrics.dead.set(found.dead_count)
        age_ms = 0 if found.oldest_ms is None else self._clock_ms() - found.oldest_ms
        self._metrics.oldest_seconds.set(max(age_ms, 0) / 1000)

    async def forget_old(self) -> None:
        """Delete what is over and old."""
        before_ms = self._clock_ms() - KEPT_MS

        def forget(connection: Connection) -> None:
            lease = store.read_lease(connection, self._retailer_id)
            store.forget_deliveries(connection, self._retailer_id, before_ms)
            forget_notices(connection, self._retailer_id, 0 if lease is None else lease[2], before_ms)

        await self._transact(forget)

    def _has_work(self, connection: Connection) -> bool:
        """Say whether there is something to do for us; a look only, so that nothing is written while there is not."""
        now_ms = self._clock_ms()
        holder, held_until_ms, handed_out_seq = store.read_lease(connection, self._retailer_id) or ("", 0, 0)
        if holder != self._name and held_until_ms > now_ms:
            return False
        if read_last_notice(connection, self._retailer_id) > handed_out_seq:
            return True
        return bool(store.list_due(connection, self._retailer_id, now_ms))

    def _hand_out(self, now_ms: int, connection: Connection) -> tuple[bool, int]:
        """Take the lease and make deliveries of new notices; say whether it was to be had, and of how many notices."""
        seq = store.take_lease(connection, self._retailer_id, self._name, now_ms, now_ms + LEASE_MS)
        if seq is None:
            return False, 0
        notices = read_notices_after(connection, self._retailer_id, seq, HAND_OUT_COUNT)
        if not notices:
            return True, 0
        webhooks = store.hold_webhooks(connection, self._retailer_id)
        made = [
            make_delivery(webhook.webhook_id, notice.seq, notice.notice_id, notice.type, notice.body, now_ms)
            for notice in notices
            for webhook in webhooks
            if webhook.wants(notice.type, notice.advertiser_id) and webhook.created_at_ms <= notice.recorded_at_ms
        ]
        store.insert_deliveries(connection, self._retailer_id, made)
        store.set_handed_out(connection, self._retailer_id, notices[-1].seq)
        return True, len(notices)

    async def _deliver_in_order(self, webhook_id: str) -> None:
        """Deliver to one webhook until nothing is due any more, something fails, or its turn is over."""
        ends = time.monotonic() + TURN_S
        try:
            while time.monotonic() < ends and await self._hold():
                found = await self._read(
                    lambda connection: store.next_due(connection, self._retailer_id, webhook_id, self._clock_ms())
                )
                if found is None or not await self._attempt(*found):
                    return
        except Exception as failure:  # such as a database that is gone for a moment: it is due still
            _log.error("deliveries_interrupted", webhook_id=webhook_id, exc_info=failure)

    async def _attempt(self, webhook: WebhookRecord, delivery: DeliveryRecord) -> bool:
        """Make one attempt and keep what became of it; say whether it is delivered."""
        now_ms = self._clock_ms()
        headers = sign(self._live_secrets(webhook, now_ms), delivery.notice_id, now_ms // 1000, delivery.body.encode())
        outcome = await self._sender.post(webhook.url, headers, delivery.body.encode())
        after = after_attempt(delivery, outcome, self._clock_ms(), self._chance)

        def keep(connection: Connection) -> None:
            if store.keep_attempt(connection, self._retailer_id, delivery, after) and outcome.status == GONE:
                pause(connection, self._retailer_id, webhook.webhook_id, self._clock_ms())

        await self._transact(keep)
        self._metrics.attempts.labels(outcome.error or "delivered").inc()
        if outcome.error is not None:
            _log.warning(
                "delivery_failed" if after.status == "pending" else "delivery_given_up",
                webhook_id=webhook.webhook_id,
                delivery_id=delivery.delivery_id,
                host=urlsplit(webhook.url).hostname,  # no more of the URL: its path may be a secret
                error=outcome.error,
                status=outcome.status,
                attempt=after.attempt_count,
            )
        return outcome.error is None

    def _live_secrets(self, webhook: WebhookRecord, now_ms: int) -> list[bytes]:
        generations = [webhook.secret_generation]
        if webhook.previous_until_ms is not None and webhook.previous_until_ms > now_ms:
            generations.append(webhook.secret_generation - 1)
        return [secret_of(self._master, webhook.webhook_id, generation) for generation in generations]

    async def _hold(self) -> bool:
        """Hold the lease for longer where little is left of it; say whether it is still ours."""
        now_ms = self._clock_ms()
        if self._held_until_ms - RENEWED_MS > now_ms:
            return True
        until_ms = now_ms + LEASE_MS
        taken = await self._transact(
            lambda connection: store.take_lease(connection, self._retailer_id, self._name, now_ms, until_ms)
        )
        self._held_until_ms = 0 if taken is None else until_ms
        return taken is not None

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.read, work)

    async def _transact(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.transact, work)


def make_delivery(
    webhook_id: str, notice_seq: int, notice_id: str, kind: str, body: str, now_ms: int
) -> DeliveryRecord:
    """Return a delivery to be made at once."""
    return DeliveryRecord(
        delivery_id=new_id("dlv", now_ms, secrets.token_bytes(10)),
        webhook_id=webhook_id,
        notice_seq=notice_seq,
        notice_id=notice_id,
        type=kind,
        body=body,
        status="pending",
        attempt_count=0,
        next_attempt_at_ms=now_ms,
        last_attempt_at_ms=None,
        last_status=None,
        last_error=None,
        created_at_ms=now_ms,
    )


def make_again(delivery: DeliveryRecord, now_ms: int) -> DeliveryRecord:
    """Return a delivery to be made again from the start; what became of it last is still told."""
    return msgspec.structs.replace(delivery, status="pending", attempt_count=0, next_attempt_at_ms=now_ms)


def after_attempt(delivery: DeliveryRecord, outcome: Outcome, now_ms: int, chance: random.Random) -> DeliveryRecord:
    """Return a delivery after an attempt: delivered, to be tried again, or given up."""
    attempt_count = delivery.attempt_count + 1
    made = msgspec.structs.replace(
        delivery,
        attempt_count=attempt_count,
        last_attempt_at_ms=now_ms,
        last_status=outcome.status,
        last_error=outcome.error,
    )
    if outcome.error is None:
        return msgspec.structs.replace(made, status="delivered")
    if attempt_count >= ATTEMPT_COUNT_MAX:
        return msgspec.structs.replace(made, status="dead")
    wait_s = max(delay_s(attempt_count, chance), outcome.retry_after_s)
    return msgspec.structs.replace(made, next_attempt_at_ms=now_ms + round(wait_s * 1000))


def pause(connection: Connection, retailer_id: str, webhook_id: str, now_ms: int) -> None:
    """Pause a webhook whose receiver says that it is gone for good; what waits for it goes on waiting."""
    before = store.get_webhook(connection, retailer_id, webhook_id, to_change=True)
    if before is None or before.status == "paused":
        return
    after = msgspec.structs.replace(before, status="paused", version=before.version + 1, updated_at_ms=now_ms)
    store.update_webhook(connection, retailer_id, after)
    change = Change("pause", "webhook", webhook_id, before, after)
    record_changes(connection, retailer_id, Actor(DELIVERER, Role.ADMIN), [change], now_ms)
