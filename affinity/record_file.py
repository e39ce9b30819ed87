"""The record file: all visitors' records as of one moment, so that a start reads it and then the navigation log's tail.

Written to a draft that is renamed, so that it is whole or not there. It never holds more than the log does: where it
does not fit, it is refused, and reading the whole log gives the same.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from affinity.errors import RecordFileRefused
from affinity.navigation_log import Position
from affinity.packing import ACTIONS, FORMAT, Belongs
from affinity.records import Packed, VisitorRecords
from affinity.settings import Settings

DRAFT_SUFFIX = ".part"
STEP_COUNT = 8  # records written between two requests: one that changed takes up to 0.1 ms
NAME_COUNT, NUMBER_BYTES = 500, 131_072  # of names and event ids, likewise
FRAME_HEAD_BYTES = 8  # length of the frame, and its CRC-32


class Settled(Struct, frozen=True, array_like=True):
    """What records depend on: a file in which any of it differs cannot be used."""

    format: int
    actions: list[str]
    visitor_event_count_max: int
    session_gap_s: int
    interest_half_life_s: int


class Header(Struct, frozen=True, array_like=True):
    """What the records of a file rest on.

    Attributes:
        segments: files of the log all of whose events are in the records.
        position: how much of one more file is, None where there is none.
    """

    settled: Settled
    segments: list[str]
    position: Position | None


class Part(Struct, frozen=True, array_like=True):
    """What follows the header, again and again: event ids, records, then names in the order of their numbers.

    Attributes:
        events_seen: 0 for the newer or 1 for the older ids that were seen, and numbers of some as a 64-bit array.
        records: least recently seen first.
        names, products, unknown: see `packing.Names`. Those of all records are somewhere in the file.
    """

    events_seen: tuple[int, bytes] = (0, b"")
    records: list[Packed] = []
    names: list[str] = []
    products: list[tuple[str, Belongs]] = []
    unknown: list[str] = []


_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Header).decode
_decode_part = msgspec.msgpack.Decoder(Part).decode


def settled(settings: Settings) -> Settled:
    """Return what records made now depend on."""
    return Settled(
        FORMAT,
        [action.value for action in ACTIONS],
        settings.visitor_event_count_max,
        settings.session_gap_s,
        settings.interest_half_life_s,
    )


class RecordFileDraft:
    """A record file being written.

    Args:
        path: where it is to stand.

    Raises:
        OSError: from any method; nothing has become of the file that was there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = draft_of(path)
        self._file: BinaryIO = self._draft.open("wb")
        self._is_syncing = self._is_abandoned = False
        os.fchmod(self._file.fileno(), 0o600)

    def write(self, part: Header | Part) -> None:
        """Write the header, or what follows it."""
        self._write(_encode(part))

    def sync(self) -> None:
        """Bring everything to the disk; may take a while, and may run beside the thread that wrote."""
        self._is_syncing = True  # so that nobody else closes the file
        try:
            if not self._is_abandoned:
                self._write(b"")  # by this a reader knows that nothing is cut off
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def finish(self) -> None:
        """Put the file where it belongs."""
        self._draft.replace(self._path)

    def abandon(self) -> None:
        """Leave no trace."""
        self._is_abandoned = True
        self._draft.unlink(missing_ok=True)
        if not self._is_syncing:
            self._file.close()

    def _write(self, raw: bytes) -> None:
        self._file.write(len(raw).to_bytes(4, "little") + zlib.crc32(raw).to_bytes(4, "little") + raw)


class Keeping:
    """A record file in the making: records as they were when it began, written bit by bit while they change.

    Args:
        records: whose; one keeping of them at a time.
        path: where the file is to stand.
        header: what the records rest on now.
        events_seen: numbers of the newer and of the older event ids that were seen, as 64-bit arrays.

    Raises:
        OSError: from any method but `abandon`, which is then to be called.
    """

    def __init__(self, records: VisitorRecords, path: Path, header: Header, events_seen: tuple[bytes, bytes]) -> None:
        self._records = records
        self._draft = RecordFileDraft(path)
        self._walk = records.walk()
        self._events_seen = events_seen
        self._parts = self._write_parts(header)
        self._is_over = False

    def step(self) -> bool:
        """Write some records; say whether there may be more."""
        return not self._is_over and next(self._parts, False)

    def sync(self) -> None:
        """Bring everything to the disk; may take a while, and may run beside the thread that changes records."""
        self._draft.sync()

    def finish(self) -> bool:
        """Put the file where it belongs, unless it was abandoned meanwhile; say whether it was."""
        if self._is_over:
            return False
        self._is_over = True
        self._records.end_walk()
        self._draft.finish()
        return True

    def _write_parts(self, header: Header) -> Iterator[bool]:
        self._draft.write(header)
        for which, seen in enumerate(self._events_seen):
            for first in range(0, len(seen), NUMBER_BYTES):
                self._draft.write(Part(events_seen=(which, seen[first : first + NUMBER_BYTES])))
                yield True
        while batch := self._walk.read(STEP_COUNT):
            self._draft.write(Part(records=batch))
            yield True
        names = self._records.names  # only now: packing may have used names that are newer than the walk
        for first in range(0, len(names.name), NAME_COUNT):
            numbers = range(first, min(first + NAME_COUNT, len(names.name)))
            some = [names.name[number] for number in numbers]
            products = [(name, names.products[name]) for name in some if name in names.products]
            self._draft.write(Part(names=some, products=products))
            yield True
        self._draft.write(Part(unknown=list(names.unknown)))

    def abandon(self) -> None:
        """Leave no trace; of a file that is finished or abandoned there is none to leave."""
        if not self._is_over:
            self._is_over = True
            self._records.end_walk()
            self._draft.abandon()


def draft_of(path: Path) -> Path:
    """Return where the file is written before it is whole."""
    return path.with_name(path.name + DRAFT_SUFFIX)


def read_record_file(path: Path, settings: Settings) -> tuple[Header, Iterator[Part]]:
    """Return a file's header and what follows it.

    Raises:
        RecordFileRefused: there is none, it is damaged, or was written under other settings or by another version;
            while parts are read, too.
    """
    frames = _frames(path)
    try:
        header = _decode_header(next(frames, b""))
    except msgspec.MsgspecError as damage:
        raise RecordFileRefused(f"{path.name} is of another version, or damaged: {damage}") from damage
    if header.settled != settled(settings):
        raise RecordFileRefused(f"{path.name} was written under {header.settled}, now it is {settled(settings)}")
    return header, _parts(path, frames)


def _parts(path: Path, frames: Iterator[bytes]) -> Iterator[Part]:
    for frame in frames:
        try:
            yield _decode_part(frame)
        except msgspec.MsgspecError as damage:
            raise RecordFileRefused(f"{path.name} is damaged: {damage}") from damage


def _frames(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while head := file.read(FRAME_HEAD_BYTES):
                length, checksum = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:], "little")
                raw = file.read(length)
                if len(head) < FRAME_HEAD_BYTES or len(raw) < length or zlib.crc32(raw) != checksum:
                    break
                if not raw:
                    return
                yield raw
    except OSError as failure:
        raise RecordFileRefused(f"{path.name} cannot be read: {failure.strerror}") from failure
    raise RecordFileRefused(f"{path.name} is damaged or cut off")
