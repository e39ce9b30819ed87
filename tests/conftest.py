"""What every test may ask for: a migrated database of either kind, and a throw-away PostgreSQL cluster."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bidder_api.database import Database, open_database
from bidder_api.migration import upgrade
from tests.demo_process import demo as demo  # a fixture, for every test of the session
from tests.postgres import PostgresCluster, find_binaries
from tests.valkey import ValkeyServer, find_binary

settings.register_profile(
    "endcap", deadline=None, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("endcap")


def migrated(url: str) -> Database:
    """Open a database and bring it to the newest revision."""
    database = open_database(url)
    database.transact(upgrade)
    return database


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/endcap.db"


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    database = migrated(sqlite_url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresCluster]:
    """A PostgreSQL cluster of our own, on a free port, gone afterwards."""
    binaries = find_binaries()
    if binaries is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL's binaries (initdb, postgres) are required when CI is set, none were found")
        pytest.skip("PostgreSQL's binaries (initdb, postgres) were not found: these tests did NOT run on PostgreSQL")
    with PostgresCluster(binaries) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def valkey_binary() -> str:
    """A Valkey or Redis server's program."""
    binary = find_binary()
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("valkey-server or redis-server is required when CI is set, neither was found")
        pytest.skip("neither valkey-server nor redis-server was found: shared visitors were NOT tested")
    return binary


@pytest.fixture
def valkey(valkey_binary: str) -> Iterator[ValkeyServer]:
    """A server of our own that keeps nothing on disk, gone afterwards."""
    with ValkeyServer(valkey_binary) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """An empty database in the cluster."""
    name = f"endcap_{uuid.uuid4().hex[:12]}"
    postgres_cluster.run_sql(f"CREATE DATABASE {name}")
    yield postgres_cluster.url(name)
    postgres_cluster.run_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[Database]:
    database = migrated(postgres_url)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database, once of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database, once of each kind."""
    opened = migrated(database_url)
    yield opened
    opened.close()
