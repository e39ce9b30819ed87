"""Many at once on one limit, and on one transaction: exactly what there is is spent, exactly one undoes it."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bidder_api.database import Database
from ledger import store
from ledger.command import AddFunds, Reverse, Reversed, SetCreditLine
from ledger.errors import ConflictRefused
from ledger.event import ReportedEvent
from ledger.pipe import WriterClient
from tests.faults.harness import IS_FULL, READY_S_MAX, Shoppers, WriterUnderTest, count, now_ms
from tests.ledger.world import World

CLIENT_COUNT = 64
LIMIT_MICROS = 20_000_003 if IS_FULL else 7_000_003
TRANSACTION_COUNT = 500 if IS_FULL else 40
SNAPSHOT_EVERY_S = 0.05
PLENTY = 10**11


class Crowd(Shoppers):
    """Everybody clicks what one campaign pays for, at odd prices."""

    def _happen(self) -> ReportedEvent:
        return self.world.event(self.world.fill(self.chance.randint(1, 49_999)))


def limited(database: Database, limit: str) -> World:
    """A world in which exactly LIMIT_MICROS can be spent, for one reason."""
    world = World(database)
    world.clock = now_ms  # type: ignore[assignment]
    world.writer = world.new_writer()
    funds = LIMIT_MICROS if limit == "wallet" else 1 if limit == "credit line" else PLENTY
    world.writer.command(AddFunds("top-up", "adv-1", funds, "opening"))
    if limit == "credit line":
        world.writer.command(SetCreditLine("adv-1", LIMIT_MICROS - 1))
    daily, total = {"daily": (LIMIT_MICROS, None), "total": (None, LIMIT_MICROS)}.get(limit, (None, None))
    world.limit("cmp-1", "adv-1", daily, total)
    return world


async def spend_everything(world: World, writer: WriterUnderTest) -> Shoppers:
    """Let everybody click until nothing is left, and kill the writer in the middle."""
    async with WriterClient(writer.socket_path, lambda _update: None) as client:
        crowd = Crowd(world, client, seed=world.chance.randrange(2**32))
        assert await client.wait_connected(READY_S_MAX)
        tasks = [asyncio.create_task(crowd.shop()) for _ in range(CLIENT_COUNT)]
        is_killed = False
        try:
            async with asyncio.timeout(120):
                while sum(result.result == "unbilled" for result in crowd.acknowledged.values()) < 3 * CLIENT_COUNT:
                    await asyncio.sleep(0.002)
                    billed = sum(result.amount_micros or 0 for result in crowd.acknowledged.values())
                    if not is_killed and billed > LIMIT_MICROS // 3:
                        is_killed = True
                        writer.kill()
                        writer.status()
                        writer.start()
            crowd.is_over = True
            await asyncio.wait_for(asyncio.gather(*tasks), 60)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert is_killed
    return crowd


@pytest.mark.parametrize("limit", ["daily", "total", "wallet", "credit line"])
def test_a_crowd_spends_a_limit_exactly(sqlite_database: Database, tmp_path: Path, limit: str) -> None:
    world = limited(sqlite_database, limit)
    writer = WriterUnderTest(sqlite_database, tmp_path)
    writer.start()
    try:
        crowd = asyncio.run(spend_everything(world, writer))
    finally:
        writer.stop()
    tally = count(world, crowd)
    spent = int(str(world.one("SELECT SUM(amount_micros) FROM audit_event")))
    tally.show(
        f"{CLIENT_COUNT} clients on one {limit}, killed once", f", left {LIMIT_MICROS - spent} of {LIMIT_MICROS}"
    )
    assert tally.is_clean
    assert spent == LIMIT_MICROS


def test_a_limit_that_is_not_checked_in_the_statement_is_caught(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers that read before either wrote: without the condition in the UPDATE the wallet would go under 0."""
    world = limited(sqlite_database, "wallet")
    price_micros = LIMIT_MICROS // 2 + 1
    take = "UPDATE funds SET wallet_micros = wallet_micros - ? WHERE advertiser_id = ?"

    def take_unchecked(connection: sa.Connection, _retailer_id: str, rows: Any) -> None:
        for advertiser_id, _, micros, _ in rows:
            connection.exec_driver_sql(take, (micros, advertiser_id))

    early = [("adv-1", 0, LIMIT_MICROS, 0, 0)]
    monkeypatch.setattr(store, "read_funds", lambda *_: early)
    monkeypatch.setattr(store, "take_funds", take_unchecked)
    world.click(world.fill(price_micros))
    with pytest.raises(Exception, match=r"ck_funds_not_negative|refused"):
        world.click(world.fill(price_micros))
    monkeypatch.undo()
    assert world.one("SELECT SUM(amount_micros) FROM audit_event") == price_micros, "the table itself said no"


