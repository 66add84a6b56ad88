"""How old a failed row is by its own doing: what `retry.max_age` bounds, over restarts and takeovers too."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
