"""The views and functions for people in psql, and for the shell commands that do the same."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
