"""Segment files: records one after the other, each behind its length and its key, read up to a torn end.

A segment begins with the version of its format. A record is 4 bytes of length (little-endian, of what follows), one
byte of the key's length, the key, and the value; records without a key speak of those after them. A segment is written
by one process, only at its end, and never again once another has begun.

A name is `<first ms>-<series>.receipts`: when its first receipt was held, and whose series of segments it belongs to.
"""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

SEGMENT_SUFFIX = ".receipts"
HEAD = b"endcap receipts 2\n"
KEY_BYTES_MAX = 64
OVERLAP_MS = 10_000  # how much a receipt may be earlier than its segment, or later than the next one: clocks are set
_LENGTH = struct.Struct("<I")
_PREFIX_BYTES = _LENGTH.size + 1

Tell = Callable[[str], None]  # is told in a sentence what cannot be read


def segment_path(folder: Path, first_ms: int, series: str) -> Path:
    """Return the path of a segment nobody has written to: of that time or, where there is one already, a later one."""
    while (path := folder / f"{first_ms:015d}-{series}{SEGMENT_SUFFIX}").exists():
        first_ms += 1
    return path


def list_segments(folder: Path) -> list[Path]:
    """Return the segment files of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"*{SEGMENT_SUFFIX}") if path.stem.partition("-")[0].isdecimal())


def segments_between(folder: Path, from_ms: int | None, until_ms: int | None) -> list[Path]:
    """Return the segments that may hold auctions held from `from_ms` on and before `until_ms`, oldest first."""
    found: list[Path] = []
    ended: set[str] = set()  # series of which later segments have begun before the time asked for
    for path in reversed(list_segments(folder)):
        begins_ms = first_ms(path)
        if series_of(path) not in ended and (until_ms is None or begins_ms < until_ms + OVERLAP_MS):
            found.append(path)
        if from_ms is not None and begins_ms + OVERLAP_MS <= from_ms:
            ended.add(series_of(path))
    return found[::-1]


def first_ms(path: Path) -> int:
    """Return when the first receipt of a segment was held, UTC milliseconds since 1970."""
    return int(path.stem.partition("-")[0])


def series_of(path: Path) -> str:
    """Return which series a segment belongs to."""
    return path.stem.partition("-")[2]


def framed(key: bytes, value: bytes) -> bytes:
    """Return a record as it is written."""
    return b"".join((_LENGTH.pack(1 + len(key) + len(value)), bytes((len(key),)), key, value))


def read_records(path: Path, tell: Tell | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of each whole record; tell what is left out, and why."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return  # dropped meanwhile
    place = len(HEAD)
    if content[:place] != HEAD[: len(content)]:
        if tell is not None:
            tell(f"{path.name} was written by another version, or is no segment of receipts: it is not read.")
        return
    while place < len(content):
        if len(content) - place < _PREFIX_BYTES:
            break
        end = place + _LENGTH.size + _LENGTH.unpack_from(content, place)[0]
        key_ends = place + _PREFIX_BYTES + content[place + _LENGTH.size]
        if not key_ends <= end <= len(content):
            break
        yield content[place + _PREFIX_BYTES : key_ends], content[key_ends:end]
        place = end
    if place < len(content) and tell is not None:
        tell(f"{path.name} is torn at byte {place:,}: its last {len(content) - place:,} bytes are not a whole record.")


class SegmentIndex:
    """Where in a segment each record is: found by going from length to length, and only over what is new.

    Attributes:
        span_of: place and size of a value, by its key.
        unkeyed: of each value without a key, in their order.
    """

    def __init__(self) -> None:
        self.span_of: dict[bytes, tuple[int, int]] = {}
        self.unkeyed: list[tuple[int, int]] = []
        self._read_to = 0

    def catch_up(self, descriptor: int) -> None:
        """Look at the records that were added since."""
        size = os.fstat(descriptor).st_size
        if self._read_to == 0:
            if os.pread(descriptor, len(HEAD), 0) != HEAD:
                return
            self._read_to = len(HEAD)
        while self._read_to + _PREFIX_BYTES <= size:
            prefix = os.pread(descriptor, _PREFIX_BYTES + KEY_BYTES_MAX, self._read_to)
            end = self._read_to + _LENGTH.size + _LENGTH.unpack_from(prefix)[0]
            key = prefix[_PREFIX_BYTES : _PREFIX_BYTES + prefix[_LENGTH.size]]
            begin = self._read_to + _PREFIX_BYTES + prefix[_LENGTH.size]
            if not begin <= end <= size:
                return  # being written, or torn
            if key:
                self.span_of[key] = begin, end - begin
            else:
                self.unkeyed.append((begin, end - begin))
            self._read_to = end
