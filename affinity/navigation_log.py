"""The navigation log: every event appended to a file before it is acknowledged, under pseudonyms only.

Flushed to the operating system and no further: it survives a killed process, not a power cut. Files are named by the
moment they were begun, so that reading them in the order of their names is reading history in order. What is
imported comes as files of its own, written whole and then renamed, which a running server picks up.
"""

import os
import sys
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from affinity.errors import ErasureUnfinished, LogUnwritable
from affinity.navigation import NavigationEvent
from affinity.pseudonym import PSEUDONYM_SIZE, Pseudonymizer

# Beside the visitors' own actions: a sponsored fill, the report that it rendered, and that it was clicked; a refusal.
SERVED, RENDERED, CLICKED = "served", "rendered", "clicked"
FILL_ACTIONS = frozenset({SERVED, RENDERED, CLICKED})
WITHDRAWN = "withdrawn"  # the visitor refused consent: what came before is to be forgotten, and this line with it
CHUNK_BYTES = 4_000_000
MARK_BYTES = 256
SUFFIX = ".jsonl"
DRAFT_SUFFIX = ".part"
DRAFT_DEAD_AFTER_S = 600  # an import writes all the time; one that has not for so long was killed

SEARCHED_MARK_COUNT_MAX = 16  # marks that are quicker searched for one by one than looked up line by line

# A line begins with `[` and then the pseudonym, as JSON writes bytes: that is its mark.
MARK_LENGTH = len(msgspec.json.encode(bytes(PSEUDONYM_SIZE)))
MARK = slice(1, 1 + MARK_LENGTH)
_REFUSAL = msgspec.json.encode(WITHDRAWN)


class LogLine(Struct, frozen=True, array_like=True, omit_defaults=True):
    """One event as a line of the log.

    Attributes:
        at_ms: when it happened; of a `rendered` line, when it was served.
        action: an Action, or SERVED, RENDERED, CLICKED or WITHDRAWN.
        event: keyed hash of the visitor's event id, 0 where it had none.
        product_id: product, or bid of a `served` line that has a frequency cap.
        category_id: category, or placement of a fill.
        quantity: how many, or slot of a fill.
    """

    pseudonym: bytes
    at_ms: int
    action: str
    event: int = 0
    product_id: str | None = None
    category_id: str | None = None
    price_micros: int | None = None
    quantity: int | None = None
    query: str | None = None
    traffic_source: str | None = None


def line_of(event: NavigationEvent, at_ms: int, pseudonym: bytes, pseudonymizer: Pseudonymizer) -> LogLine:
    """Return the event as it is logged, its ids hashed.

    Args:
        event: as it was reported or imported.
        at_ms: when it happened, UTC, milliseconds since 1970.
        pseudonym: what its visitor is kept under.
        pseudonymizer: turns its event id into a number.
    """
    return LogLine(
        pseudonym,
        at_ms,
        event.action,
        0 if event.event_id is None else pseudonymizer.of_event(event.event_id, pseudonym),
        event.product_id,
        event.category_id,
        event.price_micros,
        event.quantity,
        event.query,
        event.traffic_source,
    )


class Position(Struct, frozen=True, array_like=True):
    """How far into a file one has read.

    Attributes:
        name: the file's.
        offset: bytes from its beginning.
        mark: CRC-32 of the bytes right before, by which one sees whether the file was rewritten.
    """

    name: str
    offset: int
    mark: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(LogLine)


