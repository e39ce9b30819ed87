"""The one queue into the ledger, whatever process its writer runs in.

`LocalIntake` commits in this process, beside the event loop (tests, small installations); `WriterClient` asks a writer
in a process of its own, which runs `serve_writer` behind a Unix socket. Both group what arrives together into one
commit and answer only after it.

On the socket a message is 4 bytes of length, big-endian, then MessagePack. The writer sends everything that was spent
when a client connects, and what moved after every commit.
"""

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import selectors
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
from msgspec import Struct

from ledger.command import Command, CommandAnswer
from ledger.errors import LedgerBroken, LedgerRefused, LedgerUnavailable, StorageFailed
from ledger.event import EventResult, ReportedEvent
from ledger.settings import Settings
from ledger.spend import OnSpend, SpendUpdate
from ledger.writer import LedgerWriter

STORAGE_FAILED_EXIT = 74  # the process status when storage failed: sysexits' EX_IOERR
PROBE_S = 0.5  # how often a writer that could not write tries again by itself
PARENT_CHECK_S = 0.2
RECONNECT_S = 0.05
FRAME_BYTES_MAX = 16_000_000
UNSENT_BYTES_MAX = 64_000_000

log = logging.getLogger("ledger")
_LENGTH = struct.Struct(">I")


class Intake(Protocol):
    """What an endpoint needs of the ledger's writer."""

    async def record(self, events: list[ReportedEvent], *, with_amounts: bool) -> list[EventResult]:
        """Return what became of each event, once all of it is durable.

        Raises:
            LedgerUnavailable: nothing was acknowledged; sending the same ids again is safe.
        """
        ...

    async def command(self, command: Command) -> CommandAnswer:
        """Carry out a command and return what is booked, once it is durable.

        Raises:
            LedgerRefused: the command breaks a rule; nothing of it was written.
            LedgerUnavailable: as above.
        """
        ...

    def unwritable_s(self) -> float:
        """Return for how many seconds nothing could be written; 0.0 while all is well."""
        ...


Failure = LedgerRefused | LedgerBroken


class RecordAsked(Struct, frozen=True, array_like=True, tag="record"):
    """Events of one request."""

    number: int
    events: list[ReportedEvent]


class CommandAsked(Struct, frozen=True, array_like=True, tag="command"):
    """One command."""

    number: int
    command: Command


class Recorded(Struct, frozen=True, array_like=True, tag="recorded"):
    """Results of one request, durable."""

    number: int
    results: list[EventResult]


class Done(Struct, frozen=True, array_like=True, tag="done"):
    """A command's answer, durable."""

    number: int
    answer: CommandAnswer


class Failed(Struct, frozen=True, array_like=True, tag="failed"):
    """A refusal, or that nothing can be written now."""

    number: int
    code: str
    message: str
    status: int
    retryable: bool
    pointer: str | None


class Moved(Struct, frozen=True, array_like=True, tag="moved"):
    """What a commit moved, or everything there is. `is_writable` is False while commits fail."""

    update: SpendUpdate | None
    is_writable: bool


Asked = RecordAsked | CommandAsked
Said = Recorded | Done | Failed | Moved


# --- grouping


def record_together(
    writer: LedgerWriter, requests: Sequence[list[ReportedEvent]]
) -> tuple[list[list[EventResult] | Failure], list[SpendUpdate]]:
    """Record requests in one commit; where one of them breaks it, each in a commit of its own.

    Raises:
        StorageFailed: the process must end, and no request may be answered as recorded.
    """
    try:
        results, update = writer.record(requests)
    except LedgerUnavailable as failure:
        return [failure] * len(requests), []
    except StorageFailed:
        raise
    except Exception as failure:
        log.exception("a group of %d requests could not be recorded", len(requests))
        if len(requests) == 1:
            broken = failure if isinstance(failure, LedgerBroken) else LedgerBroken(repr(failure))
            return [broken], []
        answers: list[list[EventResult] | Failure] = []
        updates: list[SpendUpdate] = []
        for request in requests:
            alone, moved = record_together(writer, [request])
            answers += alone
            updates += moved
        return answers, updates
    return list(results), [update]


