"""The navigation log: what was appended is read again, whatever happened to the process or the file's end."""

import errno
import os
from pathlib import Path

import pytest

from affinity.errors import LogUnwritable
from affinity.navigation_log import LogLine, NavigationLog

A, B = b"a" * 16, b"b" * 16


def line(pseudonym: bytes, at_ms: int) -> LogLine:
    return LogLine(pseudonym, at_ms, "view_item", at_ms, "p", "A > B", 5, 1, "a \u2028 query\n", None)


def read_all(folder: Path) -> list[LogLine]:
    log = NavigationLog(folder, 1_000)
    return [one for name in log.segments() for one in log.read(name)]


def test_lines_come_back_as_they_were_and_in_order(tmp_path: Path) -> None:
    log = NavigationLog(tmp_path, 400)
    lines = [line(A, at_ms) for at_ms in range(30)]
    for at_ms in range(0, 30, 3):
        log.append(lines[at_ms : at_ms + 3], at_ms)
    assert len(log.segments()) > 3
    assert read_all(tmp_path) == lines


def test_what_is_appended_is_there_without_closing(tmp_path: Path) -> None:
    log = NavigationLog(tmp_path, 1_000)
    log.append([line(A, 1)], 1)
    assert read_all(tmp_path) == [line(A, 1)]
    log.close()


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_left_out(tmp_path: Path, cut: int) -> None:
    log = NavigationLog(tmp_path, 10_000)
    log.append([line(A, 1), line(B, 2)], 1)
    log.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_all(tmp_path) == [line(A, 1)]


def test_a_broken_line_costs_itself_only(tmp_path: Path) -> None:
    log = NavigationLog(tmp_path, 10_000)
    log.append([line(A, 1), line(B, 2)], 1)
    log.close()
    (path,) = tmp_path.iterdir()
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n" + b"[1,2\xff\n" + second + b"\n")
    assert [one for name in log.segments() for one in log.read(name)] == [line(A, 1), line(B, 2)]
    assert log.broken_line_count == 1


def test_a_full_disk_leaves_no_half_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = NavigationLog(tmp_path, 10_000)
    log.append([line(A, 1)], 1)
    write, calls = os.write, 0

    def full(descriptor: int, raw: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return write(descriptor, bytes(raw)[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LogUnwritable) as refused:
        log.append([line(B, 2)], 2)
    assert refused.value.retryable
    monkeypatch.undo()
    log.append([line(B, 3)], 3)
    assert read_all(tmp_path) == [line(A, 1), line(B, 3)]


def test_erasing_takes_every_line_of_the_visitor_and_no_other(tmp_path: Path) -> None:
    log = NavigationLog(tmp_path, 200)
    for at_ms in range(10):
        log.append([line(A, at_ms), line(B, at_ms)], at_ms)
    log.write_import([line(A, 50), line(B, 51)], 50, "x")
    log.rotate()
    assert log.erase([A]) == 11
    assert [one.pseudonym for one in read_all(tmp_path)] == [B] * 11
    assert log.erase([A]) == 0


def test_an_import_shows_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    log = NavigationLog(tmp_path, 200)

    def lines():
        yield line(A, 1)
        assert log.segments() == []
        yield line(A, 2)

    name = log.write_import(lines(), 5, "x")
    assert log.segments() == [name]