class NavigationLog:
    """The files of one folder; one process appends, others may add whole files.

    Args:
        folder: made if it is not there.
        segment_bytes: size at which a file is ended and the next begun.

    Attributes:
        own_segments: names of the files this process began.
        broken_line_count: lines that could not be read.
    """

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._descriptor: int | None = None
        self._name = ""
        self._size = 0
        self.own_segments: set[str] = set()
        self.broken_line_count = 0
        self._rewriting = threading.Lock()  # two at a time would bring back what the other took out
        self._oldest_ms: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def append(self, lines: Sequence[LogLine], now_ms: int) -> None:
        """Write lines, all or none.

        Raises:
            LogUnwritable: nothing was written; the disk is full or the file is gone.
        """
        if not lines:
            return
        raw = memoryview(_encoder.encode_lines(lines))
        descriptor = self._open(now_ms)
        written = 0
        try:
            while written < len(raw):
                written += os.write(descriptor, raw[written:])
        except OSError as failure:
            os.ftruncate(descriptor, self._size)
            raise LogUnwritable(f"navigation cannot be written: {failure.strerror}") from failure
        self._size += written
        if self._size >= self._segment_bytes:
            self.rotate()

    def rotate(self) -> None:
        """End the file that is appended to; the next line begins another."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def segments(self) -> list[str]:
        """Return the names of the files there are, oldest first."""
        return sorted(path.name for path in self.folder.iterdir() if path.suffix == SUFFIX)

    @property
    def live(self) -> str | None:
        """Return the name of the file that is appended to."""
        return None if self._descriptor is None else self._name

    def position(self) -> Position | None:
        """Return where the next line will be written; None where it begins a file."""
        if self._descriptor is None:
            return None
        return Position(self._name, self._size, self._mark(self._name, self._size))

    def is_at(self, position: Position) -> bool:
        """Say whether what was before the position when it was taken is there now."""
        try:
            return self._mark(position.name, position.offset) == position.mark
        except OSError:
            return False

    def read(self, name: str, offset: int = 0) -> Iterator[LogLine]:
        """Yield the lines of one file; a torn last line is left out, broken ones are left out and counted.

        Args:
            name: of the file; nothing is yielded where it is not there.
            offset: bytes to leave out at its beginning.
        """
        try:
            file = (self.folder / name).open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(offset)
            rest = b""
            while chunk := file.read(CHUNK_BYTES):
                whole, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    yield from self._decode(whole)

    def read_raw(self, name: str, offset: int, byte_count_max: int) -> bytes:
        """Return whole lines of a file, from an offset on; at least one where there is one, else about so many bytes.

        Nothing is returned where the file is not there, or ends before.
        """
        raw = b""
        with suppress(FileNotFoundError), (self.folder / name).open("rb") as file:
            file.seek(offset)
            while chunk := file.read(byte_count_max):
                raw += chunk
                whole, newline, _ = raw.rpartition(b"\n")
                if newline:
                    return whole + newline
        return b""

    def decode(self, raw: bytes) -> LogLine | None:
        """Return a line, None where it is broken."""
        try:
            return _decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def refusals(self) -> set[bytes]:
        """Return whose refusals are in the log still: their lines are not all taken out."""
        found: set[bytes] = set()
        for name in self.segments():
            with suppress(FileNotFoundError), (self.folder / name).open("rb") as file:
                for window, _ in _windows(file):
                    if _REFUSAL in window:
                        lines = [line for line in window.splitlines() if _REFUSAL in line]
                        found |= {one.pseudonym for one in map(self.decode, lines) if one and one.action == WITHDRAWN}
        return found

    def write_import(self, lines: Iterable[LogLine], now_ms: int, label: str) -> str:
        """Write a whole file of lines for a server to pick up; return its name."""
        name = f"{now_ms:013d}-import-{label}{SUFFIX}"
        draft = self.folder / (name + DRAFT_SUFFIX)
        with draft.open("wb") as file:
            some: list[LogLine] = []
            for line in lines:
                some.append(line)
                if len(some) >= 10_000:
                    file.write(_encoder.encode_lines(some))
                    some.clear()
            file.write(_encoder.encode_lines(some))
        draft.rename(self.folder / name)
        return name

    def lines_of(self, pseudonyms: Collection[bytes]) -> list[LogLine]:
        """Return every line of the pseudonyms, file by file in the order they were written."""
        marks = _marks_of(pseudonyms)
        return [
            line
            for name in self.segments()
            if self._holds(name, marks)
            for line in self.read(name)
            if line.pseudonym in pseudonyms
        ]

    def erase(self, pseudonyms: Collection[bytes]) -> int:
        """Rewrite the files in which one of the pseudonyms occurs, without its lines; return how many lines went.

        The file that is appended to is left alone: `rotate` first, on the thread that appends.

        Raises:
            ErasureUnfinished: a file cannot be rewritten, or one that is just being imported holds a pseudonym.
        """
        marks = _marks_of(pseudonyms)
        with self._rewriting, _erasing():
            names = [name for name in self._ended_segments() if self._holds(name, marks)]
            erased = sum(self._rewrite(name, marks, lambda _line, _offset: False) for name in names)
            self._clear_drafts(marks)
            return erased

    def erase_withdrawn(self, pseudonyms: Collection[bytes]) -> int:
        """Do as `erase` with what was written up to each one's last refusal: later they had agreed again."""
        marks = _marks_of(pseudonyms)
        refused_later: set[bytes] = set()
        erased = 0
        with self._rewriting, _erasing():
            for name in reversed(self._ended_segments()):
                if not self._holds(name, marks):
                    continue
                refused_at = self._refusals(name, marks)
                goes_until = dict.fromkeys(refused_later, sys.maxsize) | refused_at

                def keep(line: bytes, offset: int, goes_until: dict[bytes, int] = goes_until) -> bool:
                    return offset > goes_until.get(line[MARK], -1)

                erased += self._rewrite(name, marks, keep)
                refused_later |= refused_at.keys()
        return erased

    def drop_before(self, cutoff_ms: int) -> int:
        """Rewrite the files that hold events from before a moment, without them; return how many lines went.

        The file that is appended to is left alone, as in `erase`.

        Raises:
            ErasureUnfinished: a file cannot be rewritten.
        """
        dropped = 0
        with self._rewriting, _erasing():
            for name in self._ended_segments():
                if self._oldest_ms.get(name, -1) < cutoff_ms:
                    dropped += self._rewrite(name, None, lambda line, _offset: _at_ms(line) >= cutoff_ms)
                    self._oldest_ms[name] = self._find_oldest(name)
        return dropped

    def close(self) -> None:
        """End the file that is appended to."""
        self.rotate()

    def _mark(self, name: str, offset: int) -> int:
        with (self.folder / name).open("rb") as file:
            file.seek(max(0, offset - MARK_BYTES))
            before = file.read(min(offset, MARK_BYTES))
        return zlib.crc32(before) if len(before) == min(offset, MARK_BYTES) else -1

    def _ended_segments(self) -> list[str]:
        """Return the files nothing is appended to: what is in the other one came after the erasure was asked for."""
        return [name for name in self.segments() if name != self._name or self._descriptor is None]

    def _holds(self, name: str, marks: Collection[bytes]) -> bool:
        """Say whether a line with one of the marks is in a file."""
        with suppress(FileNotFoundError), (self.folder / name).open("rb") as file:
            return any(_lines_of(window, marks) for window, _ in _windows(file))
        return False

    def _refusals(self, name: str, marks: Collection[bytes]) -> dict[bytes, int]:
        """Return where the last refusal of each of the marks that has one in a file begins."""
        with (self.folder / name).open("rb") as file:
            return {
                window[first:last][MARK]: offset + first
                for window, offset in _windows(file)
                for first, last in _lines_of(window, marks)
                if window[first:last].split(b",", 3)[2].rstrip(b"]\n") == _REFUSAL
            }

    def _rewrite(self, name: str, marks: Collection[bytes] | None, keep: Callable[[bytes, int], bool]) -> int:
        """Replace a file by its lines that are to be kept, whole or not at all; return how many were not.

        Args:
            name: of the file.
            marks: whose lines are asked for, the others being kept; None for all lines.
            keep: says of a line, and where in the file it begins, whether it stays.
        """
        path = self.folder / name
        draft = path.with_name(name + DRAFT_SUFFIX)
        dropped = 0
        with path.open("rb") as file, draft.open("wb") as kept:
            for window, offset in _windows(file):
                kept_until = 0
                for first, last in _lines_of(window, marks):
                    if not keep(window[first:last], offset + first):
                        kept.write(window[kept_until:first])
                        kept_until = last
                        dropped += 1
                kept.write(window[kept_until:])
            kept.flush()
            os.fsync(kept.fileno())
            is_empty = kept.tell() == 0
        if dropped:
            draft.replace(path)
        else:
            draft.unlink()
        if is_empty:
            path.unlink()
        self._sync_folder()
        return dropped

    def _find_oldest(self, name: str) -> int:
        with suppress(FileNotFoundError), (self.folder / name).open("rb") as file:
            return min(map(_at_ms, file), default=sys.maxsize)
        return sys.maxsize

    def _clear_drafts(self, marks: Collection[bytes]) -> None:
        """Delete what a process that was killed left half written.

        Raises:
            ErasureUnfinished: a process seems to be writing it still.
        """
        for path in self.folder.glob("*" + DRAFT_SUFFIX):
            is_rewriting = path.with_suffix("").exists()  # ours, and we are not at it
            if not is_rewriting and not self._holds(path.name, marks):
                continue
            if not is_rewriting and time.time() - path.stat().st_mtime < DRAFT_DEAD_AFTER_S:
                raise ErasureUnfinished("navigation of this visitor is being imported; ask again when that is done")
            path.unlink()

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _open(self, now_ms: int) -> int:
        if self._descriptor is not None:
            return self._descriptor
        for count in range(1_000_000):
            name = f"{now_ms:013d}-live-{count:06d}{SUFFIX}"
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._descriptor = os.open(self.folder / name, flags, 0o600)
            except FileExistsError:
                continue
            except OSError as failure:
                raise LogUnwritable(f"navigation cannot be written: {failure.strerror}") from failure
            self._name, self._size = name, 0
            self.own_segments.add(name)
            return self._descriptor
        raise AssertionError("unreachable: a million files begun in one millisecond")

    def _decode(self, whole: bytes) -> list[LogLine]:
        try:
            return _decoder.decode_lines(whole)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            lines = []
            for raw in whole.split(b"\n"):
                try:
                    lines.append(_decoder.decode(raw))
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    self.broken_line_count += bool(raw)
            return lines