def without_amounts(results: Sequence[EventResult]) -> list[EventResult]:
    """Return results as a browser may see them."""
    return [EventResult(result.event_id, result.result, result.code) for result in results]


class _Health:
    """Since when nothing could be written."""

    def __init__(self) -> None:
        self._since: float | None = None

    def note(self, is_writable: bool) -> None:
        if is_writable:
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()

    def unwritable_s(self) -> float:
        return 0.0 if self._since is None else time.monotonic() - self._since


# --- in this process


class LocalIntake:
    """Commits in a thread of this process.

    Args:
        writer: used by nobody else.
        settings: the ledger's.
        on_spend: told what each commit moved, on the event loop, before the commit is answered.
        on_storage_failed: told, after everybody waiting was, that the process must end.
    """

    def __init__(
        self,
        writer: LedgerWriter,
        settings: Settings,
        on_spend: OnSpend,
        on_storage_failed: Callable[[StorageFailed], None],
    ) -> None:
        self._writer = writer
        self._settings = settings
        self._on_spend = on_spend
        self._on_storage_failed = on_storage_failed
        self._waiting: deque[tuple[list[ReportedEvent] | Command, asyncio.Future[Any]]] = deque()
        self._waiting_event_count = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._health = _Health()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        _tell(self._on_spend, await self._in_thread(self._writer.state))
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._running is not None:
            while self._waiting:
                await asyncio.sleep(0.001)
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        await asyncio.to_thread(self._thread.shutdown)

    async def record(self, events: list[ReportedEvent], *, with_amounts: bool) -> list[EventResult]:
        """See `Intake`."""
        if self._waiting_event_count + len(events) > self._settings.waiting_event_count_max:
            raise LedgerUnavailable("too_busy", "more events are waiting than can be written soon")
        results = await self._ask(events, len(events))
        assert isinstance(results, list)
        return results if with_amounts else without_amounts(results)

    async def command(self, command: Command) -> CommandAnswer:
        """See `Intake`."""
        answer: CommandAnswer = await self._ask(command, 0)
        return answer

    def unwritable_s(self) -> float:
        """See `Intake`."""
        return self._health.unwritable_s()

    async def _ask(self, asked: list[ReportedEvent] | Command, event_count: int) -> Any:
        if self._running is None or self._running.done():
            raise LedgerUnavailable("writer_gone", "the ledger's writer is not running")
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answered))
        self._waiting_event_count += event_count
        self._arrived.set()
        return await answered

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._arrived.clear()
                try:
                    await asyncio.wait_for(self._arrived.wait(), PROBE_S if self._health.unwritable_s() else None)
                except TimeoutError:
                    await self._probe()
                    continue
            if self._waiting_event_count < self._settings.group_event_count_max:
                await asyncio.sleep(self._settings.group_wait_ms / 1000)
            asked, answered = self._waiting[0]
            try:
                if isinstance(asked, list):
                    await self._record_group()
                else:
                    self._waiting.popleft()
                    await self._carry_out(asked, answered)
            except StorageFailed as failure:
                self._fail_everybody()
                self._on_storage_failed(failure)
                return

    async def _record_group(self) -> None:
        group: list[tuple[list[ReportedEvent], asyncio.Future[Any]]] = []
        count = 0
        while self._waiting and count < self._settings.group_event_count_max:
            asked, answered = self._waiting[0]
            if not isinstance(asked, list):
                break
            self._waiting.popleft()
            group.append((asked, answered))
            count += len(asked)
        self._waiting_event_count -= count
        requests = [events for events, _ in group]
        try:
            answers, updates = await self._in_thread(lambda: record_together(self._writer, requests))
        except StorageFailed:
            for _, answered in group:
                _settle(answered, LedgerUnavailable("storage_failed", "the database file failed"))
            raise
        for update in updates:
            _tell(self._on_spend, update)
        self._health.note(bool(updates) or not any(isinstance(answer, LedgerUnavailable) for answer in answers))
        for (_, answered), answer in zip(group, answers, strict=True):
            _settle(answered, answer)

    async def _carry_out(self, command: Command, answered: asyncio.Future[Any]) -> None:
        try:
            answer, update = await self._in_thread(lambda: self._writer.command(command))
        except StorageFailed:
            _settle(answered, LedgerUnavailable("storage_failed", "the database file failed"))
            raise
        except (LedgerRefused, LedgerBroken) as failure:
            self._health.note(not isinstance(failure, LedgerUnavailable))
            _settle(answered, failure)
            return
        self._health.note(True)
        _tell(self._on_spend, update)
        _settle(answered, answer)

    async def _probe(self) -> None:
        with contextlib.suppress(LedgerUnavailable):
            await self._in_thread(self._writer.probe)
            self._health.note(True)

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _fail_everybody(self) -> None:
        while self._waiting:
            _, answered = self._waiting.popleft()
            _settle(answered, LedgerUnavailable("storage_failed", "the database file failed"))


