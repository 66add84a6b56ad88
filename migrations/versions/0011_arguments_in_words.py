"""Arguments out of range are refused in words or taken as far as they go; a pause tells where nobody obeys it yet."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