def _marks_of(pseudonyms: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(msgspec.json.encode(pseudonym) for pseudonym in pseudonyms)


def _windows(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield a file piece by piece, each of whole lines, and where it begins."""
    rest, offset = b"", 0
    while chunk := file.read(CHUNK_BYTES):
        whole, newline, rest = (rest + chunk).rpartition(b"\n")
        if newline:
            yield whole + newline, offset
            offset += len(whole) + 1
    if rest:  # torn
        yield rest, offset


def _lines_of(window: bytes, marks: Collection[bytes] | None) -> list[tuple[int, int]]:
    """Return where the lines with one of the marks begin and end, in their order; None for all lines."""
    if marks is None or len(marks) > SEARCHED_MARK_COUNT_MAX:
        ends = list(accumulate(map(len, window.splitlines(keepends=True))))
        lines = list(zip([0, *ends], ends, strict=False))
        return lines if marks is None else [one for one in lines if window[one[0] : one[1]][MARK] in marks]
    found = []
    for mark in marks:
        first = window.find(b"[" + mark)
        while first >= 0:
            last = window.find(b"\n", first) + 1 or len(window)
            found.append((first, last))  # a line's beginning: within text, JSON escapes the quotes of a mark
            first = window.find(b"[" + mark, last)
    return sorted(found)


def _at_ms(line: bytes) -> int:
    """Return when a line's event happened; of a line that is not whole, -1."""
    try:
        return int(line.split(b",", 2)[1])
    except (IndexError, ValueError):
        return -1


@contextmanager
def _erasing() -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise ErasureUnfinished(f"navigation cannot be rewritten: {failure.strerror}") from failure
