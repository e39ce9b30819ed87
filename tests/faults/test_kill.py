"""`kill -9` at any moment loses nothing that was acknowledged and doubles nothing that was sent again."""

import asyncio
import time
from pathlib import Path

import pytest

from bidder_api.database import Database, open_database
from bidder_api.migration import upgrade
from tests.faults import planted
from tests.faults.harness import IS_FULL, READY_S_MAX, Tally, WriterUnderTest, count, furnish, shopping
from tests.postgres import PostgresCluster

KILL_COUNT = 60 if IS_FULL else 10


async def kill_again_and_again(database: Database, folder: Path, kill_count: int, fault: str = "") -> Tally:
    """Kill the writer half at random and half at the instant of an acknowledgement, then count."""
    world = furnish(database)
    writer = WriterUnderTest(database, folder, fault)
    writer.start()
    ready_s_max = 0.0
    try:
        async with shopping(world, writer) as shoppers:
            assert await shoppers.client.wait_connected(READY_S_MAX)
            for number in range(kill_count):
                await asyncio.sleep(0.02)
                if number % 2:
                    await asyncio.sleep(world.chance.uniform(0, 0.08))
                    writer.kill()
                else:
                    killed = asyncio.Event()

                    def kill_now(killed: asyncio.Event = killed) -> None:
                        if not killed.is_set():
                            writer.kill()
                            killed.set()

                    shoppers.on_acknowledged = kill_now
                    await asyncio.wait_for(killed.wait(), READY_S_MAX)
                    shoppers.on_acknowledged = lambda: None
                writer.status()
                began = time.monotonic()
                writer.start()
                while shoppers.client._writer is not None:  # until it has noticed
                    await asyncio.sleep(0.001)
                assert await shoppers.client.wait_connected(READY_S_MAX)
                ready_s_max = max(ready_s_max, time.monotonic() - began)
    finally:
        writer.stop()
    tally = count(world, shoppers)
    tally.ready_s_max = ready_s_max
    return tally


def run(database: Database, folder: Path, kill_count: int, fault: str = "") -> Tally:
    tally = asyncio.run(kill_again_and_again(database, folder, kill_count, fault))
    tally.show(f"kill -9 × {kill_count} {fault}".strip(), f", ready again ≤ {tally.ready_s_max:.2f} s")
    return tally


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_no_kill_loses_or_doubles_an_event(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tally = run(request.getfixturevalue(f"{kind}_database"), tmp_path, KILL_COUNT)
    assert tally.is_clean
    assert tally.acknowledged > KILL_COUNT


def test_a_writer_that_acknowledges_first_is_caught(sqlite_database: Database, tmp_path: Path) -> None:
    assert run(sqlite_database, tmp_path, 4, "acknowledges_first").lost > 0


def test_a_writer_that_forgets_duplicates_is_caught(sqlite_database: Database, tmp_path: Path) -> None:
    sqlite_database.transact(planted.without_unique_indexes)
    assert run(sqlite_database, tmp_path, 2, "forgets_duplicates").doubled > 0


async def crash_the_server(cluster: PostgresCluster, database: Database, folder: Path, crash_count: int) -> Tally:
    """Stop PostgreSQL as a power cut would, under load, again and again."""
    world = furnish(database)
    writer = WriterUnderTest(database, folder)
    writer.start()
    try:
        async with shopping(world, writer) as shoppers:
            assert await shoppers.client.wait_connected(READY_S_MAX)
            for _ in range(crash_count):
                await asyncio.sleep(world.chance.uniform(0.1, 0.3))
                await asyncio.to_thread(cluster.stop, "immediate")
                await asyncio.sleep(0.1)
                assert shoppers.client.unwritable_s() > 0
                await asyncio.to_thread(cluster.start)
                async with asyncio.timeout(READY_S_MAX):
                    while shoppers.client.unwritable_s():
                        await asyncio.sleep(0.01)
    finally:
        writer.stop()
    return count(world, shoppers)


@pytest.mark.postgres
def test_no_crash_of_postgresql_loses_or_doubles_an_event(postgres_cluster: PostgresCluster, tmp_path: Path) -> None:
    crash_count = 20 if IS_FULL else 2
    with PostgresCluster(postgres_cluster.binaries) as own:  # nobody else's server is to crash
        own.run_sql("CREATE DATABASE ledger")
        database = open_database(own.url("ledger"))
        database.transact(upgrade)
        tally = asyncio.run(crash_the_server(own, database, tmp_path, crash_count))
        database.close()
    tally.show(f"stop -m immediate × {crash_count}")
    assert tally.is_clean
    assert tally.acknowledged > 0
