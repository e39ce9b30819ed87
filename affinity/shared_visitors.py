"""A serving process's visitors, kept in step with a server that other processes share them through.

The navigation log stays what is durable. What is in it is sent on: at once, and after an outage from where the server
has it. Memory holds copies, each with the version it is of; whoever wants to know a visitor asks the server for what
came since, and works on from there as where nothing is shared.
"""

import asyncio
import contextlib
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import structlog

from affinity.errors import ErasureUnfinished, LogUnwritable, SharedStoreUnavailable
from affinity.record import VisitorRecord
from affinity.retention import forget_before
from affinity.shared_store import (
    FORGET,
    PROCESS_ID_LENGTH,
    Appended,
    Found,
    Line,
    SharedStore,
    decode_shared_lines,
    kind_of,
    pack_shared,
    unpack_shared,
)
from affinity.visitors import VisitorStore

PROCESS_FILE = "visitor-store.id"
SENT_BYTES = 262_144  # of the log at a time: some thousand lines
SENT_COUNT_MAX = 500
FOLDED_FROM = 48  # lines of one visitor
FOLDED_AT_ONCE = 16
TRIES = 3
PROBE_EVERY_S = 0.1
PROBE_WITHIN_S = 0.05  # who answers later than that would answer pages too late as well
SOME_COUNT = 200  # visitors read at once when the process starts
OLD_COUNT = 200
CONFIRMED_WITHIN_S = 15.0
REWRITTEN_WITHIN_S = 60.0
LOOK_EVERY_S = 0.02
LATER_COUNT_MAX = 50_000

_log = structlog.get_logger("visitors")


