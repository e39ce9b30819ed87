"""Books that are moved, to another version and back or into a backup, stay the books they were."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bidder_api.database import Database, open_database
from bidder_api.migration import current_revision, downgrade, newest_revision, upgrade
from ledger.audit import VIEWS, read_view
from tests.faults.harness import IS_FULL
from tests.ledger.world import World

EVENT_COUNT = 1_000_000 if IS_FULL else 6_000
FIRST_VIEWS = [name for name in VIEWS if name != "audit_commission"]  # what there is of it then is empty
LAST_OF_THE_FIRST_BOOKS = "0003"  # the books' own tables; what is above can be taken off again
GROUP = 250


def digest(database: Database) -> str:
    """Return the SHA-256 of every row of every audit view."""
    hashed = hashlib.sha256()

    def read(connection: object) -> None:
        for name in FIRST_VIEWS:
            for row in read_view(connection, name):  # type: ignore[arg-type]
                hashed.update(repr(row).encode())

    database.read(read)
    return hashed.hexdigest()


def fill(world: World, event_count: int) -> None:
    world.fund("adv-1", 10**12)
    for _ in range(event_count // GROUP):
        world.record(*(world.event(world.fill(world.chance.randint(1, 9_973))) for _ in range(GROUP)))


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_down_and_up_again_leaves_the_books_as_they_were(
    kind: str, request: pytest.FixtureRequest, database_of_its_own: Database
) -> None:
    database = request.getfixturevalue("sqlite_database") if kind == "sqlite" else database_of_its_own
    world = World(database)
    fill(world, EVENT_COUNT)
    before = digest(database)
    database.transact(lambda connection: downgrade(connection, LAST_OF_THE_FIRST_BOOKS))
    assert database.read(current_revision) == LAST_OF_THE_FIRST_BOOKS
    assert digest(database) == before
    database.transact(upgrade)
    assert digest(database) == before
    print(f"up, down, up on {EVENT_COUNT:,} events, {kind}: the same digest")
    world.must_be_sound()
    world.click(world.fill(7_919))


def test_a_migration_that_is_killed_is_run_again(tmp_path: Path) -> None:
    """At many instants: whatever was committed, the next run ends at the newest revision."""
    path = tmp_path / "endcap.db"
    command = [sys.executable, "-m", "bidder_api", "db", "upgrade"]
    variables = {**os.environ, "ENDCAP_DATA_DIR": str(tmp_path)}
    began = time.monotonic()
    subprocess.run(command, env=variables, check=True, capture_output=True)
    whole_s = time.monotonic() - began
    kills = 0
    for number in range(20 if IS_FULL else 5):
        path.unlink(missing_ok=True)
        running = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole_s * (0.55 + 0.45 * number / (20 if IS_FULL else 5)))
        running.send_signal(signal.SIGKILL)
        kills += running.wait() == -signal.SIGKILL
        subprocess.run(command, env=variables, check=True, capture_output=True)
        database = open_database(f"sqlite:///{path}")
        assert database.read(current_revision) == newest_revision()
        World(database).must_be_sound()
        database.close()
    assert kills > 0


def back_up(database: Database, path: Path) -> None:
    """Copy the database in one step, as SQLite's own tools do."""
    source = database.engine.raw_connection()
    target = database.engine.dialect.dbapi.connect(str(path))  # type: ignore[union-attr]
    source.driver_connection.backup(target)  # type: ignore[union-attr]
    target.close()
    source.close()


def test_a_backup_under_load_is_a_prefix_with_everything_acknowledged_before(
    sqlite_database: Database, tmp_path: Path
) -> None:
    world = World(sqlite_database)
    world.fund("adv-1", 10**12)
    acknowledged: list[str] = []
    is_over = threading.Event()

    def shop() -> None:
        while not is_over.is_set():
            acknowledged.extend(result.event_id for result in world.record(
                *(world.event(world.fill(world.chance.randint(1, 9_973))) for _ in range(20))
            ))  # fmt: skip

    shopping = threading.Thread(target=shop)
    shopping.start()
    try:
        for number in range(3):
            while len(acknowledged) < 200 * (number + 1):
                time.sleep(0.005)
            before = list(acknowledged)
            copy = tmp_path / f"copy-{number}.db"
            back_up(sqlite_database, copy)
            restored_database = open_database(f"sqlite:///{copy}")
            restored = World(restored_database)
            kept = [event_id for (event_id,) in restored.rows("SELECT event_id FROM events ORDER BY seq")]
            restored.must_be_sound()
            assert set(before) <= set(kept)
            assert restored.click(restored.fill(7_919)).result == "accepted"
            restored_database.close()
            print(f"backup {number + 1} under load: acknowledged before {len(before)}, lost 0, kept {len(kept)}")
    finally:
        is_over.set()
        shopping.join()
    assert [event_id for (event_id,) in world.rows("SELECT event_id FROM events ORDER BY seq")] == acknowledged
