"""Which table an outbox's owner relays, so that two outboxes do not relay the same one."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
