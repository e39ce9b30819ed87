"""Storage that fails is never answered as if it had not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bidder_api.database import Database, open_database
from ledger.checkpoint import make_checkpoint
from ledger.errors import LedgerUnavailable, StorageFailed
from ledger.pipe import STORAGE_FAILED_EXIT, LocalIntake
from ledger.spend import SpendUpdate
from ledger.verify import verify
from tests.faults.harness import IS_FULL, READY_S_MAX, Tally, WriterUnderTest, count, furnish, shopping
from tests.ledger.world import RETAILER, World


def ignore(_update: SpendUpdate) -> None:
    pass


def fail(failure: StorageFailed) -> None:
    pytest.fail(str(failure))


async def write_until_it_fails(database: Database, folder: Path, fault: str) -> tuple[Tally, int | None]:
    """Let the writer's process hit a wall no file may grow past: its writes fail like those of a broken disk."""
    world = furnish(database)
    writer = WriterUnderTest(database, folder, fault, file_bytes_max=700_000)
    writer.start()
    try:
        async with shopping(world, writer) as shoppers:
            assert await shoppers.client.wait_connected(READY_S_MAX)
            async with asyncio.timeout(60):
                while shoppers.client.unwritable_s() == 0 and len(shoppers.acknowledged) < 2_000:
                    await asyncio.sleep(0.005)
        writer.stop()
    finally:
        writer.stop()
    tally = count(world, shoppers)
    tally.show(f"failing writes {fault}".strip())
    return tally, writer.status()


def test_failing_writes_end_the_writer_and_nothing_it_answered_is_lost(
    sqlite_database: Database, tmp_path: Path
) -> None:
    tally, status = asyncio.run(write_until_it_fails(sqlite_database, tmp_path, ""))
    assert tally.is_clean
    assert tally.acknowledged > 0
    assert status == STORAGE_FAILED_EXIT


def test_a_writer_that_swallows_failures_is_caught(sqlite_database: Database, tmp_path: Path) -> None:
    tally, status = asyncio.run(write_until_it_fails(sqlite_database, tmp_path, "swallows_failures"))
    assert tally.lost > 0
    assert status != STORAGE_FAILED_EXIT


