"""A throw-away PostgreSQL cluster for tests: made in a temporary folder, started on a free port, deleted after."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import psycopg

DEBIAN_ROOT = Path("/usr/lib/postgresql")
START_SECONDS_MAX = 60


def find_binaries() -> Path | None:
    """Return the folder that holds `initdb` and `postgres`: on the PATH, or where Debian keeps them."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    if DEBIAN_ROOT.is_dir():
        versions = sorted(
            (p for p in DEBIAN_ROOT.iterdir() if p.name.isdigit()), key=lambda p: int(p.name), reverse=True
        )
        folders += [version / "bin" for version in versions]
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


class PostgresCluster:
    """One server; `stop` and `start` let a test take it away and bring it back."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="endcap-postgres-"))
        self.port = _free_port()
        self._as_user = _unprivileged_user()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._as_user is not None:
            os.chown(self.folder, self._as_user.pw_uid, self._as_user.pw_gid)
        self._run("initdb", "-D", self._data, "-U", "endcap", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("fast")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def url(self, database_name: str) -> str:
        return f"postgresql://endcap@127.0.0.1:{self.port}/{database_name}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self.binaries / "postgres"), "-D", self._data, "-p", str(self.port), "-k", str(self.folder),
                    "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "shared_buffers=64MB",
                ],
                stdout=log, stderr=log, **self._demoted(),
            )  # fmt: skip
        self._wait_until_it_answers()

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `smart`, `fast`, or `immediate` as after a crash."""
        if self._process is None:
            return
        self._process.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self._process.wait(timeout=START_SECONDS_MAX)
        self._process = None

    def run_sql(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _wait_until_it_answers(self) -> None:
        give_up_at = time.monotonic() + START_SECONDS_MAX
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.05)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.binaries / program), *arguments], capture_output=True, check=False, **self._demoted()
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout.decode()}{done.stderr.decode()}")

    def _demoted(self) -> dict[str, object]:
        if self._as_user is None:
            return {"cwd": self.folder}
        return {"user": self._as_user.pw_uid, "group": self._as_user.pw_gid, "extra_groups": [], "cwd": self.folder}


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Return whom to run as, since PostgreSQL refuses to run as root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
