"""Migrations go up and down on both databases, and end where the stores say."""

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bidder_api.database import Database, open_database
from bidder_api.migration import SCRIPTS, current_revision, downgrade, newest_revision, upgrade

STORES = ["affinity.store", "auction.store", "ledger.store", "bidder_api.store", "bidder_api.webhooks.store"]


def test_up_down_and_up_again_ends_at_head(database_url: str) -> None:
    database = open_database(database_url)
    database.transact(upgrade)
    assert database.read(current_revision) == newest_revision()
    database.transact(lambda connection: downgrade(connection, "base"))
    assert database.read(tables_left) == {"alembic_version"}
    database.transact(upgrade)
    assert database.read(current_revision) == newest_revision()
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


def test_our_own_look_at_the_newest_revision_is_alembics() -> None:
    assert ScriptDirectory(str(SCRIPTS)).get_current_head() == newest_revision()


def test_an_installed_wheel_migrates_anywhere_and_puts_nothing_called_migrations_at_the_top(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=root, check=True
    )
    with zipfile.ZipFile(next(tmp_path.glob("endcap-*.whl"))) as wheel:
        names = wheel.namelist()
        wheel.extractall(tmp_path / "site")
    assert not [name for name in names if name.startswith("migrations/")]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ENDCAP_")},
        "PYTHONPATH": str(tmp_path / "site"),
        "ENDCAP_DATA_DIR": str(tmp_path / "data"),
    }
    program = "import bidder_api.migration as m, runpy, sys; sys.stderr.write(m.__file__); "
    program += "sys.argv = ['endcap', 'db', 'upgrade']; runpy.run_module('bidder_api', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr.startswith(str(tmp_path / "site"))
    assert "The database is current" in done.stdout


@pytest.mark.postgres
def test_on_postgresql_nobody_is_granted_to_change_the_books(postgres_database: Database) -> None:
    granted = sa.text(
        "SELECT DISTINCT table_name, privilege_type FROM information_schema.role_table_grants "
        "WHERE table_name IN ('events', 'entries', 'chain', 'reversals', 'fundings', 'closings', 'documents')"
    )
    rights = {tuple(row) for row in postgres_database.read(lambda connection: connection.execute(granted).all())}
    tables = {table for table, _ in rights}
    assert len(tables) == 7
    assert {right for _, right in rights} == {"SELECT", "INSERT", "REFERENCES", "TRIGGER"}
