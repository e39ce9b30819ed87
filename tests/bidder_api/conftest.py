from collections.abc import Iterator

import pytest

from bidder_api.database import Database
from tests.bidder_api.world import World, world_over


@pytest.fixture
def world(sqlite_database: Database) -> Iterator[World]:
    with world_over(sqlite_database) as made:
        yield made


@pytest.fixture
def each_world(database: Database) -> Iterator[World]:
    """The world over SQLite and over PostgreSQL."""
    with world_over(database) as made:
        yield made
