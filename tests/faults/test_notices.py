"""What is exhausted is told of exactly once, whoever races and whatever is killed."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from bidder_api.database import Database
from ledger import notice
from ledger.pipe import WriterClient
from tests.faults.harness import READY_S_MAX, Shoppers, WriterUnderTest, count
from tests.faults.test_race import LIMIT_MICROS, Crowd, limited, spend_everything
from tests.ledger.world import RETAILER, World

TOLD_OF = {
    "daily": ["campaign.daily_budget_exhausted"],
    "total": ["campaign.total_budget_exhausted"],
    "wallet": ["funds.exhausted", "funds.low"],
    "credit line": ["funds.exhausted", "funds.low"],
}


def world_of(database: Database, limit: str, low_micros: int = LIMIT_MICROS // 2) -> World:
    """The world of one limit, with an advertiser that is told when its funds are under `low_micros`."""
    world = limited(database, limit)
    world.database.transact(lambda c: notice.set_low_funds(c, RETAILER, "adv-1", low_micros, 0, "EUR", world.clock()))
    return world


def told(world: World) -> Counter[object]:
    return Counter(kind for (kind,) in world.rows("SELECT type FROM notices WHERE type <> 'payment.received'"))


def race(database: Database, folder: Path, world: World, fault: str = "") -> Shoppers:
    writer = WriterUnderTest(database, folder, fault)
    writer.start()
    try:
        return asyncio.run(spend_everything(world, writer))
    finally:
        writer.stop()


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
@pytest.mark.parametrize("limit", list(TOLD_OF))
def test_a_crowd_and_a_kill_make_one_notice_of_each_crossing(
    kind: str, limit: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = request.getfixturevalue(f"{kind}_database")
    world = world_of(database, limit)
    crowd = race(database, tmp_path, world)
    found = told(world)
    count(world, crowd).show(f"64 clients on one {limit}, killed once", f", notices {dict(found)}")
    assert found == Counter(TOLD_OF[limit])
    if limit == "wallet":
        world.fund("adv-1", 10 * LIMIT_MICROS)
        world.click(world.fill(10 * LIMIT_MICROS - 1))
        assert told(world)["funds.low"] == 2, "the top-up lets it be told again"


def test_levels_that_are_not_kept_are_caught(sqlite_database: Database, tmp_path: Path) -> None:
    world = world_of(sqlite_database, "wallet", LIMIT_MICROS - 1)
    race(sqlite_database, tmp_path, world, "forgets_levels")
    print(f"levels not kept: notices {dict(told(world))}")
    assert told(world)["funds.low"] > 1


async def exhaust(world: World, writer: WriterUnderTest) -> None:
    """Let everybody click until the writer has died of it; then let its successor answer what is sent again."""
    async with WriterClient(writer.socket_path, lambda _update: None) as client:
        crowd = Crowd(world, client, seed=7)
        assert await client.wait_connected(READY_S_MAX)
        tasks = [asyncio.create_task(crowd.shop()) for _ in range(16)]
        try:
            assert await asyncio.to_thread(writer.status) == -9
            writer.start()
            async with asyncio.timeout(60):
                while not any(result.result == "unbilled" for result in crowd.acknowledged.values()):
                    await asyncio.sleep(0.005)
            crowd.is_over = True
            await asyncio.wait_for(asyncio.gather(*tasks), 60)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def die_at_the_commit(database: Database, folder: Path, fault: str) -> Counter[object]:
    world = world_of(database, "wallet")
    writer = WriterUnderTest(database, folder, fault)
    writer.start()
    try:
        asyncio.run(exhaust(world, writer))
    finally:
        writer.stop()
    assert world.one("SELECT SUM(amount_micros) FROM audit_event") == LIMIT_MICROS
    print(f"{fault}: notices {dict(told(world))}")
    return told(world)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_a_kill_at_the_instant_of_the_commit_loses_no_notice(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = request.getfixturevalue(f"{kind}_database")
    assert die_at_the_commit(database, tmp_path, "dies_at_the_commit")["funds.exhausted"] == 1


def test_a_notice_written_after_the_commit_is_caught(sqlite_database: Database, tmp_path: Path) -> None:
    assert die_at_the_commit(sqlite_database, tmp_path, "tells_afterwards")["funds.exhausted"] == 0
