"""One database behind everything that must last: embedded SQLite, or PostgreSQL by URL.

Opens engines and runs transactions; holds no table and no statement of ours (see each package's `store.py`).
"""

import os
import random
import sqlite3
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, OperationalError

T = TypeVar("T")

SQLITE_VERSION_MIN = (3, 51, 3)  # older ones can corrupt a WAL that two connections write
ATTEMPT_COUNT_MAX = 8
BUSY_TIMEOUT_MS = 10_000
EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"  # writes the log's pages into the database and cuts it to nothing
SCAN_BYTES = 4_000_000
SCRUB_WITHIN_S = 10.0
SCRUB_BUSY_MS = 100  # it keeps writers waiting while it waits for readers, so it gives way soon and tries again
RETRYABLE_SQLSTATES = frozenset({"40001", "40P01"})  # serialisation failure, deadlock


class DatabaseRefused(ValueError):
    """The URL names a database this version does not run on."""


class TracesLeft(RuntimeError):
    """What was deleted may still be in the database's files: readers or writers were never out of the way."""


class Database:
    """An engine and the two ways to use it: `transact` to change, `read` to look."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writing = engine.execution_options(is_writing=True)

    @property
    def dialect(self) -> str:
        """Name the kind of database: `sqlite` or `postgresql`."""
        return self.engine.dialect.name

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and commit it; run it again when the database asks for a retry.

        `work` must have no effect outside its connection, since it may run more than once.

        Raises:
            DBAPIError: whatever the database said, once no retry is left or where none would help.
        """
        for attempt in range(ATTEMPT_COUNT_MAX):
            try:
                with self._writing.begin() as connection:
                    return work(connection)
            except DBAPIError as refusal:
                if attempt + 1 == ATTEMPT_COUNT_MAX or not is_worth_retrying(refusal):
                    raise
                time.sleep(random.uniform(0, 0.002) * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one consistent view of the database."""
        with self.engine.connect() as connection:
            return work(connection)

    def scrub(self, traces: Collection[bytes], tables: Collection[str]) -> None:
        """Leave none of these byte strings in the embedded database's files; their rows are deleted already.

        Deleted rows are overwritten as they go (`secure_delete`), but the write-ahead log holds pages as they were,
        and SQLite may leave copies of rows it once moved to other pages. So the log is emptied into the database, and
        what is still found in it is written anew. On PostgreSQL nothing is done: its files are the operator's.

        Args:
            traces: what must be gone.
            tables: where it was; their indexes are written anew first, the whole database only if that did not do.

        Raises:
            TracesLeft: others were reading or writing all the time; nothing is wrong, and it may be called again.
        """
        if self.dialect != "sqlite":
            return
        raw = self.engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {SCRUB_BUSY_MS}")
            cursor.execute("PRAGMA temp_store = FILE")  # what the database is copied to may be large
            remedies = [*(f"REINDEX {table}" for table in tables), "VACUUM"]
            try:
                _keep_trying(cursor, EMPTY_LOG)
                while self._holds(traces):
                    if not remedies:
                        raise TracesLeft("the database was written anew and holds them nonetheless")
                    _keep_trying(cursor, remedies.pop(0))
                    _keep_trying(cursor, EMPTY_LOG)
            finally:
                cursor.execute("PRAGMA temp_store = MEMORY")
                cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
                cursor.close()
        finally:
            raw.close()

    def _holds(self, traces: Collection[bytes]) -> bool:
        """Say whether the database's file holds one of them."""
        assert self.engine.url.database is not None
        overlap = max(map(len, traces), default=1) - 1
        with Path(self.engine.url.database).open("rb") as file:
            before = b""
            while chunk := file.read(SCAN_BYTES):
                window = before + chunk
                if any(trace in window for trace in traces):
                    return True
                before = window[len(window) - overlap :]
        return False

    def renew_log(self) -> None:
        """Write SQLite's log anew, as it reads, and sync it and its name; nothing on PostgreSQL.

        A process before this one may have ended because a sync failed. The system then reads from memory, as if it
        were on the disk, what is not, and no later sync writes it again: events that are told of again would be
        answered as recorded, and be gone with the next power cut. Written anew it is. And SQLite, which syncs the
        folder when it makes the log, does not mind when that fails.

        Source: Rebello et al., Can Applications Recover from fsync Failures?, USENIX ATC 2020.

        Raises:
            OSError, DBAPIError: the disk fails again; nothing was changed.
        """
        if self.dialect != "sqlite":
            return
        assert self.engine.url.database is not None
        log = Path(self.engine.url.database + "-wal")
        with self._writing.begin():  # nobody else appends to it meanwhile
            with log.open("r+b", buffering=0) as file:
                at = 0
                while chunk := os.pread(file.fileno(), SCAN_BYTES, at):
                    at += os.pwrite(file.fileno(), chunk, at)
                os.fsync(file.fileno())
            folder = os.open(log.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def open_database(url: str) -> Database:
    """Open the database behind `sqlite:///path` or `postgresql://…`.

    Raises:
        DatabaseRefused: another kind of URL, an in-memory SQLite, or no SQLite library that is new enough.
    """
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return Database(_postgres_engine(parsed))
    if parsed.drivername == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return Database(_sqlite_engine(parsed))
    raise DatabaseRefused(
        "ENDCAP_DATABASE_URL must be sqlite:///path/to/file or postgresql://…, "
        f"was {parsed.render_as_string(hide_password=True)}"
    )


def _keep_trying(cursor: Any, statement: str) -> None:
    """Run a statement that needs the database to itself for a moment, until it had it.

    Raises:
        TracesLeft: it never did.
    """
    ends = time.monotonic() + SCRUB_WITHIN_S
    while True:
        try:
            row = cursor.execute(statement).fetchone()
            if row is None or row[0] == 0:  # a checkpoint says by 1 that it was kept from finishing
                return
        except sqlite_library().OperationalError as refusal:
            if "locked" not in str(refusal):
                raise
        if time.monotonic() > ends:
            raise TracesLeft(f"others used the database for all of {SCRUB_WITHIN_S:g} s")
        time.sleep(random.uniform(0.005, 0.05))


def is_worth_retrying(refusal: DBAPIError) -> bool:
    """Say whether the same transaction may succeed when run again at once."""
    if getattr(refusal.orig, "sqlstate", None) in RETRYABLE_SQLSTATES:
        return True
    return isinstance(refusal, OperationalError) and str(refusal.orig) in (
        "database is locked",
        "database table is locked",
    )


def sqlite_library() -> Any:
    """Return the DB-API module whose SQLite is safe with several connections on one WAL.

    The interpreter's own where it is new enough, else pysqlite3's; never both in one process, since two SQLite
    libraries on one file undo each other's locks.
    """
    if sqlite3.sqlite_version_info >= SQLITE_VERSION_MIN:
        return sqlite3
    try:
        from pysqlite3 import dbapi2
    except ImportError as missing:
        raise DatabaseRefused(
            f"SQLite must be {'.'.join(map(str, SQLITE_VERSION_MIN))} or newer, was {sqlite3.sqlite_version}; "
            "install pysqlite3 or use PostgreSQL"
        ) from missing
    return dbapi2


def _sqlite_engine(url: URL) -> Engine:
    library = sqlite_library()
    engine = sa.create_engine(
        url.set(drivername="sqlite+pysqlite"),
        module=library,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
        pool_size=8,
        max_overflow=16,
        hide_parameters=True,  # a failure is logged with its traceback, and parameters may be somebody's
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "secure_delete=ON",  # what is deleted is overwritten: an erased visitor's rows among it
        ):
            cursor.execute("PRAGMA " + pragma)
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        is_writing = connection.get_execution_options().get("is_writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    return engine


def _postgres_engine(url: URL) -> Engine:
    try:
        import psycopg  # noqa: F401  # the extra is asked for by name here, not in a traceback later
    except ImportError as missing:
        raise DatabaseRefused("PostgreSQL needs the extra: pip install 'endcap[postgres]'") from missing
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=8,
        max_overflow=16,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"options": "-c synchronous_commit=on -c timezone=UTC"},
    )
