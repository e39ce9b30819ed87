from collections.abc import Iterator

import pytest

from bidder_api.database import Database, open_database
from bidder_api.migration import upgrade
from tests.ledger.conftest import (  # noqa: F401  # the same databases
    database,
    migrated_file,
    migrated_postgres,
    postgres_database,
    sqlite_database,
    world,
)
from tests.postgres import PostgresCluster


@pytest.fixture
def database_of_its_own(request: pytest.FixtureRequest) -> Iterator[Database | None]:
    """A migrated database on PostgreSQL that nobody else uses; None where the test is not about PostgreSQL."""
    if "postgres" not in request.node.name:
        yield None
        return
    cluster: PostgresCluster = request.getfixturevalue("postgres_cluster")
    name = "moved"
    cluster.run_sql(f"DROP DATABASE IF EXISTS {name}")
    cluster.run_sql(f"CREATE DATABASE {name}")
    own = open_database(cluster.url(name))
    own.transact(upgrade)
    yield own
    own.close()
