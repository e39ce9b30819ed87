"""The navigation log: what was appended is read again, whatever happened to the process or the file's end."""

import errno
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from affinity import navigation_log
from affinity.errors import ErasureUnfinished, LogUnwritable
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


def test_lines_too_old_to_be_kept_go_and_files_of_nothing_else_with_them(tmp_path: Path) -> None:
    log = NavigationLog(tmp_path, 400)
    for at_ms in range(0, 40, 4):
        log.append([line(A, at_ms + more) for more in range(4)], at_ms)
    log.write_import([line(B, at_ms) for at_ms in (35, 3, 39)], 5, "late")
    log.rotate()
    before = len(log.segments())
    assert log.drop_before(22) == 23
    assert sorted(one.at_ms for one in read_all(tmp_path)) == sorted([*range(22, 40), 35, 39])
    assert len(log.segments()) == before - 2
    assert log.drop_before(22) == 0


def test_a_line_that_is_not_whole_is_too_old(tmp_path: Path) -> None:
    (tmp_path / "1-live.jsonl").write_bytes(b'["torn","\n["YWFhYWFhYWFhYWFhYWFhYQ==",7,"search"]\n["YWFh')
    assert NavigationLog(tmp_path, 400).drop_before(5) == 2
    assert [one.at_ms for one in read_all(tmp_path)] == [7]


def test_what_killed_processes_left_half_written_is_erased_too(tmp_path: Path) -> None:
    log = NavigationLog(tmp_path, 10_000)
    log.append([line(B, 1)], 1)
    log.rotate()
    (name,) = log.segments()
    rewriting, dead, live = (tmp_path / f"{stem}.part" for stem in (name, "2-import-x.jsonl", "3-import-y.jsonl"))
    for path in (rewriting, dead, live):
        path.write_bytes(b'["YWFhYWFhYWFhYWFhYWFhYQ==",1,"search"]\n')
    long_ago = 1_000_000
    os.utime(dead, (long_ago, long_ago))
    with pytest.raises(ErasureUnfinished):
        log.erase([A])
    live.write_bytes(b'["YmJi",1,"search"]\n')  # somebody else's
    assert log.erase([A]) == 0
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == [live.name]
    assert read_all(tmp_path) == [line(B, 1)]


def test_the_lines_of_some_are_found_in_all_files(tmp_path: Path) -> None:
    log = NavigationLog(tmp_path, 100)
    for at_ms in range(9):
        log.append([line(A if at_ms % 3 else B, at_ms)], at_ms)
    assert [one.at_ms for one in log.lines_of([B])] == [0, 3, 6]
    assert log.lines_of([b"c" * 16]) == []


@pytest.mark.parametrize("gone_count", [1, 5, 30], ids=["searched for", "a few", "looked up"])
@pytest.mark.parametrize("chunk_bytes", [7, 150, 4_000_000])
def test_erasing_takes_the_same_lines_however_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone_count: int, chunk_bytes: int
) -> None:
    chance = random.Random(gone_count)
    people = [chance.randbytes(16) for _ in range(60)]
    lines = [line(chance.choice(people), at_ms) for at_ms in range(300)]
    lines[7] = LogLine(people[-1], 7, "search", 0, None, None, None, None, f'\n["{people[0]!r}"')
    log = NavigationLog(tmp_path, 3_000)
    for at_ms in range(0, 300, 10):
        log.append(lines[at_ms : at_ms + 10], at_ms)
    log.rotate()
    monkeypatch.setattr(navigation_log, "CHUNK_BYTES", chunk_bytes)
    gone = people[:gone_count]
    kept = [one for one in lines if one.pseudonym not in gone]
    assert log.erase(gone) == len(lines) - len(kept)
    assert read_all(tmp_path) == kept


def test_two_erasures_at_a_time_do_not_undo_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = NavigationLog(tmp_path, 300)
    for at_ms in range(0, 60, 3):
        log.append([line(A, at_ms), line(B, at_ms + 1), line(b"c" * 16, at_ms + 2)], at_ms)
    log.rotate()
    monkeypatch.setattr(os, "fsync", lambda _descriptor: time.sleep(0.002))  # long enough to be overtaken
    with ThreadPoolExecutor(3) as threads:
        erased = list(threads.map(lambda gone: log.erase([gone]), [A, B]))
    assert erased == [20, 20]
    assert {one.pseudonym for one in read_all(tmp_path)} == {b"c" * 16}
