"""A power cut at any instant, losing, keeping or tearing what was not synced: nothing acknowledged is lost, ever."""

import random
import shutil
from pathlib import Path

import msgspec
import pytest
from sqlalchemy.exc import DBAPIError

from bidder_api.database import open_database
from tests.faults.harness import IS_FULL
from tests.faults.power import Disk, build_tracer, read_notes, run_traced
from tests.faults.power_load import ACKNOWLEDGED
from tests.ledger.world import World

STATE_COUNT = 200 if IS_FULL else 40
COMMIT_COUNT = 120 if IS_FULL else 50

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: power cuts were not simulated")


@pytest.fixture(scope="module")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tracer(tmp_path_factory.mktemp("tracer"))


def cut_again_and_again(tracer: Path, migrated_file: Path, tmp_path: Path, synchronous: str) -> tuple[int, list[str]]:
    """Cut one run at many instants; return how many states were looked at, and what was wrong in any."""
    folder, trace = tmp_path / "shop", tmp_path / "trace"
    folder.mkdir()
    shutil.copy(migrated_file, folder / "endcap.db")
    disk = Disk(folder)
    run_traced(tracer, folder, trace, "tests.faults.power_load", str(folder), str(COMMIT_COUNT), synchronous)
    notes = list(read_notes(trace))
    chance = random.Random(len(notes))
    instants = sorted(chance.sample(range(len(notes)), min(STATE_COUNT, len(notes))))
    acknowledged: dict[str, int] = {}
    violations: list[str] = []
    for number, note in enumerate(notes):
        while instants and instants[0] == number:
            instants.pop(0)
            left = tmp_path / f"left-{number}"
            left.mkdir()
            disk.cut(left, chance)
            wrong = look_at(left / "endcap.db", acknowledged)
            violations += [f"at note {number} of {len(notes)}: {wrong}"] if wrong else []
            shutil.rmtree(left)
        if note.path.name == ACKNOWLEDGED:
            for line in note.data.splitlines():
                acknowledged.update(msgspec.json.decode(line, type=list[tuple[str, int]]))
        else:
            disk.note(note)
    print(
        f"power cut × {STATE_COUNT}, synchronous={synchronous}: acknowledged {len(acknowledged)}, "
        f"violations {len(violations)}"
    )
    assert len(acknowledged) > COMMIT_COUNT
    return STATE_COUNT, violations


def look_at(path: Path, acknowledged: dict[str, int]) -> str | None:
    """Start from what is on the disk, as a server would; return what is wrong with it."""
    database = open_database(f"sqlite:///{path}")
    try:
        world = World(database)
        rows = world.rows("SELECT event_id, amount_micros FROM events")
        kept = {str(event_id): micros for event_id, micros in rows}
        lost = [event_id for event_id, micros in acknowledged.items() if kept.get(event_id) != micros]
        if lost:
            return f"{len(lost)} of {len(acknowledged)} acknowledged events are lost"
        verdict = world.verify()
        if not verdict.is_good:
            return f"the books do not verify: {verdict.bad}"
        if world.one("SELECT COALESCE(SUM(amount_micros), 0) FROM audit_entry"):
            return "the journal does not add up to 0"
        world.click(world.fill(7_919))
    except DBAPIError as failure:
        return f"the database cannot be read: {failure.orig}"
    finally:
        database.close()
    return None


def test_no_power_cut_loses_what_was_acknowledged(tracer: Path, migrated_file: Path, tmp_path: Path) -> None:
    _, violations = cut_again_and_again(tracer, migrated_file, tmp_path, "FULL")
    assert violations == []


def test_syncing_less_is_caught(tracer: Path, migrated_file: Path, tmp_path: Path) -> None:
    _, violations = cut_again_and_again(tracer, migrated_file, tmp_path, "NORMAL")
    assert any("lost" in one for one in violations)
