"""A throw-away Valkey or Redis server for tests: in a temporary folder, on a free port, deleted after."""

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from valkey import Valkey
from valkey.exceptions import ValkeyError

from tests.server import free_port

START_SECONDS_MAX = 20


def find_binary() -> str | None:
    """Return the server there is: Valkey's, else Redis's."""
    return shutil.which("valkey-server") or shutil.which("redis-server")


class ValkeyServer:
    """One server; `kill`, `pause` and `start` let a test take it away and bring it back.

    Args:
        binary: its program.
        options: of its configuration, such as `{"appendonly": "yes"}`; without any it keeps nothing on disk.
    """

    def __init__(self, binary: str, **options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="endcap-valkey-"))
        self.port = free_port()
        self.url = f"valkey://127.0.0.1:{self.port}/0"
        self._options = {"save": "", "appendonly": "no", **options}
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self.client = Valkey(port=self.port, socket_timeout=5)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server over the folder it had, and wait until it answers."""
        options = [word for name, value in self._options.items() for word in (f"--{name.replace('_', '-')}", value)]
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self._binary, *where, *options], stdout=log, stderr=log)
        give_up_at = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                self.client.ping()
                return
            except (ValkeyError, OSError):
                if time.monotonic() > give_up_at:
                    raise TimeoutError((self.folder / "log").read_text()) from None
                time.sleep(0.02)

    @property
    def is_running(self) -> bool:
        """Say whether it was started and not killed since."""
        return self._process is not None

    def kill(self) -> None:
        """Kill it at once; what it keeps on disk stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Have it answer nothing, its connections staying open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def contents(self) -> list[bytes]:
        """Return every key and every value there is, each as bytes."""
        found: list[bytes] = []
        for key in self.client.scan_iter():
            found.append(key)
            found += _flat(self._value(key))
        return found

    def files(self) -> list[Path]:
        """Return the files it keeps."""
        return [path for path in self.folder.rglob("*") if path.is_file() and path.name != "log"]

    def _value(self, key: bytes) -> Any:
        kind = self.client.type(key)
        if kind == b"list":
            return self.client.lrange(key, 0, -1)
        if kind == b"zset":
            return self.client.zrange(key, 0, -1)
        if kind == b"hash":
            return self.client.hgetall(key)
        if kind == b"set":
            return list(self.client.smembers(key))
        return self.client.get(key)


def _flat(value: Any) -> list[bytes]:
    if isinstance(value, dict):
        return [part for pair in value.items() for part in pair]
    return list(value) if isinstance(value, list) else [value]
