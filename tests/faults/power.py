"""What a power cut leaves on a disk, made from a note of every write and fsync (`disk_trace.c`).

A write is on the disk for certain once its file was synced after it, a file's name once its folder was. Until then each
sector of it may be there or not, whatever the order; so may the name. After a sync that failed nothing more is certain
of the writes before it, whatever is synced later: Linux forgets that they are to be written, and reads them back from
memory as if they had been (Rebello et al., Can Applications Recover from fsync Failures?, USENIX ATC 2020).
"""

import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

SECTOR = 512
SOURCE = Path(__file__).with_name("disk_trace.c")
_HEAD = struct.Struct("<cHqI")


class Note(Struct, frozen=True):
    """One thing that was done to a file: see `disk_trace.c`."""

    kind: str
    path: Path
    offset: int
    data: bytes


def build_tracer(folder: Path) -> Path:
    """Compile the library that takes the notes."""
    made = folder / "disk_trace.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", made, SOURCE, "-ldl", "-lpthread"], check=True)
    return made


def run_traced(
    tracer: Path, folder: Path, trace: Path, module: str, *arguments: str, fails_per_mille: int = 0, seed: int = 0
) -> int:
    """Run a module with every write under a folder noted, and some of its fsyncs failing; return its status."""
    variables = {
        **os.environ,
        "LD_PRELOAD": str(tracer),
        "ENDCAP_TRACE": str(trace),
        "ENDCAP_TRACE_FOLDER": str(folder),
        "ENDCAP_FSYNC_FAILS": str(fails_per_mille),
        "ENDCAP_FSYNC_SEED": str(seed),
    }
    done = subprocess.run([sys.executable, "-m", module, *arguments], env=variables, check=not fails_per_mille)
    return done.returncode


def read_notes(trace: Path) -> Iterator[Note]:
    """Yield the notes in their order."""
    content = trace.read_bytes()
    at = 0
    while at < len(content):
        kind, path_length, offset, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        path = Path(os.fsdecode(content[at : at + path_length]))
        at += path_length
        yield Note(kind.decode(), path, offset, content[at : at + length])
        at += length


class _Write(Struct):
    """One write, whether it is certainly on the disk, and whether it never will be."""

    note: Note
    is_certain: bool = False
    is_doomed: bool = False


class _File:
    """What is certainly on the disk of one file, and what was done to it since."""

    def __init__(self, content: bytes, has_name: bool) -> None:
        self.content = bytearray(content)
        self.has_name = has_name
        self.writes: list[_Write] = []
        self.is_pending_name: bool | None = None  # True: created, False: removed

    def sync(self) -> None:
        for write in self.writes:
            write.is_certain = write.is_certain or not write.is_doomed
        while self.writes and self.writes[0].is_certain:
            _apply(self.content, self.writes.pop(0).note)

    def fail(self) -> None:
        for write in self.writes:
            write.is_doomed = not write.is_certain

    def left(self, chance: random.Random) -> bytes | None:
        """Return what a power cut might leave of it; None for nothing."""
        has_name = self.has_name
        if self.is_pending_name is not None and chance.random() < 0.5:
            has_name = self.is_pending_name
        if not has_name:
            return None
        content = bytearray(self.content)
        fate = chance.choice(["lost", "kept", "torn"])
        for write in self.writes:
            if fate == "kept" or write.is_certain:
                _apply(content, write.note)
            elif fate == "torn":
                _tear(content, write.note, chance)
        return bytes(content)


class Disk:
    """The files of one folder, as notes go by."""

    def __init__(self, folder: Path) -> None:
        self._files = {path: _File(path.read_bytes(), True) for path in folder.iterdir() if path.is_file()}

    def note(self, note: Note) -> None:
        """Take in what was done."""
        if note.kind == "d":
            for path, file in self._files.items():
                if path.parent == note.path and file.is_pending_name is not None:
                    file.has_name, file.is_pending_name = file.is_pending_name, None
            return
        if note.kind == "f" and note.path not in self._files:  # a folder: its names stay as uncertain as they were
            return
        file = self._files.setdefault(note.path, _File(b"", False))
        if note.kind in "cu":
            file.is_pending_name = note.kind == "c"
            if note.kind == "c":
                file.content.clear()
                file.writes.clear()
        elif note.kind == "s":
            file.sync()
        elif note.kind == "f":
            file.fail()
        else:
            file.writes.append(_Write(note))

    def cut(self, target: Path, chance: random.Random) -> None:
        """Write what a power cut now might leave into another folder."""
        for path, file in self._files.items():
            content = file.left(chance)
            if content is not None and not path.name.endswith("-shm"):  # shared memory: made anew
                (target / path.name).write_bytes(content)


def _apply(content: bytearray, note: Note) -> None:
    if note.kind == "t":
        if note.offset <= len(content):
            del content[note.offset :]
        else:
            content.extend(bytes(note.offset - len(content)))
        return
    end = note.offset + len(note.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[note.offset : end] = note.data


def _tear(content: bytearray, note: Note, chance: random.Random) -> None:
    """Apply some sectors of a write and not others."""
    if note.kind == "t":
        if chance.random() < 0.5:
            _apply(content, note)
        return
    for first in range(0, len(note.data), SECTOR):
        if chance.random() < 0.5:
            _apply(content, Note("w", note.path, note.offset + first, note.data[first : first + SECTOR]))
