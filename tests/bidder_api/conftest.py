from collections.abc import Iterator

import pytest

from bidder_api.database import Database
from tests.bidder_api.world import World, world_over
from tests.conftest import migrated


@pytest.fixture
def world(sqlite_database: Database) -> Iterator[World]:
    with world_over(sqlite_database) as made:
        yield made


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for a module's tests, which must not mind what the others left in it."""
    database = migrated(f"sqlite:///{tmp_path_factory.mktemp('shared')}/endcap.db")
    with world_over(database) as made:
        yield made
    database.close()


@pytest.fixture
def each_world(database: Database) -> Iterator[World]:
    """The world over SQLite and over PostgreSQL."""
    with world_over(database) as made:
        yield made
