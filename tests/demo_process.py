"""The demo as a user starts it, in a process of its own, for the tests that look at it from outside."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

READY_WITHIN_S = 240.0  # on a machine that does much else, with a cold cache of compiled kernels
LAST_LINE = "Ctrl-C stops the demo"


class DemoProcess:
    """`endcap demo` on a free port; what it prints is kept."""

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self.began = time.monotonic()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ENDCAP_")}
        command = [sys.executable, "-m", "bidder_api", "demo", "--port", str(self.port), "--data-dir", str(data_dir)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return "".join(self._lines)

    @property
    def url(self) -> str:
        """Address of the shop."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def keys(self) -> dict[str, str]:
        """The printed keys by role; the first of a role."""
        found: dict[str, str] = {}
        for role, key in re.findall(r"^([a-z]+) +(\S{30,})$", self.output, re.MULTILINE):
            found.setdefault(role, key)
        return found

    def wait_for(self, text: str) -> None:
        """Wait until something was printed."""
        ends = time.monotonic() + READY_WITHIN_S
        while text not in self.output:
            if self.process.poll() is not None:
                self._reader.join(5)
                if text in self.output:
                    return
                raise AssertionError(f"the demo ended with {self.process.returncode}:\n{self.output}")
            if time.monotonic() > ends:
                raise AssertionError(f"{text!r} was not printed within {READY_WITHIN_S:g} s:\n{self.output}")
            time.sleep(0.05)

    def stop(self) -> int:
        """Ask it to stop, and return its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait(10)
        self._reader.join(5)
        return status

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)
        self.process.stdout.close()


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoProcess]:
    """The demo, set up and checked, for every test of the session."""
    with DemoProcess(tmp_path_factory.mktemp("demo") / "data") as running:
        running.wait_for(LAST_LINE)
        yield running