def _tell(on_spend: OnSpend, update: SpendUpdate) -> None:
    """Tell a listener; one that fails must not keep anybody from their answer."""
    try:
        on_spend(update)
    except Exception:
        log.exception("a listener to what was spent failed")


def _settle(answered: asyncio.Future[Any], answer: Any) -> None:
    if answered.done():  # whoever asked has gone away
        return
    if isinstance(answer, Exception):
        answered.set_exception(answer)
    else:
        answered.set_result(answer)


# --- the writer's process


def serve_writer(
    make_writer: Callable[[], LedgerWriter], settings: Settings, socket_path: Path, parent_pid: int | None
) -> int:
    """Serve the writer on a Unix socket until told to stop; return the status to exit with.

    Waits for a predecessor to be gone (a lock beside the socket, which the kernel drops with the process). Ends with
    0 on SIGTERM, after answering what it had taken, or when `parent_pid` is no longer the parent; with
    STORAGE_FAILED_EXIT when storage failed.
    """
    gc.freeze()  # what is loaded now stays; looking through it again and again costs a few percent of every commit
    gc.set_threshold(50_000, 20, 50)
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stop.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to the parent, who says SIGTERM

    def should_stop() -> bool:
        return bool(stop) or (parent_pid is not None and os.getppid() != parent_pid)

    with open(socket_path.with_name(socket_path.name + ".lock"), "a") as lock:
        while not should_stop():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            return _Server(make_writer(), settings, socket_path, should_stop).run()
    return 0