def process_id_in(data_dir: Path) -> str:
    """Return what a data folder's process is called in the shared store; made up once, and kept beside the log."""
    path = data_dir / PROCESS_FILE
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(PROCESS_ID_LENGTH // 2))
    return path.read_text()


class SharedVisitors:
    """Keeps a process's visitors and the shared store in step. Used on the event loop.

    Attributes:
        is_up: whether the server answers in time; while it does not, nobody waits for it.

    Args:
        visitors: the process's, over a log of its own.
        store: where they are shared.
        clock_ms: UTC, milliseconds since 1970.
        count_unread: called for every page that is filled without its visitor.
    """

    def __init__(
        self,
        visitors: VisitorStore,
        store: SharedStore,
        clock_ms: Callable[[], int],
        count_unread: Callable[[], object] = lambda: None,
    ) -> None:
        assert visitors.log is not None, "what is shared is what the log has"
        self._visitors, self._log = visitors, visitors.log
        self._store = store
        self._clock_ms = clock_ms
        self.is_up = True
        self._count_unread = count_unread
        self._versions = visitors.records.versions
        self._unsent: dict[bytes, int] = {}  # whose lines the server has not confirmed, to the number of the last write
        self._write_count = 0
        self._positions: dict[str, int] = {}
        self._ended: set[str] = set()  # files the server has to their end
        self._run_id = ""
        self._sending = asyncio.Lock()
        self._wakes = asyncio.Event()
        self._later: deque[tuple[tuple[bytes, ...], Callable[[], object]]] = deque()
        self._sending_all: asyncio.Future[None] | None = None
        self._rewriting = asyncio.Lock()
        visitors.begin_sharing(self._note_write)

    @property
    def unsent_count(self) -> int:
        """Return of how many visitors something is in the log that is not shared yet."""
        return len(self._unsent)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def read(self, *pseudonyms: bytes) -> None:
        """Have memory know of visitors, and of every device of theirs, what the server does.

        One round trip, unless something of theirs is just being sent.

        Raises:
            SharedStoreUnavailable: the server does not answer.
        """
        devices = [one for pseudonym in pseudonyms for one in self._visitors.devices(pseudonym)]
        for _ in range(TRIES):
            if not self._unsent.keys().isdisjoint(devices):
                await self.send()
            asked = {one: self._versions.get(one) for one in devices}
            found = await self._asked(self._store.read(asked))
            if not self._unsent.keys().isdisjoint(devices):
                continue  # written meanwhile: the answer may or may not have it
            missed = [one for one in asked if not self._take(one, asked[one], found[one])]
            if not missed:
                return
        raise SharedStoreUnavailable("visitors' state changes faster than it can be read")

    async def read_within(self, visitor_id: str, seconds: float) -> bool:
        """Do as `read` for a page that can wait so long; say whether the visitor is known now."""
        if self.is_up and seconds > 0:
            reading = asyncio.ensure_future(self.read(self._visitors.pseudonym(visitor_id)))
            reading.add_done_callback(_look_at)
            await asyncio.wait({reading}, timeout=seconds)
            if not reading.done():
                self._note_down("it does not answer in time")
            elif reading.exception() is None:
                return True
        self._count_unread()
        return False

    def later(self, pseudonyms: Iterable[bytes], work: Callable[[], object]) -> None:
        """Do something about visitors when the server can say what is known of them; not where this process ends first.

        Such as a refusal of consent on a page, or an order, that came while the server was away.
        """
        if len(self._later) < LATER_COUNT_MAX:
            self._later.append((tuple(pseudonyms), work))

    async def note_seen(self, event_ids: Iterable[tuple[str, str]]) -> None:
        """Have memory know which of some visitors' event ids another process took in; without the server, none.

        Args:
            event_ids: each with its visitor's id before it.
        """
        of_event, of_visitor = self._visitors.pseudonymizer.of_event, self._visitors.pseudonym
        asked = [
            (pseudonym, of_event(event_id, pseudonym))
            for visitor_id, event_id in event_ids
            for pseudonym in [of_visitor(visitor_id)]
        ]
        if asked and self.is_up:
            with contextlib.suppress(SharedStoreUnavailable):  # then the server refuses them, when it has them sent
                for number in await self._asked(self._store.seen(asked)):
                    self._visitors.know_event(number)

    def _take(self, pseudonym: bytes, asked: int | None, found: Found) -> bool:
        """Take over what was read; say whether memory has it then."""
        known = self._versions.get(pseudonym)
        if known is not None and known >= found.version > 0:
            return True
        if found.base is None:
            if known != asked:
                return False
            self._visitors.take_in(decode_shared_lines(found.lines), self._clock_ms())
        elif not found.version:
            if pseudonym in self._visitors.records:
                self._visitors.drop_copy(pseudonym)
            return True
        else:
            self._visitors.put_copy(self._record_of(pseudonym, found))
        self._versions[pseudonym] = found.version
        return True

    def _record_of(self, pseudonym: bytes, found: Found) -> VisitorRecord:
        """Return the record that all of what was read comes to."""
        assert found.base is not None
        record, now_ms = unpack_shared(pseudonym, found.base), self._clock_ms()
        lines = decode_shared_lines(found.lines)
        self._visitors.add_up(record, lines)
        for line in lines:
            self._visitors.know_event(line.event)
        record.seen_at_ms = max([record.seen_at_ms, *(min(line.at_ms, now_ms) for line in lines)])
        oldest_kept_ms = self._visitors.oldest_kept_ms(now_ms)
        if oldest_kept_ms:
            forget_before(record, oldest_kept_ms, self._visitors.settings)
        return record

    # --- sending -----------------------------------------------------------------------------------------------------

    def _note_write(self, pseudonyms: Iterable[bytes]) -> None:
        self._write_count += 1
        for pseudonym in pseudonyms:
            self._unsent[pseudonym] = self._write_count
        self._wakes.set()

    async def send(self) -> None:
        """Have the server take in what this process wrote until now.

        Raises:
            SharedStoreUnavailable: the server does not answer; what it has not is sent again later.
            LogUnwritable: what is not logged yet cannot be.
        """
        async with self._sending:
            await self._send_sure()
            self._visitors.flush(self._clock_ms())
            written = self._write_count
            for name in sorted(self._log.own_segments - self._ended):
                while await self._send_some(name):
                    pass
            self._unsent = {one: number for one, number in self._unsent.items() if number > written}

    async def send_all(self) -> None:
        """Do as `send`, and send files too that were imported, begun by an earlier start, or lost by the server.

        What is written meanwhile has its turn between two pieces.

        Raises:
            SharedStoreUnavailable, LogUnwritable: as there.
        """
        await self.send()
        names = self._log.segments()
        async with self._sending:
            await self._find_positions(names)
        for name in names:
            is_over = name in self._ended
            while not is_over:
                async with self._sending:
                    is_over = not await self._send_some(name)

    async def send_soon(self, seconds: float = 0.1) -> None:
        """Do as `send`, and leave it to go on by itself where it takes longer than that, or fails."""
        if self.is_up:
            sending = asyncio.ensure_future(self.send())
            sending.add_done_callback(_look_at)
            await asyncio.wait({sending}, timeout=seconds)

    async def _send_sure(self) -> None:
        """Note what became of fills, of those visitors who are known."""
        unsure = self._visitors.take_unsure()
        if unsure:
            try:
                found = await self._asked(self._store.read({line.pseudonym: None for line in unsure}))
            except SharedStoreUnavailable:
                self._visitors.unsure[:0] = unsure
                raise
            self._visitors.note_sure(line for line in unsure if found[line.pseudonym].version)

    async def _send_some(self, name: str) -> bool:
        """Send the next lines of a file; say whether there may be more."""
        position, is_live = self._positions.get(name, 0), name == self._log.live
        texts = self._log.read_raw(name, position, SENT_BYTES).splitlines(keepends=True)[:SENT_COUNT_MAX]
        if not texts:
            if not is_live:
                self._ended.add(name)
            return False
        until = position + sum(map(len, texts))
        lines = self._lines_of(texts)
        appended = await self._asked(self._store.append(name, position, until, lines))
        self._positions[name] = appended.position
        if appended.position == until:
            self._note_sent(lines, appended, is_own=name in self._log.own_segments)
            await self._fold_long(appended)
        else:  # the server lost what it had, or has what it could not confirm
            self._visitors.records.versions.clear()
        return True

    def _lines_of(self, texts: Sequence[bytes]) -> list[Line]:
        oldest_kept_ms = self._visitors.oldest_kept_ms(self._clock_ms())
        decoded = [(self._log.decode(text), text) for text in texts]
        return [
            Line(line.pseudonym, kind_of(line), line.event, line.at_ms, text.rstrip(b"\n"))
            for line, text in decoded
            if line is not None and line.at_ms >= oldest_kept_ms
        ]

    def _note_sent(self, lines: Sequence[Line], appended: Appended, *, is_own: bool) -> None:
        """Know the versions of copies that have exactly the lines the server has."""
        differing = {line.pseudonym for line, taken in zip(lines, appended.is_taken, strict=True) if not taken}
        for line in lines:
            if line.kind == FORGET:
                differing.add(line.pseudonym)
                if not is_own:
                    self._visitors.withdrawn.add(line.pseudonym)
        if not is_own:
            return  # copies do not have these lines yet: they are read on from where they are
        for pseudonym, span in appended.spans.items():
            if pseudonym not in differing and self._versions.get(pseudonym) == span.first:
                self._versions[pseudonym] = span.last
            else:
                self._versions.pop(pseudonym, None)

    async def _fold_long(self, appended: Appended) -> None:
        long = [pseudonym for pseudonym, span in appended.spans.items() if span.length >= FOLDED_FROM + 2]
        for first in range(0, len(long), FOLDED_AT_ONCE):
            await self._fold(long[first : first + FOLDED_AT_ONCE])

    async def _fold(self, pseudonyms: Collection[bytes]) -> None:
        """Make one record of what the lists hold; leaves what somebody else does at the same time."""
        found = await self._asked(self._store.read(dict.fromkeys(pseudonyms)))
        gone = [one for one in pseudonyms if not found[one].version]
        await self._asked(self._store.leave_out(gone))
        for pseudonym, one in found.items():
            if not one.version:
                continue
            record = self._record_of(pseudonym, one)
            oldest_ms, now_ms = _oldest_of(record), self._clock_ms()
            if oldest_ms is None and self._visitors.oldest_kept_ms(now_ms):
                await self._asked(self._store.fold(pseudonym, one, None, 0))
                continue
            base = pack_shared(record, self._visitors.settings)
            await self._asked(self._store.fold(pseudonym, one, base, now_ms if oldest_ms is None else oldest_ms))

    # --- erasure -----------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Have the server take in all ended files of the log, which may be rewritten then.

        Raises:
            ErasureUnfinished: it does not answer.
        """
        try:
            await self.send_all()
        except SharedStoreUnavailable as failure:
            raise ErasureUnfinished(str(failure)) from failure

    async def forget(self, gone: Collection[bytes]) -> None:
        """Delete visitors from the server, and have the other processes erase them too.

        Raises:
            ErasureUnfinished: it does not answer.
        """
        try:
            await self._asked(self._store.forget(gone, self._clock_ms()))
        except SharedStoreUnavailable as failure:
            raise ErasureUnfinished(str(failure)) from failure

    async def confirm(self, gone: Collection[bytes]) -> None:
        """Wait until every process that is running erased them, and the server's own files were written without them.

        Raises:
            ErasureUnfinished: it takes too long, or the server does not answer.
        """
        ends = time.monotonic() + CONFIRMED_WITHIN_S
        try:
            while not (await self._asked(self._store.beat())).awaited.isdisjoint(gone):
                if time.monotonic() > ends:
                    raise ErasureUnfinished("another serving process has not erased the visitor from its files yet")
                await asyncio.sleep(LOOK_EVERY_S)
            async with self._rewriting:
                await self._rewrite_files()
        except SharedStoreUnavailable as failure:
            raise ErasureUnfinished(str(failure)) from failure

    async def _rewrite_files(self) -> None:
        """Have the server write its append-only file and its snapshot anew, where it keeps them."""
        for what in await self._asked(self._store.kept_files()):
            await self._until_idle()
            await self._asked(self._store.rewrite(what))
            failed = await self._until_idle()
            if what in failed:
                raise ErasureUnfinished(f"the server of visitors' state could not write its {what} anew")

    async def _until_idle(self) -> list[str]:
        """Wait until the server writes no file; return those whose last writing failed."""
        ends = time.monotonic() + REWRITTEN_WITHIN_S
        while True:
            is_busy, failed = await self._asked(self._store.writing())
            if not is_busy:
                return failed  # type: ignore[no-any-return]
            if time.monotonic() > ends:
                raise ErasureUnfinished("the server of visitors' state takes long to write its files anew")
            await asyncio.sleep(LOOK_EVERY_S)

    # --- following ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin: send what the server has not, and finish what was asked for while this process was away.

        Without the server it begins all the same, and does that later.
        """
        self._visitors.withdrawn |= await asyncio.to_thread(self._log.refusals)
        with contextlib.suppress(SharedStoreUnavailable, ErasureUnfinished):
            await self.tick()
            await self.send_all()

    async def tick(self) -> None:
        """Do what is to be done about every second: say that this process is there, and erase whom others erased.

        Files that are not sent are begun to be, beside it.

        Raises:
            SharedStoreUnavailable: the server does not answer.
            ErasureUnfinished: the log cannot be rewritten now.
        """
        heard = await self._asked(self._store.beat())
        self._visitors.shared_count = heard.visitor_count
        if heard.to_erase:
            await self._erase_here(heard.to_erase)
        await self._do_later()
        if self._sending_all is None or self._sending_all.done():
            self._sending_all = asyncio.ensure_future(self.send_all())
            self._sending_all.add_done_callback(_look_at)

    async def drop_before(self, cutoff_ms: int) -> None:
        """Take what is from before a moment out of what is shared.

        Raises:
            SharedStoreUnavailable: the server does not answer.
        """
        before: list[bytes] = []
        while (due := await self._asked(self._store.with_older(cutoff_ms - 1, OLD_COUNT))) and due != before:
            await self._fold(due)
            before = due

    async def read_some(self, count: int) -> None:
        """Read some visitors into memory, from whom audiences' sizes are told.

        Raises:
            SharedStoreUnavailable: the server does not answer.
        """
        chosen = await self._asked(self._store.some(count))
        for first in range(0, len(chosen), SOME_COUNT):
            some = [one for one in chosen[first : first + SOME_COUNT] if one not in self._visitors.records]
            found = await self._asked(self._store.read(dict.fromkeys(some)))
            for pseudonym in some:
                if pseudonym not in self._unsent and pseudonym not in self._visitors.records:
                    self._take(pseudonym, None, found[pseudonym])
                await asyncio.sleep(0)

    async def keep_house(self) -> None:
        """Do what is to be done about every hour: drop what versions and settings left that nobody uses any more.

        Raises:
            SharedStoreUnavailable: the server does not answer.
        """
        await self._asked(self._store.drop_unused())

    async def run(self) -> None:
        """Send what is written as soon as it is, for ever; look for the server where it does not answer."""
        while True:
            await self._wakes.wait()
            self._wakes.clear()
            try:
                if not self.is_up:
                    await self._find_again()
                await self.send()
            except (SharedStoreUnavailable, LogUnwritable, TimeoutError):
                self._wakes.set()
                await asyncio.sleep(PROBE_EVERY_S)

    async def close(self) -> None:
        """Send what is left, and close the connections."""
        if self._sending_all is not None:
            self._sending_all.cancel()
        with contextlib.suppress(SharedStoreUnavailable, LogUnwritable):
            if self.is_up:
                await self.send()
        await self._store.close()

    async def _find_positions(self, names: Collection[str]) -> None:
        """Learn how far the server has each file: not as far as it had where it was started anew from older files."""
        run_id, positions = await self._asked(self._store.join())
        if run_id != self._run_id:
            self._run_id = run_id
            self._versions.clear()
        gone = positions.keys() - set(names)
        await self._asked(self._store.drop_positions(gone))
        if any(positions.get(name) != position for name, position in self._positions.items() if name not in gone):
            self._ended.clear()
        self._positions = {name: position for name, position in positions.items() if name not in gone}

    async def _find_again(self) -> None:
        async with asyncio.timeout(PROBE_WITHIN_S):
            await self._store.ping()
        self._versions.clear()
        await self.send_all()
        self.is_up = True
        _log.warning("visitor_store_found_again")

    async def _erase_here(self, to_erase: dict[bytes, int]) -> None:
        """Erase whom another process erased, or whose refusal it heard: out of memory and this process's log."""
        gone = set(to_erase)
        self._visitors.forget(gone)
        self._log.rotate()
        await self.settle()
        await asyncio.to_thread(self._log.erase, gone)
        await self._asked(self._store.done(to_erase))

    async def _do_later(self) -> None:
        while self._later:
            pseudonyms, work = self._later[0]
            await self.read(*pseudonyms)
            work()
            self._later.popleft()

    async def _asked(self, answer: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await answer
        except SharedStoreUnavailable as failure:
            self._note_down(str(failure))
            raise

    def _note_down(self, why: str) -> None:
        if self.is_up:
            self.is_up = False
            _log.error("visitor_store_gone", why=why)
        self._wakes.set()


class SharedReader:
    """Reads shared visitors for a command, outside any event loop; is no process that shares them.

    Args:
        visitors: over no log; knows the catalogue, and who is linked to whom.
        store: where they are shared.
    """

    def __init__(self, visitors: VisitorStore, store: SharedStore) -> None:
        self._visitors = visitors
        self._store = store
        self._loop = asyncio.Runner()

    def pseudonym(self, visitor_id: str) -> bytes:
        """Return what a visitor is kept under."""
        return self._visitors.pseudonym(visitor_id)

    def record(self, pseudonym: bytes) -> VisitorRecord | None:
        """Return what is known of a visitor with all devices; None where nothing is.

        Raises:
            SharedStoreUnavailable: the server does not answer.
        """
        devices = self._visitors.devices(pseudonym)
        for one, found in self._loop.run(self._store.read(dict.fromkeys(devices))).items():
            if found.version:
                assert found.base is not None
                record = unpack_shared(one, found.base)
                self._visitors.add_up(record, decode_shared_lines(found.lines))
                self._visitors.put_copy(record)
        return self._visitors.record(pseudonym)

    def close(self) -> None:
        """Close the connections."""
        with self._loop:
            self._loop.run(self._store.close())


def _look_at(done: "asyncio.Future[Any]") -> None:
    """Take note of how something ended that nobody may wait for any more."""
    if not done.cancelled():
        done.exception()


def _oldest_of(record: VisitorRecord) -> int | None:
    """Return when the oldest of what a record keeps happened; None where it keeps nothing."""
    times = [
        *(one.at_ms for one in record.events[:1]),
        *record.bought_product.values(),
        *record.bought_category.values(),
        *record.bought_brand.values(),
        *(shown[0] for shown in record.served_at_ms.values() if shown),
        *(shown.at_ms[0] if shown.at_ms else shown.clicked_at_ms for shown in record.shown.values()),
    ]
    if times:
        return min(times)
    return record.purchases.last_at_ms if record.purchases.order_count else None
