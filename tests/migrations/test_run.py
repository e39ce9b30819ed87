"""Migrations go up and down on both databases, and end where the stores say."""

import importlib

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from bidder_api.database import Database, open_database
from migrations.run import current_revision, downgrade, head_revision, upgrade

STORES = ["affinity.store", "auction.store", "ledger.store", "bidder_api.store"]


def test_up_down_and_up_again_ends_at_head(database_url: str) -> None:
    database = open_database(database_url)
    database.transact(upgrade)
    assert database.read(current_revision) == head_revision()
    database.transact(lambda connection: downgrade(connection, "base"))
    assert database.read(tables_left) == {"alembic_version"}
    database.transact(upgrade)
    assert database.read(current_revision) == head_revision()
    database.close()


def tables_left(connection: sa.Connection) -> set[str]:
    inspector = sa.inspect(connection)
    return set(inspector.get_table_names()) | set(inspector.get_view_names())


@pytest.mark.parametrize("store", STORES)
def test_the_migrated_schema_is_the_one_the_store_describes(database: Database, store: str) -> None:
    metadata = importlib.import_module(store).metadata
    ours = set(metadata.tables)

    def differences(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_object": lambda thing, name, kind, reflected, other: (
                    (name if kind == "table" else thing.table.name) in ours
                ),
            },
        )
        return list(compare_metadata(context, metadata))

    assert database.read(differences) == []
