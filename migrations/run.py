"""Bring a database to a revision, and say where it stands.

The scripts lie beside this file, in a checkout as in an installed wheel, so no `alembic.ini` is needed.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection


def migration_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for one connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Migrate up to `revision`, inside the connection's transaction."""
    command.upgrade(migration_config(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Migrate down to `revision` (`base` for an empty database), inside the connection's transaction."""
    command.downgrade(migration_config(connection), revision)


def current_revision(connection: Connection) -> str | None:
    """Return the revision the database stands at, None when it was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def head_revision() -> str | None:
    """Return the newest revision there is."""
    return ScriptDirectory.from_config(migration_config()).get_current_head()
