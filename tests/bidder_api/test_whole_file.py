"""A file stands under its name whole, or as it was before."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bidder_api.whole_file import whole_file

KILLED = """
import os, signal, sys
from pathlib import Path
from bidder_api.whole_file import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_takes_the_place_of_another_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "books.csv"
    path.write_bytes(b"before")
    with whole_file(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["books.csv"]


def test_what_fails_half_way_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "books.csv"

    def write(text: bytes) -> None:
        with whole_file(path) as file:
            file.write(text)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write(b"half of it")
    assert os.listdir(tmp_path) == []
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="full"):
        write(b"half of it")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["books.csv"]


def test_a_killed_process_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    path = tmp_path / "books.xlsx"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
