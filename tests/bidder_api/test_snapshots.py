"""Snapshots are built when something changed, and when a day began: products are older then."""

from pathlib import Path

import pytest

from auction.snapshot import Snapshot
from bidder_api.database import Database
from bidder_api.snapshots import DAY_MS, SnapshotBuilder
from bidder_api.store import Deployment
from tests.bidder_api.world import NOW_MS, RETAILER, FakeClock, World


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def builder(world: World, tmp_path: Path, clock: FakeClock) -> SnapshotBuilder:
    return new_builder(world.database, tmp_path, clock)


def new_builder(database: Database, folder: Path, clock: FakeClock) -> SnapshotBuilder:
    return SnapshotBuilder(database, Deployment(RETAILER, "EUR", "UTC", NOW_MS), folder, clock_ms=clock)


def test_a_snapshot_says_when_it_was_read(builder: SnapshotBuilder, clock: FakeClock) -> None:
    news = builder.build_if_changed()
    assert news is not None
    assert Snapshot.load(Path(str(news.path))).names.read_at_ms == clock()


def test_nothing_is_built_twice_on_one_day_without_a_change(
    world: World, builder: SnapshotBuilder, clock: FakeClock
) -> None:
    assert builder.build_if_changed() is not None
    clock.now_ms += 1
    assert builder.build_if_changed() is None
    answer = world.call("PUT", "/v1/products/p1", {"title": "Shoe"}, role="merchant")
    assert answer.status_code == 201, answer.text
    assert builder.build_if_changed() is not None
    clock.now_ms += DAY_MS
    assert builder.build_if_changed() is not None
    assert builder.build_if_changed() is None


def test_a_file_from_before_serves_again_on_its_own_day_only(
    world: World, builder: SnapshotBuilder, tmp_path: Path, clock: FakeClock
) -> None:
    made = builder.build_if_changed()
    assert made is not None
    written = Path(str(made.path)).stat().st_mtime_ns
    assert new_builder(world.database, tmp_path, clock).build_if_changed() == made
    assert Path(str(made.path)).stat().st_mtime_ns == written
    clock.now_ms += DAY_MS
    later = new_builder(world.database, tmp_path, clock).build_if_changed()
    assert later is not None
    assert Snapshot.load(Path(str(later.path))).names.read_at_ms == clock()
