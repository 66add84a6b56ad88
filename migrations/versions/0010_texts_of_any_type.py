"""Held keys are shown whatever type of text a table of an outbox has them in."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
