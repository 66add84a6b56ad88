"""When the lease was renewed, so that a standby knows how long it is good for."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
