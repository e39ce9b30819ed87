import pytest

from bidder_api.database import Database
from tests.ledger.world import World


@pytest.fixture
def world(database: Database) -> World:
    """A ledger on each kind of database."""
    return World(database)


@pytest.fixture
def sqlite_world(sqlite_database: Database) -> World:
    """A ledger on SQLite, where the database makes no difference."""
    return World(sqlite_database)
