"""Storage that fails is never answered as if it had not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bidder_api.database import Database
from ledger.errors import LedgerUnavailable, StorageFailed
from ledger.pipe import STORAGE_FAILED_EXIT, LocalIntake
from ledger.spend import SpendUpdate
from tests.faults.harness import READY_S_MAX, Tally, WriterUnderTest, count, furnish, shopping
from tests.ledger.world import World


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
