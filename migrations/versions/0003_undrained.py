"""Whether an owner with at-least-once delivery left rows in doubt, on which exactly-once must not begin."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
