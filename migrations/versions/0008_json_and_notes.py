"""`enqueue` takes `json` too; a replay or discard without a reason leaves a note that was null as it is."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
