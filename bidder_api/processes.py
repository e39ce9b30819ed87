"""`endcap serve`: one serving process, and beside it the ledger's writer and the snapshot builder.

The command's own process serves, so that whoever kills it frees the port at once; the other two end with it. If the
writer ends, for whatever reason, so does everything: only a start that recovers from the disk may be believed.
"""

import asyncio
import fcntl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path

import msgspec
import structlog
from starlette.routing import Route

from bidder_api.children import SOCKET_NAME, Child, Errand, SnapshotNews
from bidder_api.deployment import NotServable, open_deployment
from bidder_api.http import DrainingServer, server_of
from bidder_api.logs import set_up_logs
from bidder_api.settings import AllSettings, beacon_keys, for_deployment, master_secret

LOCK_FILE = "serving.lock"
PREDECESSOR_WITHIN_S = 4.0  # a process that was killed a moment ago may still be on its way out
SOCKET_PATH_LENGTH_MAX = 100  # of a Unix socket's address
RESTART_AFTER_S = 1.0

_log = structlog.get_logger("serve")


class Ending:
    """Why the process ends, and with which status."""

    def __init__(self) -> None:
        self.status = 0
        self.is_wanted = False
        self.server: DrainingServer | None = None

    def fail(self, status: int) -> None:
        """Stop serving and end with a status that is not 0; may be called from any thread."""
        if self.is_wanted:
            return
        self.status = status or 1
        if self.server is not None:
            self.server.should_exit = True


def serve(settings: AllSettings, pages: str | None = None) -> int:
    """Serve until SIGTERM; return the status to end with.

    Args:
        settings: everything that is set.
        pages: where routes beside the API come from, as `module:function`; called with the `Serving`.

    Raises:
        SettingsRefused, DatabaseRefused, NotServable: it cannot be served from these; nothing was started.
    """
    server_settings = settings.server
    set_up_logs(server_settings.log_level, "serving")
    master_secret(server_settings)
    keys = beacon_keys(server_settings)
    database, deployment = open_deployment(server_settings)
    settings = for_deployment(settings, deployment.currency, deployment.time_zone)
    ending = Ending()
    with alone_in(server_settings.data_dir):
        socket_path = socket_path_in(server_settings.data_dir)
        errand = Errand(settings=settings, deployment=deployment, beacon_keys=keys, socket_path=str(socket_path))
        builder = Builder(errand)
        writer = Child("writer", errand)
        writer.watch(ending.fail)
        try:
            # Imported here: by now the children are importing too, on other cores.
            from bidder_api.serving import Serving, compose
            from ledger.pipe import Intake, WriterClient
            from ledger.spend import SpendUpdate

            @asynccontextmanager
            async def intake_of(on_spend: Callable[[SpendUpdate], None]) -> AsyncIterator[Intake]:
                async with WriterClient(socket_path, on_spend) as client:
                    builder.tell(serving, asyncio.get_running_loop())
                    yield client

            make_pages: Callable[[Serving], Sequence[Route]] | None = None if pages is None else find(pages)
            serving = compose(settings, database, deployment, intake_of, pages=make_pages)
            assert serving.app is not None
            server = server_of(
                serving.app,
                host=server_settings.host,
                port=server_settings.port,
                request_deadline_s=server_settings.body_deadline_s,
                keep_alive_s=server_settings.keep_alive_s,
                drain_s=server_settings.drain_s,
                connection_count_max=server_settings.connection_count_max,
            )
            ending.server = server
            if ending.status == 0:
                run(server, ending)
        finally:
            ending.is_wanted = True
            builder.stop()
            writer.stop()
            database.close()
    if ending.status:
        _log.error("ended", status=ending.status)
    return ending.status


def run(server: DrainingServer, ending: Ending) -> None:
    """Run the server; a start that failed, such as on a port in use, is a failure of ours too."""
    try:
        server.run()
    except SystemExit as failure:
        ending.fail(failure.code if isinstance(failure.code, int) else 1)


class OneAtATime:
    """Hands news of snapshots on, one after the other.

    While one is being taken up others may come: of those the newest alone is handed on, since the files of older ones
    go, and nobody would serve from them for long.
    """

    def __init__(self, hear: Callable[[SnapshotNews], Awaitable[None]]) -> None:
        self._hear = hear
        self._busy = asyncio.Lock()
        self._newest = -1

    async def hear(self, news: SnapshotNews) -> None:
        """Hand news on when it is their turn; failures always."""
        self._newest = max(self._newest, news.version)
        async with self._busy:
            if news.path is None or news.version == self._newest:
                await self._hear(news)


class Builder:
    """The snapshot builder's process; started again when it ends before we do, since auctions go on without it."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._is_stopped = False
        self._lock = threading.Lock()
        self._child = Child("builder", errand, has_news=True)
        self._heard: list[SnapshotNews] = []
        self._told: Callable[[SnapshotNews], None] | None = None
        threading.Thread(target=self._listen, name="builder", daemon=True).start()

    def tell(self, serving: "object", loop: asyncio.AbstractEventLoop) -> None:
        """Tell what is heard from now on, and the last of what was heard before, to the serving parts."""
        turn = OneAtATime(serving.hear)  # type: ignore[attr-defined]

        def told(news: SnapshotNews) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(lambda: loop.create_task(turn.hear(news)))

        with self._lock:
            self._told = told
            for news in self._heard[-1:]:
                told(news)

    def stop(self) -> None:
        """Let go of the process."""
        self._is_stopped = True
        self._child.stop()

    def _listen(self) -> None:
        decode = msgspec.json.Decoder(SnapshotNews).decode
        while True:
            for line in self._child.news:
                news = decode(line)
                with self._lock:
                    if self._told is None:
                        self._heard = [news]
                    else:
                        self._told(news)
            if self._is_stopped:
                return
            _log.error("builder_ended", pid=self._child.pid)
            time.sleep(RESTART_AFTER_S)
            self._child = Child("builder", self._errand, has_news=True)


@contextmanager
def alone_in(data_dir: Path) -> Iterator[None]:
    """Hold the data folder: one server at a time. A predecessor that is ending is waited for.

    Raises:
        NotServable: another server is serving from it.
    """
    with (data_dir / LOCK_FILE).open("a") as lock:
        ends = time.monotonic() + PREDECESSOR_WITHIN_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > ends:
                    raise NotServable(f"another server is serving from {data_dir}; stop it first") from None
                time.sleep(0.05)
        yield


def socket_path_in(data_dir: Path) -> Path:
    """Return where the writer listens.

    Raises:
        NotServable: the address would be longer than the system allows.
    """
    path = data_dir.resolve() / SOCKET_NAME
    if len(str(path).encode()) > SOCKET_PATH_LENGTH_MAX:
        raise NotServable(f"ENDCAP_DATA_DIR is too long for a Unix socket in it: {path}")
    return path


def find(name: str) -> Callable[..., Sequence[Route]]:
    """Return what `module:function` names."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Sequence[Route]] = getattr(import_module(module), attribute)
    return found
