from tests.ledger.conftest import (  # noqa: F401  # the same databases
    migrated_file,
    migrated_postgres,
    postgres_database,
    sqlite_database,
)
