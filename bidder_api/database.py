"""One database behind everything that must last: embedded SQLite, or PostgreSQL by URL.

Opens engines and runs transactions; holds no table and no statement of ours (see each package's `store.py`).
"""

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, OperationalError

T = TypeVar("T")

SQLITE_VERSION_MIN = (3, 51, 3)  # older ones can corrupt a WAL that two connections write
ATTEMPT_COUNT_MAX = 8
BUSY_TIMEOUT_MS = 10_000
RETRYABLE_SQLSTATES = frozenset({"40001", "40P01"})  # serialisation failure, deadlock


class DatabaseRefused(ValueError):
    """The URL names a database this version does not run on."""


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
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
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
        connect_args={"options": "-c synchronous_commit=on -c timezone=UTC"},
    )
