"""Lineage: which server, database and table it is, as the progress records of exactly-once delivery name it."""

from __future__ import annotations

from typing import Final

LINEAGE: Final = (
    "concat_ws('-', (SELECT system_identifier FROM pg_control_system()),"
    " (SELECT oid FROM pg_database WHERE datname = current_database()), %(table)s::regclass::oid)"
)
"""An expression; `table` is the outbox's, qualified and quoted."""
