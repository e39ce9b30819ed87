import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from bidder_api.database import Database, open_database
from bidder_api.migration import upgrade
from ledger.store import metadata
from tests.ledger.world import World
from tests.postgres import PostgresCluster


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy: migrating once is enough."""
    path = tmp_path_factory.mktemp("template") / "endcap.db"
    made = open_database(f"sqlite:///{path}")
    made.transact(upgrade)
    made.close()
    return path


@pytest.fixture
def sqlite_database(migrated_file: Path, tmp_path: Path) -> Iterator[Database]:
    shutil.copy(migrated_file, tmp_path / "endcap.db")
    database = open_database(f"sqlite:///{tmp_path}/endcap.db")
    yield database
    database.close()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_cluster: PostgresCluster) -> Iterator[Database]:
    """One migrated database on PostgreSQL: making one for each test takes seconds of fsync."""
    name = f"ledger_{uuid.uuid4().hex[:12]}"
    postgres_cluster.run_sql(f"CREATE DATABASE {name}")
    opened = open_database(postgres_cluster.url(name))
    opened.transact(upgrade)
    yield opened
    opened.close()


@pytest.fixture
def postgres_database(migrated_postgres: Database) -> Database:
    """The same database, emptied past its guards."""

    def empty(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for table in metadata.tables:
            connection.exec_driver_sql(f"DELETE FROM {table}")

    migrated_postgres.transact(empty)
    return migrated_postgres


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> Database:
    """A migrated database, once of each kind."""
    opened = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(opened, Database)
    return opened


@pytest.fixture
def world(database: Database) -> World:
    """A ledger on each kind of database."""
    return World(database)


@pytest.fixture
def sqlite_world(sqlite_database: Database) -> World:
    """A ledger on SQLite, where the database makes no difference."""
    return World(sqlite_database)
