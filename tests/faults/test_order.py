"""Whatever order events come in, however often, over however many connections: the same is billed."""

import asyncio
import random
import threading
from pathlib import Path

import pytest
from msgspec import Struct

from bidder_api.database import Database
from ledger import billing, reports
from ledger.errors import LedgerBroken
from ledger.event import ReportedEvent
from ledger.journal import Posting
from ledger.money import Micros
from ledger.pipe import WriterClient
from tests.faults.harness import READY_S_MAX, WriterUnderTest, furnish, now_ms
from tests.faults.planted import ReadsThenWrites
from tests.ledger.world import RETAILER, World

HOUR_MS = 3_600_000


async def send(folder: Path, database: Database, events: list[ReportedEvent]) -> None:
    writer = WriterUnderTest(database, folder)
    writer.start()
    try:
        clients = [WriterClient(writer.socket_path, lambda _update: None) for _ in range(2)]
        async with clients[0], clients[1]:
            for client in clients:
                assert await client.wait_connected(READY_S_MAX)
            parts = [events[n : n + 5] for n in range(0, len(events), 5)]
            await asyncio.gather(*(clients[n % 2].record(part, with_amounts=True) for n, part in enumerate(parts)))
    finally:
        writer.stop()


def test_shuffled_and_repeated_events_bill_each_token_once(sqlite_database: Database, tmp_path: Path) -> None:
    world = furnish(sqlite_database)
    tokens = [world.fill(world.chance.randint(1, 9_973), campaign_id="cmp-free") for _ in range(200)]
    events = [world.event(token, event_id=f"e{n}") for n, token in enumerate(tokens)]
    worth = sum(int(world.keys.redeem_beacon(token, now_ms()).terms.price_micros) for token in tokens)
    digests = set()
    for seed in range(3):
        chance = random.Random(seed)
        sent = events + chance.sample(events, 60)
        chance.shuffle(sent)
        asyncio.run(send(tmp_path, sqlite_database, sent))
        found = world.database.read(
            lambda c: reports.reconcile(c, RETAILER, now_ms() - 2 * HOUR_MS, now_ms() + HOUR_MS)
        )
        digests.add(tuple((line.count, line.amount_micros, line.digest) for line in found.items))
    print(f"3 orders of 200 events with 30 % duplicates: {len(digests)} digest, billed {worth}")
    assert len(digests) == 1
    assert world.one("SELECT COUNT(*) FROM audit_event") == 200
    assert world.one("SELECT SUM(amount_micros) FROM audit_event") == worth
    world.must_be_sound()


def with_a_budget(database: Database) -> World:
    world = World(database)
    world.fund("adv-1", 10**7)
    world.limit("cmp-1", "adv-1", 100_003, None)
    return world


def race(world: World, kind: type) -> int:
    """Let two writers spend one budget at the same time; return what was billed of a budget of 100,003."""
    meeting = threading.Barrier(2, timeout=30)
    writers = [world.new_writer() for _ in range(2)]
    for writer in writers:
        writer.__class__ = kind
        if kind is ReadsThenWrites:
            writer.meet = meeting.wait  # type: ignore[attr-defined]
    groups = [[[world.event(world.fill(39_989)) for _ in range(2)]] for _ in writers]
    threads = [threading.Thread(target=w.record, args=(g,)) for w, g in zip(writers, groups, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return int(str(world.one("SELECT SUM(amount_micros) FROM audit_event")))


def test_two_writers_in_a_race_bill_the_budget_exactly(sqlite_database: Database) -> None:
    world = with_a_budget(sqlite_database)
    assert race(world, type(world.writer)) == 100_003
    world.must_be_sound()


def test_a_budget_that_is_read_and_then_written_is_caught(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = with_a_budget(sqlite_database)
    ReadsThenWrites.plant(monkeypatch)
    assert race(world, ReadsThenWrites) > 100_003
    assert not world.verify().is_good


class UncheckedTransaction(Struct):
    """A transaction that does not look at itself."""

    postings: tuple[Posting, ...]
    reason: str
    period: str
    occurred_at_ms: int
    reverses: str | None = None


def test_rounding_that_breaks_the_balance_is_caught(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(sqlite_database)
    world.fund("adv-1", 10**7)
    take = billing._take

    def round_down(*arguments: object) -> tuple[Posting, ...]:
        first, *others = take(*arguments)  # type: ignore[arg-type]
        return (Posting(first.account, first.side, Micros(first.amount_micros // 10 * 10)), *others)

    monkeypatch.setattr(billing, "_take", round_down)
    with pytest.raises(LedgerBroken):
        world.click(world.fill(123_457))
    assert world.one("SELECT COUNT(*) FROM events") == 0
    monkeypatch.setattr(billing, "Transaction", UncheckedTransaction)  # the second guard: who reads it back
    world.click(world.fill(123_457))
    assert not world.verify().is_good
