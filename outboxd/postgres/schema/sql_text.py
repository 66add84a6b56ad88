"""SQL that names the configured schema: written with `@schema@`, which becomes the quoted name."""

from __future__ import annotations

import re

from sqlalchemy import TextClause, text

from outboxd.postgres.schema.names import quoted

_NAME = re.compile("@(schema|outbox)@")


def in_schema(sql: str, schema: str, *, table: str = "outbox") -> TextClause:
    """Return `sql` with `@schema@` and `@outbox@` (its outbox table) as quoted names, and with `:name` parameters."""
    # A colon within a quoted name would be read as a parameter.
    schema_name, table_name = (quoted(name).replace(":", r"\:") for name in (schema, table))
    names = {"schema": schema_name, "outbox": f"{schema_name}.{table_name}"}
    # In one pass: a name may hold what stands for another.
    return text(_NAME.sub(lambda found: names[found[1]], sql))
