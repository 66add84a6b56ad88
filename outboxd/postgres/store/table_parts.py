"""The tables that an outbox is: itself, and where it has partitions or children, these at every depth.

Who writes a part directly, as bulk loads do, locks that part only.
"""

from __future__ import annotations

from typing import Final

TABLES: Final = (
    "(WITH RECURSIVE part(id) AS (SELECT %(table)s::regclass::oid UNION"
    " SELECT i.inhrelid FROM part AS p JOIN pg_inherits AS i ON i.inhparent = p.id) SELECT p.id FROM part AS p)"
)
"""Their numbers, in a statement that has the table as the parameter `table`."""
