"""Alembic migrations, configured in code so that `endcap db upgrade` works from an installed wheel."""
