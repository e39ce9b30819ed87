"""Snapshots: built by a process of their own whenever the change sequence moves, and taken up by those who serve.

A snapshot is a file named by its deployment and version. The builder writes it, then says so; who serves maps it and
swaps. A restart finds the file of the current version and serves from it before anything is built.
"""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy.engine import Connection

from affinity.store import current_change_seq
from auction.builder import QualityOf, SnapshotMaker, same_quality
from auction.errors import SnapshotRefused
from auction.kernel import allocate_exactly_nb
from auction.snapshot import Snapshot
from auction.store import read_bids, read_source
from bidder_api.children import SnapshotNews
from bidder_api.database import Database
from bidder_api.store import Deployment

FOLDER = "snapshots"
KEPT_COUNT = 3  # the newest, and those a serving process may still be about to map
SUFFIX = ".snapshot"
DAY_MS = 86_400_000


class SnapshotBuilder:
    """Builds a snapshot whenever something changed.

    Args:
        database: the deployment's.
        deployment: whose snapshots.
        folder: where they are written.
        quality_of: quality expected of each product; it only orders offers.
        clock_ms: UTC, milliseconds since 1970; ages of products count from when a snapshot was read.
    """

    def __init__(
        self,
        database: Database,
        deployment: Deployment,
        folder: Path,
        quality_of: QualityOf = same_quality,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._database = database
        self._deployment = deployment
        self._folder = folder
        self._quality_of = quality_of
        self._clock_ms = clock_ms
        self._maker = SnapshotMaker()
        self._version = self._day = -1
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def build_if_changed(self) -> SnapshotNews | None:
        """Build and write a snapshot if anything changed since the last, or a day began; return None where not.

        Products are a day older each day, whatever changes. The first call is satisfied with a file that is there from
        before, if it is of the current version and of today.
        """
        version = self._database.read(lambda connection: current_change_seq(connection, self._deployment.retailer_id))
        day = self._clock_ms() // DAY_MS
        if (version, day) == (self._version, self._day):
            return None
        if self._version < 0 and is_usable(self.path_of(version), day):
            self._version, self._day = version, day
            return SnapshotNews(version, str(self.path_of(version)))
        self._database.read(self._take_over)
        snapshot = self._maker.make(self._quality_of)
        if snapshot.has_exact_pages:
            allocate_exactly_nb.warm()  # here and now, so that those who serve find it compiled
        path = self.path_of(snapshot.version)
        snapshot.save(path)
        self._version, self._day = snapshot.version, day
        self._forget_old(path)
        return SnapshotNews(snapshot.version, str(path))

    def path_of(self, version: int) -> Path:
        """Return the file of a version."""
        return self._folder / f"{self._deployment.created_at_ms}-{version:015d}{SUFFIX}"

    def _take_over(self, connection: Connection) -> None:
        """Hand the maker what changed since the last time, or everything."""
        retailer_id, since = self._deployment.retailer_id, self._maker.version
        changes = read_source(
            connection,
            retailer_id,
            currency=self._deployment.currency,
            time_zone=self._deployment.time_zone,
            since=since,
            with_bids=False,
        )
        for some in read_bids(connection, retailer_id, since):
            self._maker.apply_bids(some)
        self._maker.apply(msgspec.structs.replace(changes, read_at_ms=self._clock_ms()))  # last: it counts as done then

    def _forget_old(self, newest: Path) -> None:
        ours = sorted(path for path in self._folder.iterdir() if path.suffix == SUFFIX)
        for path in [path for path in ours if path != newest][: -KEPT_COUNT + 1]:
            path.unlink(missing_ok=True)


def is_usable(path: Path, day: int) -> bool:
    """Say whether a file holds a whole snapshot of this version's format, read on that day since 1970 (UTC)."""
    try:
        return Snapshot.load(path).names.read_at_ms // DAY_MS == day
    except (OSError, SnapshotRefused):
        return False
