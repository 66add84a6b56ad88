"""A replay tells where no daemon relays the outbox of what it took, so that it waits."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
