"""What the role may do: every grant that the daemon needs, and what row-level security hides from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from outboxd.errors import AccessDeniedError
from outboxd.policy.exchange.findings import Finding, Weight
from outboxd.postgres.schema.names import quoted
from outboxd.postgres.schema.revisions import VERSION_TABLE

#: Table → what the daemon does there; the outbox itself is apart, since its name is configured.
OWN_TABLES: Mapping[str, Sequence[str]] = {
    "retry": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dead_letter": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "lease": ("SELECT", "INSERT", "UPDATE"),
    "control": ("SELECT", "INSERT"),
    "start": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "progress": ("SELECT", "INSERT", "UPDATE"),
    VERSION_TABLE: ("SELECT",),
}
_OUTBOX_RIGHTS = ("SELECT", "UPDATE", "DELETE")
ROLES_FILE = "docs/postgresql-roles.sql"
# A policy of row-level security that is for this role, on the table whose name is given as :full.
_POLICIES = """pg_policy AS p WHERE p.polrelid = to_regclass(:full)
    AND EXISTS (SELECT FROM unnest(p.polroles) AS r(id) WHERE r.id = 0 OR pg_has_role(r.id, 'USAGE'))"""
_RIGHTS = f"""SELECT (SELECT array_agg(r.name) FROM unnest(CAST(:rights AS text[])) AS r(name)
            WHERE to_regclass(:full) IS NOT NULL AND NOT has_table_privilege(to_regclass(:full), r.name)) AS missing,
    row_security_active(to_regclass(:full))
    AND NOT EXISTS (SELECT FROM {_POLICIES} AND p.polpermissive AND p.polcmd IN ('*', 'r')) AS shows_none,
    row_security_active(to_regclass(:full))
    AND (EXISTS (SELECT FROM {_POLICIES} AND NOT p.polpermissive)
         OR NOT EXISTS (SELECT FROM {_POLICIES} AND p.polpermissive AND p.polcmd = '*'
                           AND pg_get_expr(p.polqual, p.polrelid) = 'true')) AS may_hide"""


def check_grants(connection: Connection, schema: str, table: str) -> None:
    """Refuse a role that may not do all that the daemon does.

    Raises:
        AccessDeniedError: the message names every missing grant, and how to give it.
    """
    missing = list(missing_grants(rights_of(connection, schema, table)))
    if missing:
        raise AccessDeniedError("; ".join(f"{finding.message}: {finding.remedy}" for finding in missing))


class Rights(NamedTuple):
    """What the role may not do on the table, and whether row-level security shows it no row, or not surely each."""

    full: str
    missing: Sequence[str] | None
    shows_none: bool
    may_hide: bool


def rights_of(connection: Connection, schema: str, table: str) -> Iterator[Rights]:
    """Ask what the role may do on each table, the outbox first."""
    for name, rights in {table: _OUTBOX_RIGHTS, **OWN_TABLES}.items():
        full = f"{quoted(schema)}.{quoted(name)}"
        yield Rights(full, *connection.execute(text(_RIGHTS), {"rights": list(rights), "full": full}).one())


def missing_grants(rights: Iterable[Rights]) -> Iterator[Finding]:
    """Tell of what the daemon needs and the role may not do."""
    for full, missing, shows_none, _ in rights:
        if missing:
            listed = ", ".join(missing)
            yield Finding(
                "grants",
                Weight.FORBIDDEN,
                f"the role may not {listed} on {full}",
                f"GRANT {listed} ON {full}, or grant the relay's role of {ROLES_FILE}",
            )
        elif shows_none:
            yield Finding(
                "grants",
                Weight.FORBIDDEN,
                f"row-level security shows the role no row of {full}, so that none would ever be published or obeyed",
                _every_row(full),
            )


def hidden_rows(rights: Iterable[Rights]) -> Iterator[Finding]:
    """Tell of tables whose policies may hide rows from the role."""
    for full, _, _, may_hide in rights:
        if may_hide:
            yield Finding(
                "grants",
                Weight.WARNING,
                f"row-level security of {full} is on for the role: what its policies hide is never published or obeyed",
                _every_row(full),
            )


def _every_row(full: str) -> str:
    return f"CREATE POLICY … ON {full} TO the daemon's role USING (true), or ALTER ROLE … BYPASSRLS"
