"""The navigation log: every event appended to a file before it is acknowledged, under pseudonyms only.

Flushed to the operating system and no further: it survives a killed process, not a power cut. Files are named by the
moment they were begun, so that reading them in the order of their names is reading history in order. What is
imported comes as files of its own, written whole and then renamed, which a running server picks up.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from affinity.errors import LogUnwritable

# Beside the visitors' own actions: a sponsored fill, the report that it rendered, and that it was clicked.
SERVED, RENDERED, CLICKED = "served", "rendered", "clicked"
CHUNK_BYTES = 4_000_000
MARK_BYTES = 256
SUFFIX = ".jsonl"


class LogLine(Struct, frozen=True, array_like=True, omit_defaults=True):
    """One event as a line of the log.

    Attributes:
        at_ms: when it happened; of a `rendered` line, when it was served.
        action: an Action, or SERVED, RENDERED or CLICKED.
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

    def write_import(self, lines: Iterable[LogLine], now_ms: int, label: str) -> str:
        """Write a whole file of lines for a server to pick up; return its name."""
        name = f"{now_ms:013d}-import-{label}{SUFFIX}"
        draft = self.folder / (name + ".part")
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

    def erase(self, pseudonyms: Iterable[bytes]) -> int:
        """Rewrite the files in which one of the pseudonyms occurs, without its lines; return how many lines went.

        The file that is appended to is left alone: `rotate` first, on the thread that appends.
        """
        gone = frozenset(pseudonyms)
        marks = [msgspec.json.encode(pseudonym) for pseudonym in gone]
        erased = 0
        for path in [self.folder / name for name in self.segments()]:
            if path.name == self._name and self._descriptor is not None:
                continue  # appended to: begun by events that came after the erasure was asked for
            raw = path.read_bytes()
            if not any(mark in raw for mark in marks):
                continue
            lines = raw.split(b"\n")
            kept = [line for line in lines if not any(line.startswith(b"[" + mark) for mark in marks)]
            erased += len(lines) - len(kept)
            draft = path.with_name(path.name + ".part")
            with draft.open("wb") as file:
                file.write(b"\n".join(kept))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        return erased

    def close(self) -> None:
        """End the file that is appended to."""
        self.rotate()

    def _mark(self, name: str, offset: int) -> int:
        with (self.folder / name).open("rb") as file:
            file.seek(max(0, offset - MARK_BYTES))
            before = file.read(min(offset, MARK_BYTES))
        return zlib.crc32(before) if len(before) == min(offset, MARK_BYTES) else -1

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
