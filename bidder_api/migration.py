"""Bring a database to a revision, and say where it stands.

The scripts are `migrations/` at the top of a checkout; a wheel carries the same folder inside this package, since a
top-level `migrations` in site-packages would collide with others'. Alembic finds them by path and nothing imports them,
so no `alembic.ini` is needed.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

if TYPE_CHECKING:  # a third of a second to import, for `upgrade` and `downgrade` alone
    from alembic.config import Config

VERSION_TABLE = "alembic_version"
_PACKED = Path(__file__).parent / "migrations"
SCRIPTS = _PACKED if _PACKED.is_dir() else Path(__file__).parents[1] / "migrations"


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Migrate up to `revision`, inside the connection's transaction."""
    from alembic import command

    command.upgrade(_config(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Migrate down to `revision` (`base` for an empty database), inside the connection's transaction."""
    from alembic import command

    command.downgrade(_config(connection), revision)


def current_revision(connection: Connection) -> str | None:
    """Return the revision the database stands at, None when it was never migrated."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608
    return None if found is None else str(found)


def newest_revision() -> str:
    """Return the newest revision there is: scripts are named by it, and numbered."""
    return max(path.stem.partition("_")[0] for path in (SCRIPTS / "versions").glob("0*.py"))


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
