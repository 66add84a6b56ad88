"""A query that reads payloads as text runs in one process: in several it failed."""

from __future__ import annotations

from outboxd.postgres.migrate import run_sql_file

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file(__file__, "up")


def downgrade() -> None:
    run_sql_file(__file__, "down")
