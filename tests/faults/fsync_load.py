"""A shop whose disk fails to sync, until the writer ends for it: then somebody starts it again.

Run as `python -m tests.faults.fsync_load FOLDER NOTES COMMITS FAULT`. NOTES is a folder outside of FOLDER: what was
sent and not answered, which is sent again first, and what was acknowledged.
"""

import os
import sys
import time
from pathlib import Path

import msgspec
from sqlalchemy.exc import DBAPIError

from bidder_api.database import open_database
from ledger.errors import LedgerUnavailable, StorageFailed
from ledger.event import ReportedEvent
from ledger.pipe import STORAGE_FAILED_EXIT
from ledger.writer import LedgerWriter, sort_failure
from tests.faults.planted import SwallowsFailures
from tests.ledger.world import KEY_TEXT, RETAILER, World

SENT, ACKNOWLEDGED = "sent", "acknowledged"


def main(folder: str, notes: str, commit_count: str, fault: str) -> None:
    """Record events in small commits until a sync fails."""
    sent, acknowledged = Path(notes) / SENT, Path(notes) / ACKNOWLEDGED
    database = open_database(f"sqlite:///{folder}/endcap.db")
    try:
        if fault != "trusts_the_log":
            database.renew_log()
        world = World(database, seed=time.time_ns())
        kind = SwallowsFailures if fault == "swallows_failures" else LedgerWriter
        world.writer = kind(
            database.transact, database.read, RETAILER, world.keys.parse(KEY_TEXT), world.settings, world.clock
        )
        if not world.rows("SELECT 1 FROM fundings"):
            world.fund("adv-1", 10**12)
        batches = msgspec.json.decode(sent.read_bytes(), type=list[list[ReportedEvent]]) if sent.exists() else []
        for _ in range(int(commit_count)):
            if not batches:
                prices = [world.chance.randint(1, 99_991) for _ in range(world.chance.randint(1, 8))]
                batches = [[world.event(world.fill(price)) for price in prices]]
                sent.write_bytes(msgspec.json.encode(batches))
            results = world.record(*batches[0])
            with acknowledged.open("ab") as file:
                file.write(msgspec.json.encode([[one.event_id, one.amount_micros or 0] for one in results]) + b"\n")
            batches.pop(0)
            sent.write_bytes(msgspec.json.encode(batches))
    except DBAPIError as failure:
        if isinstance(sort_failure(failure), StorageFailed):
            os._exit(STORAGE_FAILED_EXIT)
        raise
    except (StorageFailed, OSError):
        os._exit(STORAGE_FAILED_EXIT)
    except LedgerUnavailable:
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
