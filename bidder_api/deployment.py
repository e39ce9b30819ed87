"""The one deployment a database holds: made when it is migrated, checked whenever it is opened."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection

from bidder_api.database import Database, open_database
from bidder_api.migration import current_revision, newest_revision, upgrade
from bidder_api.settings import Settings
from bidder_api.store import Deployment, insert_deployment, read_deployment

RETAILER_ID = "retailer"  # one per deployment; it leads every key and never appears on the wire
DEFAULT_CURRENCY = "EUR"
DEFAULT_TIME_ZONE = "UTC"


class NotServable(Exception):
    """The database is not one this version can serve from; the message says what to do."""


def open_configured(settings: Settings) -> Database:
    """Open the database of the settings, with the data folder made."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return open_database(settings.url)


def upgrade_database(database: Database, settings: Settings) -> Deployment:
    """Migrate to the newest version, and write the deployment's row if the database is new.

    Raises:
        NotServable: the settings name another currency or time zone than the database was made with.
    """
    database.transact(upgrade)

    def ensure(connection: Connection) -> Deployment:
        found = read_deployment(connection)
        if found is not None:
            return found
        made = Deployment(
            RETAILER_ID,
            settings.currency or DEFAULT_CURRENCY,
            settings.time_zone or DEFAULT_TIME_ZONE,
            time.time_ns() // 1_000_000,
        )
        insert_deployment(connection, made)
        return made

    deployment = database.transact(ensure)
    check_deployment(deployment, settings)
    return deployment


def open_deployment(settings: Settings) -> tuple[Database, Deployment]:
    """Open the database and its deployment; an embedded one is made or migrated as needed.

    Raises:
        NotServable: a PostgreSQL database that was not migrated, or a deployment of other settings.
    """
    database = open_configured(settings)
    try:
        return database, _ready_deployment(database, settings)
    except BaseException:
        database.close()
        raise


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Database, Deployment]]:
    """Open the database and its deployment for a while; see `open_deployment`."""
    database, deployment = open_deployment(settings)
    try:
        yield database, deployment
    finally:
        database.close()


def _ready_deployment(database: Database, settings: Settings) -> Deployment:
    found, head = database.read(current_revision), newest_revision()
    if found == head:
        deployment = database.read(read_deployment)
        if deployment is not None:
            check_deployment(deployment, settings)
            return deployment
    if settings.is_embedded:
        return upgrade_database(database, settings)
    raise NotServable(
        f"the database is at revision {found or 'none'}, this version needs {head}: run endcap db upgrade"
    )


def is_current(database: Database) -> bool:
    """Say whether the database stands at this version's newest revision."""
    return database.read(current_revision) == newest_revision()


def check_deployment(deployment: Deployment, settings: Settings) -> None:
    """Check that settings which were given agree with what was fixed when the database was made.

    Raises:
        NotServable: they do not.
    """
    for name in ("currency", "time_zone"):
        fixed, wanted = getattr(deployment, name), getattr(settings, name)
        if wanted is not None and fixed != wanted:
            raise NotServable(f"ENDCAP_{name.upper()} is {wanted}, but the database was made with {fixed} for good")