def reverse_from_everywhere(world: World, transaction_ids: list[str]) -> tuple[list[int], int, int]:
    """Let four clients undo each transaction at once, while somebody adds the journal up.

    Return how many succeeded per transaction, how often it was added up, and how often it was not 0.
    """
    writers = [world.new_writer() for _ in range(4)]
    successes = dict.fromkeys(transaction_ids, 0)
    lock, meeting = threading.Lock(), threading.Barrier(4, timeout=60)
    sums: list[int] = []
    codes: set[str] = set()
    is_over = threading.Event()

    def undo(writer: Any) -> None:
        for transaction_id in transaction_ids:
            meeting.wait()
            try:
                answer, _ = writer.command(Reverse(transaction_id, "at once"))
            except ConflictRefused as refused:
                codes.add(refused.code)
                continue
            assert isinstance(answer, Reversed)
            with lock:
                successes[transaction_id] += 1

    def add_up() -> None:
        while not is_over.wait(SNAPSHOT_EVERY_S):
            sums.append(int(str(world.one("SELECT COALESCE(SUM(amount_micros), 0) FROM audit_entry"))))

    threads = [threading.Thread(target=undo, args=(writer,)) for writer in writers]
    watch = threading.Thread(target=add_up)
    for thread in (*threads, watch):
        thread.start()
    for thread in threads:
        thread.join()
    is_over.set()
    watch.join()
    assert codes <= {"already_reversed"}
    return list(successes.values()), len(sums), sum(total != 0 for total in sums)


def charges(world: World) -> list[str]:
    world.fund("adv-1", 10**9)
    for _ in range(TRANSACTION_COUNT // 20):
        world.record(*(world.event(world.fill(world.chance.randint(1, 99_991))) for _ in range(20)))
    return [str(one) for (one,) in world.rows("SELECT transaction_id FROM events ORDER BY seq")]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_of_four_who_undo_a_transaction_exactly_one_does(kind: str, request: pytest.FixtureRequest) -> None:
    world = World(request.getfixturevalue(f"{kind}_database"))
    transaction_ids = charges(world)
    successes, sum_count, bad_count = reverse_from_everywhere(world, transaction_ids)
    print(
        f"{len(transaction_ids)} transactions undone by 4 at once: {sum_count} sums taken meanwhile, {bad_count} not 0"
    )
    assert successes == [1] * len(transaction_ids)
    assert bad_count == 0
    assert world.one("SELECT SUM(amount_micros) FROM audit_entry WHERE account = 'revenue:media'") == 0
    world.must_be_sound()


def test_an_undoing_that_does_not_look_first_is_refused_by_the_table(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(sqlite_database)
    transaction_id = charges(world)[0]
    monkeypatch.setattr(store, "read_reversal", lambda *_: None)
    world.writer.command(Reverse(transaction_id, "once"))
    with pytest.raises(Exception, match=r"UNIQUE|refused"):
        world.writer.command(Reverse(transaction_id, "twice"))
    assert world.one("SELECT COUNT(*) FROM reversals") == 1
