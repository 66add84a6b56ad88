"""The view `status` shows an outbox whose oldest row was created at infinity, as an application may write."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
