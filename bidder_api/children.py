"""The processes beside the serving one: the ledger's writer and the snapshot builder.

Each is started with everything it needs on its standard input, which then stays open: when it closes, the parent is
gone, however it died, and the child ends. Signals sent to the whole group (Ctrl-C, a service manager's stop) are the
parent's to act on; children end when it lets go of them.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog
from msgspec import Struct

from bidder_api.settings import AllSettings
from bidder_api.store import Deployment

POLL_INTERVAL_S = 0.1  # how often the builder looks at the change sequence
REST_MAX_S = 0.5  # while changes go on, it rests as long as it worked, but no longer: others want the processor too
FAILURE_PAUSE_S = 1.0
SOCKET_NAME = "ledger.sock"
STOP_WITHIN_S = 10.0


class Errand(Struct, frozen=True, kw_only=True):
    """Everything a child is told."""

    settings: AllSettings
    deployment: Deployment
    beacon_keys: str
    socket_path: str


class SnapshotNews(Struct, frozen=True):
    """What the builder tells those who serve: there is a snapshot, or there is none of a version.

    Attributes:
        version: change sequence it shows, or was to show.
        path: file it is in; None where it could not be built.
        failure: why not.
    """

    version: int
    path: str | None = None
    failure: str | None = None


class Child:
    """A process of ours that lives no longer than we do.

    Args:
        role: `writer` or `builder`.
        errand: what it is told.
        has_news: whether it tells things on its standard output.
    """

    def __init__(self, role: str, errand: Errand, *, has_news: bool = False) -> None:
        self.role = role
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-m", "bidder_api.children", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if has_news else None,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(encode_errand(errand) + b"\n")
        self._process.stdin.flush()

    @property
    def news(self) -> BinaryIO:
        """Return what it tells, a line at a time."""
        assert self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def watch(self, ended: Callable[[int], None]) -> None:
        """Call back, in a thread, with the status it ends with."""
        threading.Thread(target=lambda: ended(self._process.wait()), name=f"watch {self.role}", daemon=True).start()

    def stop(self) -> None:
        """Let go of it, and wait until it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def encode_errand(errand: Errand) -> bytes:
    """Return an errand as one line of JSON."""
    return msgspec.json.encode(errand, enc_hook=str)


def decode_errand(line: bytes) -> Errand:
    """Return the errand of a line."""
    return msgspec.json.decode(line, type=Errand, dec_hook=lambda kind, value: kind(value))


def parent_is_gone(wait_s: float) -> bool:
    """Wait so long for the parent to let go; say whether it has."""
    readable, _, _ = select.select([sys.stdin.buffer], [], [], wait_s)
    return bool(readable) and os.read(sys.stdin.fileno(), 4096) == b""


def build_snapshots(errand: Errand) -> int:
    """Build a snapshot whenever the change sequence moved, until the parent is gone; return the status to end with."""
    from bidder_api.deployment import open_configured
    from bidder_api.snapshots import FOLDER, SnapshotBuilder

    log = structlog.get_logger("builder")
    database = open_configured(errand.settings.server)
    folder = Path(errand.settings.server.data_dir) / FOLDER
    builder = SnapshotBuilder(database, errand.deployment, folder)

    def tell(news: SnapshotNews) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
        sys.stdout.buffer.flush()

    pause_s = 0.0
    while not parent_is_gone(pause_s):
        pause_s = POLL_INTERVAL_S
        try:
            began = time.perf_counter()
            news = builder.build_if_changed()
        except Exception as failure:
            log.error("snapshot_failed", exc_info=failure)
            news, pause_s = SnapshotNews(-1, failure=f"{type(failure).__name__}: {failure}"), FAILURE_PAUSE_S
        if news is not None:
            if news.path is not None:
                took_s = time.perf_counter() - began
                pause_s = min(max(POLL_INTERVAL_S, took_s), REST_MAX_S)
                log.info("snapshot_built", version=news.version, seconds=round(took_s, 4))
            tell(news)
    database.close()
    return 0


def write_ledger(errand: Errand) -> int:
    """Run the ledger's writer until the parent is gone; return the status to end with."""
    from bidder_api.deployment import open_configured
    from ledger.beacon import BeaconKeys
    from ledger.pipe import serve_writer
    from ledger.writer import LedgerWriter

    database = open_configured(errand.settings.server)
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()

    def make_writer() -> LedgerWriter:
        database.renew_log()
        return LedgerWriter(
            database.transact,
            database.read,
            errand.deployment.retailer_id,
            BeaconKeys.parse(errand.beacon_keys),
            errand.settings.ledger,
            lambda: time.time_ns() // 1_000_000,
        )

    return serve_writer(make_writer, errand.settings.ledger, Path(errand.socket_path), os.getppid())


def end_with_parent() -> None:
    """Wait for the parent to let go, then let the stop signal through that was held back until now.

    A service manager's stop reaches the whole group at once; the parent still has events to hand in then.
    """
    while os.read(sys.stdin.fileno(), 4096):
        pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)


def main(role: str) -> int:
    """Run one of the children; return the status to end with."""
    from bidder_api.logs import set_up_logs

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    errand = decode_errand(sys.stdin.buffer.readline())
    set_up_logs(errand.settings.server.log_level, role)
    return {"writer": write_ledger, "builder": build_snapshots}[role](errand)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