class _Peer:
    """One client: what it sent and is not yet read, what it was told and has not yet taken."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self.unsent = bytearray()


class _Server:
    """One thread: read what is there, commit it as a group, answer. While it commits, the next group queues up."""

    def __init__(
        self, writer: LedgerWriter, settings: Settings, socket_path: Path, should_stop: Callable[[], bool]
    ) -> None:
        self._writer = writer
        self._settings = settings
        self._should_stop = should_stop
        self._selector = selectors.DefaultSelector()
        socket_path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(socket_path))
        os.chmod(socket_path, 0o600)
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: set[_Peer] = set()
        self._waiting: deque[tuple[_Peer, Asked]] = deque()
        self._waiting_event_count = 0
        self._is_writable = True
        self._decode = msgspec.msgpack.Decoder(Asked).decode
        self._encode = msgspec.msgpack.Encoder().encode

    def run(self) -> int:
        probe_at = 0.0
        group_closes_at: float | None = None
        while True:
            now = time.monotonic()
            timeout = PARENT_CHECK_S if group_closes_at is None else max(group_closes_at - now, 0)
            self._exchange(timeout)
            if self._should_stop():
                return self._finish()
            if not self._is_writable and time.monotonic() >= probe_at:
                self._probe()
                probe_at = time.monotonic() + PROBE_S
            if not self._waiting:
                group_closes_at = None
                continue
            now = time.monotonic()
            if group_closes_at is None:
                group_closes_at = now + self._settings.group_wait_ms / 1000
            if now >= group_closes_at or self._waiting_event_count >= self._settings.group_event_count_max:
                try:
                    self._work_off()
                except StorageFailed:
                    log.exception("storage failed; the writer ends so that a new one recovers from the disk")
                    return self._give_up()
                group_closes_at = None

    def _exchange(self, timeout: float) -> None:
        for key, ready in self._selector.select(timeout):
            if key.data is None:
                self._accept()
            else:
                if ready & selectors.EVENT_READ:
                    self._read(key.data)
                if ready & selectors.EVENT_WRITE and key.data in self._peers:
                    self._flush(key.data)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        peer = _Peer(connection)
        self._peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)
        try:
            self._say(peer, Moved(self._writer.state(), self._is_writable))
        except LedgerUnavailable:
            self._leave(peer)  # it will come again

    def _read(self, peer: _Peer) -> None:
        try:
            part = peer.connection.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._leave(peer)
            return
        peer.received += part
        for frame in _frames(peer.received):
            asked = self._decode(frame)
            if isinstance(asked, RecordAsked):
                if self._waiting_event_count + len(asked.events) > self._settings.waiting_event_count_max:
                    refusal = LedgerUnavailable("too_busy", "more events are waiting than can be written soon")
                    self._say(peer, _failed(asked.number, refusal))
                    continue
                self._waiting_event_count += len(asked.events)
            self._waiting.append((peer, asked))

    def _work_off(self) -> None:
        peer, asked = self._waiting[0]
        if isinstance(asked, RecordAsked):
            self._record_group()
        else:
            self._waiting.popleft()
            try:
                answer, update = self._writer.command(asked.command)
            except StorageFailed:
                self._waiting.appendleft((peer, asked))
                raise
            except (LedgerRefused, LedgerBroken) as failure:
                self._note(not isinstance(failure, LedgerUnavailable))
                self._say(peer, _failed(asked.number, failure))
            else:
                self._note(True)
                self._tell_everybody(Moved(update, True))
                self._say(peer, Done(asked.number, answer))

    def _record_group(self) -> None:
        group: list[tuple[_Peer, RecordAsked]] = []
        count = 0
        while self._waiting and count < self._settings.group_event_count_max:
            peer, asked = self._waiting[0]
            if not isinstance(asked, RecordAsked):
                break
            self._waiting.popleft()
            group.append((peer, asked))
            count += len(asked.events)
        try:
            answers, updates = record_together(self._writer, [asked.events for _, asked in group])
        except StorageFailed:
            self._waiting.extendleft(reversed(group))
            raise
        self._waiting_event_count -= count
        for update in updates:
            self._tell_everybody(Moved(update, True))
        self._note(bool(updates) or not any(isinstance(answer, LedgerUnavailable) for answer in answers))
        for (peer, asked), answer in zip(group, answers, strict=True):
            if isinstance(answer, Exception):
                self._say(peer, _failed(asked.number, answer))
            else:
                self._say(peer, Recorded(asked.number, answer))

    def _note(self, is_writable: bool) -> None:
        if is_writable != self._is_writable:
            self._is_writable = is_writable
            self._tell_everybody(Moved(None, is_writable))

    def _probe(self) -> None:
        with contextlib.suppress(LedgerUnavailable):
            self._writer.probe()
            self._note(True)

    def _finish(self) -> int:
        """Answer what was taken, and end."""
        try:
            while self._waiting:
                self._work_off()
        except StorageFailed:
            return self._give_up()
        self._flush_everybody()
        return 0

    def _give_up(self) -> int:
        refusal = LedgerUnavailable("storage_failed", "the database file failed")
        for peer, asked in self._waiting:
            self._say(peer, _failed(asked.number, refusal))
        self._flush_everybody()
        return STORAGE_FAILED_EXIT

    def _flush_everybody(self) -> None:
        for peer in list(self._peers):
            peer.connection.settimeout(1.0)
            with contextlib.suppress(OSError):
                peer.connection.sendall(peer.unsent)
            peer.connection.close()

    def _tell_everybody(self, said: Moved) -> None:
        update = said.update
        if update is not None and not (update.campaigns or update.funds or update.event_count):
            return
        for peer in list(self._peers):
            self._say(peer, said)

    def _say(self, peer: _Peer, said: Said) -> None:
        if peer not in self._peers:
            return
        body = self._encode(said)
        peer.unsent += _LENGTH.pack(len(body)) + body
        self._flush(peer)

    def _flush(self, peer: _Peer) -> None:
        try:
            sent = peer.connection.send(peer.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._leave(peer)
            return
        del peer.unsent[:sent]
        if len(peer.unsent) > UNSENT_BYTES_MAX:
            self._leave(peer)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.unsent else 0)
        if self._selector.get_key(peer.connection).events != wanted:
            self._selector.modify(peer.connection, wanted, peer)

    def _leave(self, peer: _Peer) -> None:
        self._peers.discard(peer)
        self._selector.unregister(peer.connection)
        peer.connection.close()


def _frames(received: bytearray) -> list[bytes]:
    """Take the whole messages off the front of what was received."""
    frames = []
    offset = 0
    while len(received) - offset >= 4:
        (length,) = _LENGTH.unpack_from(received, offset)
        if length > FRAME_BYTES_MAX:
            raise LedgerBroken(f"a message must have at most {FRAME_BYTES_MAX} bytes, had {length}")
        if len(received) - offset - 4 < length:
            break
        frames.append(bytes(received[offset + 4 : offset + 4 + length]))
        offset += 4 + length
    del received[:offset]
    return frames


def _failed(number: int, failure: Failure) -> Failed:
    if isinstance(failure, LedgerRefused):
        return Failed(number, failure.code, str(failure), failure.status, failure.retryable, failure.pointer)
    return Failed(number, "ledger_broken", "the ledger refused to write something that is not right", 500, False, None)


# --- who asks it


class WriterClient:
    """Asks the writer behind a Unix socket; connects again by itself when it is gone.

    Args:
        socket_path: where the writer listens.
        on_spend: told what was spent, everything on connecting and then what each commit moved, on the event loop.
    """

    def __init__(self, socket_path: Path, on_spend: OnSpend) -> None:
        self._socket_path = socket_path
        self._on_spend = on_spend
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._writer: asyncio.StreamWriter | None = None
        self._health = _Health()
        self._running: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Said).decode

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    async def wait_connected(self, timeout_s: float) -> bool:
        """Say whether the writer is there and has told what was spent, waiting for it at most so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connected.wait(), timeout_s)
        return self._connected.is_set()

    async def record(self, events: list[ReportedEvent], *, with_amounts: bool) -> list[EventResult]:
        """See `Intake`."""
        results: list[EventResult] = await self._ask(lambda number: RecordAsked(number, events))
        return results if with_amounts else without_amounts(results)

    async def command(self, command: Command) -> CommandAnswer:
        """See `Intake`."""
        answer: CommandAnswer = await self._ask(lambda number: CommandAsked(number, command))
        return answer

    def unwritable_s(self) -> float:
        """See `Intake`."""
        return self._health.unwritable_s()

    async def _ask(self, make: Callable[[int], Asked]) -> Any:
        if self._writer is None:
            raise LedgerUnavailable("writer_gone", "the ledger's writer is not there")
        self._number += 1
        number = self._number
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = answered
        body = self._encode(make(number))
        self._writer.write(_LENGTH.pack(len(body)) + body)
        try:
            return await answered
        finally:
            self._asked.pop(number, None)

    async def _run(self) -> None:
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(str(self._socket_path))
            except OSError:
                self._health.note(False)
                await asyncio.sleep(RECONNECT_S)
                continue
            try:
                await self._listen(reader)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                self._writer.close()
                self._writer = None
                self._connected.clear()
                self._health.note(False)
                for answered in list(self._asked.values()):
                    _settle(answered, LedgerUnavailable("writer_gone", "the ledger's writer went away"))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            (length,) = _LENGTH.unpack(await reader.readexactly(4))
            said = self._decode(await reader.readexactly(length))
            if isinstance(said, Moved):
                self._health.note(said.is_writable)
                if said.update is not None:
                    _tell(self._on_spend, said.update)
                    if said.update.is_full:
                        self._connected.set()
                continue
            answered = self._asked.get(said.number)
            if answered is None:
                continue
            if isinstance(said, Recorded):
                _settle(answered, said.results)
            elif isinstance(said, Done):
                _settle(answered, said.answer)
            else:
                _settle(answered, _refusal(said))


def _refusal(said: Failed) -> Exception:
    if said.code == "ledger_broken":
        return LedgerBroken(said.message)
    refusal = LedgerUnavailable if said.status == LedgerUnavailable.status else LedgerRefused
    made = refusal(said.code, said.message, said.pointer)
    made.status, made.retryable = said.status, said.retryable
    return made
