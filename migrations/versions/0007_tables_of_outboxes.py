"""Replays, held keys and the status look at the table that each outbox relays; the status goes by when rows are due."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