def test_a_full_disk_is_waited_out_and_nothing_is_half_written(sqlite_database: Database) -> None:
    """SQLite's own limit on pages is met exactly as a full disk is: SQLITE_FULL, and the transaction rolled back."""
    world = World(sqlite_database)
    world.fund("adv-1", 10**9)
    room: dict[str, int] = {"pages": 0}
    refused: list[tuple[str, int, bool]] = []

    @sa.event.listens_for(sqlite_database.engine, "begin")
    def limit_room(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {room['pages'] or 1_000_000}")

    async def scenario() -> int:
        acknowledged = 0
        intake = LocalIntake(
            world.writer, world.settings, lambda _update: None, lambda failure: pytest.fail(str(failure))
        )
        async with intake:
            room["pages"] = int(str(world.one("PRAGMA page_count"))) + 20
            waiting = [[world.event(world.fill(world.chance.randint(1, 9_973))) for _ in range(50)] for _ in range(12)]
            for events in waiting:
                try:
                    await intake.record(events, with_amounts=True)
                    acknowledged += 50
                except LedgerUnavailable as full:
                    refused.append((full.code, full.status, full.retryable))
            assert world.one("SELECT COUNT(*) FROM audit_event") == acknowledged
            world.must_be_sound()
            room["pages"] = 0
            async with asyncio.timeout(2):
                while intake.unwritable_s():
                    await asyncio.sleep(0.01)
            results: list[Any] = []
            for events in waiting:
                results += await intake.record(events, with_amounts=True)
            assert sum(result.result == "duplicate" for result in results) == acknowledged
            assert sum(result.result == "accepted" for result in results) == 600 - acknowledged
        return acknowledged

    assert asyncio.run(scenario()) > 0
    assert set(refused) == {("storage_full", 503, True)}
    world.must_be_sound()


FLIP_COUNT = 400 if IS_FULL else 60


def figures(world: World) -> tuple[object, ...]:
    """Everything an auditor would add up."""
    return tuple(
        tuple(world.rows(sql))
        for sql in (
            "SELECT event_id, status, amount_micros, campaign_id, advertiser_id, day FROM events ORDER BY seq",
            "SELECT seq, account, amount_micros, period, reason FROM entries ORDER BY seq",
            "SELECT * FROM audit_balance ORDER BY account",
            "SELECT campaign_id, scope, day, spent_micros FROM audit_budget ORDER BY campaign_id, scope, day",
        )
    )


def look_at_flipped(path: Path) -> tuple[bool, tuple[object, ...] | None]:
    """Return whether the books still verify, and if so their figures."""
    database = open_database(f"sqlite:///{path}")
    try:
        world = World(database)
        is_good = world.verify().is_good
        return is_good, figures(world) if is_good else None
    except sa.exc.DBAPIError:
        return False, None  # nothing can be read at all
    finally:
        database.close()


def test_no_flipped_bit_gives_a_wrong_sum_that_verifies(sqlite_database: Database, tmp_path: Path) -> None:
    world = World(sqlite_database)
    world.fund("adv-1", 10**9)
    world.limit("cmp-1", "adv-1", 10**8, None)
    for _ in range(60):
        world.record(*(world.event(world.fill(world.chance.randint(1, 9_973))) for _ in range(5)))
    right = figures(world)
    with sqlite_database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.exec_driver_sql("BEGIN")
    content = (tmp_path / "endcap.db").read_bytes()
    noticed = harmless = 0
    for number in range(FLIP_COUNT):
        flipped = bytearray(content)
        at = world.chance.randrange(100, len(flipped))
        flipped[at] ^= 1 << world.chance.randrange(8)
        copy = tmp_path / f"flipped-{number}.db"
        copy.write_bytes(flipped)
        is_good, found = look_at_flipped(copy)
        if is_good:
            assert found == right, f"a flipped bit at byte {at} changed a figure and nobody noticed"
            harmless += 1
        else:
            noticed += 1
        copy.unlink()
    print(f"{FLIP_COUNT} flipped bits: {noticed} noticed, {harmless} where they change nothing, wrong sums 0")
    assert noticed > 0


def test_a_flipped_bit_in_the_log_ends_the_books_before_it(sqlite_database: Database, tmp_path: Path) -> None:
    """SQLite's log has its own checksums: what follows the bit is not believed, and a checkpoint tells of it."""
    world = World(sqlite_database)
    world.fund("adv-1", 10**9)
    for _ in range(40):
        world.record(*(world.event(world.fill(world.chance.randint(1, 9_973))) for _ in range(5)))
    whole = [event_id for (event_id,) in world.rows("SELECT event_id FROM events ORDER BY seq")]
    checkpoint = sqlite_database.read(lambda c: make_checkpoint(c, RETAILER, bytes(32), 0))
    database, log = ((tmp_path / f"endcap.db{end}").read_bytes() for end in ("", "-wal"))
    missed = 0
    for number in range(FLIP_COUNT // 4):
        flipped = bytearray(log)
        flipped[world.chance.randrange(32, len(flipped))] ^= 1 << world.chance.randrange(8)
        copy = tmp_path / f"flipped-{number}.db"
        copy.write_bytes(database)
        (tmp_path / f"{copy.name}-wal").write_bytes(flipped)
        opened = open_database(f"sqlite:///{copy}")
        restored = World(opened)
        kept = [event_id for (event_id,) in restored.rows("SELECT event_id FROM events ORDER BY seq")]
        assert kept == whole[: len(kept)]
        assert restored.verify().is_good
        if len(kept) < len(whole):
            missed += 1
            found = opened.read(lambda c: verify(c, RETAILER, {}, checkpoint)).bad
            assert found is not None
        opened.close()
    assert missed > 0
