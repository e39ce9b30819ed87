"""A real `endcap serve` in a process of its own, for tests that talk to it over HTTP and may kill it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx2

from ledger.beacon import BeaconKeys

READY_WITHIN_S = 60.0
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
STOP_WITHIN_S = 20.0


def free_port() -> int:
    """Return a TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RunningServer:
    """`endcap serve` over a data folder and, perhaps, a PostgreSQL database.

    Args:
        data_dir: folder of everything it writes.
        database_url: a PostgreSQL database; left out, the embedded one.
        variables: further `ENDCAP_*` variables.
    """

    def __init__(
        self, data_dir: Path, database_url: str | None = None, variables: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENDCAP_")}
        self.environment = inherited | {"ENDCAP_DATA_DIR": str(data_dir), "ENDCAP_PORT": str(self.port)}
        if database_url is not None and not database_url.startswith("sqlite"):
            self.environment |= {
                "ENDCAP_DATABASE_URL": database_url,
                "ENDCAP_SECRET_KEY": "5e" * 32,
                "ENDCAP_BEACON_KEYS": BeaconKeys.generate(),
            }
            self._needs_upgrade = True
        else:
            self._needs_upgrade = False
        self.environment |= variables or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log = data_dir / "server.log"
        self._clients: list[httpx2.Client] = []
        data_dir.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        if self._needs_upgrade:
            self.run("db", "upgrade")
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        if self._process is not None and self._process.poll() is None:
            self.stop()

    def start(self) -> None:
        """Start the server; it is not ready yet."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bidder_api", "serve"], env=self.environment, stderr=log, stdout=log
            )

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> float:
        """Wait until `/readyz` says so; return the seconds it took."""
        began = time.monotonic()
        while time.monotonic() - began < within_s:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended with {self._process.returncode}:\n{self.log()}")
            try:
                if httpx2.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    return time.monotonic() - began
            except httpx2.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"the server was not ready within {within_s} s:\n{self.log()}")

    def kill(self) -> None:
        """Kill the server as a power supply would not: SIGKILL to its main process, and to nothing else."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """Ask the server to end, and return its status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_WITHIN_S)

    @property
    def pid(self) -> int:
        """Return the main process's id."""
        assert self._process is not None
        return self._process.pid

    def wait_ended(self) -> int:
        """Wait until the server has ended by itself, and return its status."""
        assert self._process is not None
        return self._process.wait(STOP_WITHIN_S)

    def log(self) -> str:
        """Return the last of what the server logged."""
        return self._log.read_text(errors="replace")[-8000:]

    def run(self, *arguments: str, status: int = 0) -> str:
        """Run an `endcap` command with the server's settings and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "bidder_api", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, f"endcap {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def create_key(self, role: str, *advertiser_ids: str) -> str:
        """Make a key with the command, beside the running server."""
        named = [word for advertiser_id in advertiser_ids for word in ("--advertiser-id", advertiser_id)]
        return self.run("keys", "create", "--role", role, *named).split()[-1]

    def client(self, key: str | None = None) -> httpx2.Client:
        """Return a client that sends a key with every call."""
        headers = {"User-Agent": BROWSER}  # the library's own name is a declared robot's
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        client = httpx2.Client(base_url=self.url, headers=headers, timeout=30)
        self._clients.append(client)
        return client


def ok(answer: Any, status: int | None = None) -> Any:
    """Return an answer's JSON, having checked that it was a success (or the status that is meant)."""
    expected = answer.is_success if status is None else answer.status_code == status
    assert expected, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:2000]}"
    return answer.json() if answer.content else None
