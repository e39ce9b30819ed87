"""A disk that fails to sync, one time in five: never an answer that is not on it, whatever happens next.

Each round ends with the process that saw it, as it must. Then either the power is cut, or the process is started again
on what the system still believes to be on the disk, and what was sent and not answered is sent again.
"""

import random
import shutil
from pathlib import Path

import msgspec
import pytest

from ledger.pipe import STORAGE_FAILED_EXIT
from tests.faults.fsync_load import ACKNOWLEDGED
from tests.faults.harness import IS_FULL
from tests.faults.power import Disk, build_tracer, read_notes, run_traced
from tests.faults.test_power import look_at

ROUND_COUNT = 80 if IS_FULL else 10
PLANTED_COUNT = 80  # at most, until it is caught
COMMIT_COUNT = 25
FAILS_PER_MILLE = 200

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: failing fsyncs were not simulated")


@pytest.fixture(scope="module")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tracer(tmp_path_factory.mktemp("tracer"))


def fail_again_and_again(tracer: Path, migrated_file: Path, tmp_path: Path, fault: str) -> list[str]:
    """Return what was wrong after any of the rounds; the last one ends with a power cut. A fault's end when caught."""
    folder, told = tmp_path / "shop", tmp_path / "told"
    folder.mkdir()
    told.mkdir()
    shutil.copy(migrated_file, folder / "endcap.db")
    disk, chance = Disk(folder), random.Random(f"{fault} {IS_FULL}")
    acknowledged: dict[str, int] = {}
    violations: list[str] = []
    failed = cuts = number = 0
    most = PLANTED_COUNT if fault else ROUND_COUNT
    for number in range(most):
        trace = tmp_path / "trace"
        trace.unlink(missing_ok=True)
        status = run_traced(
            tracer, folder, trace, "tests.faults.fsync_load", str(folder), str(told), str(COMMIT_COUNT), fault,
            fails_per_mille=FAILS_PER_MILLE, seed=chance.randrange(1, 2**31),
        )  # fmt: skip
        assert status in (0, STORAGE_FAILED_EXIT), status
        failed += status == STORAGE_FAILED_EXIT
        for note in read_notes(trace):
            disk.note(note)
        acknowledged |= read_acknowledged(told / ACKNOWLEDGED)
        if chance.random() < 0.5 or number + 1 == most:
            cuts += 1
            left = tmp_path / f"left-{number}"
            left.mkdir()
            disk.cut(left, chance)
            shutil.rmtree(folder)
            shutil.copytree(left, folder)
            wrong = look_at(left / "endcap.db", acknowledged)
            violations += [f"round {number}: {wrong}"] if wrong else []
            if wrong and fault:
                break
            disk = Disk(folder)
    print(
        f"fsync fails, p = {FAILS_PER_MILLE / 1000} × {number + 1} {fault}: acknowledged {len(acknowledged)}, "
        f"violations {len(violations)}, writers ended {failed}, power cuts {cuts}"
    )
    return violations


def read_acknowledged(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    lines = path.read_bytes().splitlines()
    return dict(pair for line in lines for pair in msgspec.json.decode(line, type=list[tuple[str, int]]))


def test_nothing_is_answered_that_a_failing_disk_does_not_hold(
    tracer: Path, migrated_file: Path, tmp_path: Path
) -> None:
    assert fail_again_and_again(tracer, migrated_file, tmp_path, "") == []


@pytest.mark.parametrize("fault", ["swallows_failures", "trusts_the_log"])
def test_taking_a_failure_for_a_small_matter_is_caught(
    tracer: Path, migrated_file: Path, tmp_path: Path, fault: str
) -> None:
    """An error that is swallowed; and a start that believes the log, which was read back from memory."""
    assert any("lost" in one for one in fail_again_and_again(tracer, migrated_file, tmp_path, fault))
