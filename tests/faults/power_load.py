"""A shop under load, to be cut off: every acknowledgement is written to a file after the event was recorded.

Run as `python -m tests.faults.power_load FOLDER COMMITS SYNCHRONOUS`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from bidder_api.database import open_database
from tests.ledger.world import World

ACKNOWLEDGED = "acknowledged"
CHECKPOINT_EVERY = 15


def main(folder: str, commit_count: str, synchronous: str) -> None:
    """Record events in small commits, and copy the log back now and then."""
    database = open_database(f"sqlite:///{folder}/endcap.db")

    if synchronous != "FULL":  # the fault that is planted
        sa.event.listen(database.engine, "checkout", lambda connection, *_: weaken(connection, synchronous))
    world = World(database, seed=len(folder))
    acknowledged = os.open(Path(folder) / ACKNOWLEDGED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    world.fund("adv-1", 10**10)
    world.limit("cmp-1", "adv-1", 9_000_011, None)
    for commit in range(int(commit_count)):
        some = [world.event(world.fill(world.chance.randint(1, 99_991))) for _ in range(world.chance.randint(1, 8))]
        results = world.record(*some)
        os.write(acknowledged, msgspec.json.encode([[one.event_id, one.amount_micros] for one in results]) + b"\n")
        if commit % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
            with database.engine.connect() as connection:
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
                connection.exec_driver_sql("BEGIN")
    os._exit(0)  # as if the power went: nothing is closed, nothing copied back


def weaken(connection: Any, synchronous: str) -> None:
    """Let a connection of the driver's sync less than the product does."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA synchronous = {synchronous}")
    cursor.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
