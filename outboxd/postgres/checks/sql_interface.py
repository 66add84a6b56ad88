"""Views and functions that somebody dropped since the migration which made them: no revision tells of that, and whoever
needs one learns it when he does.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text

from outboxd.policy.exchange.findings import Finding, Weight
from outboxd.postgres.schema.names import quoted

VIEWS = ("dead_letter_recent", "dead_letter_summary", "held_keys", "status")
#: With `@` for the schema.
FUNCTIONS = (
    "backlog_of(text)", "discard(bigint, text)", "discard(bigint[], text)", "enqueue(text, text, bytea, jsonb)",
    "enqueue(text, text, json, jsonb)", "enqueue(text, text, jsonb, jsonb)", "enqueue(text, text, text, jsonb)",
    "guard_dead_letter()", "past_note(@.dead_letter)", "pause(text, text, text)", "readable(bytea, integer)",
    "replay(bigint, boolean, text)", "replay(bigint[], boolean, text)", "replay_obstacles(bigint[])",
    "replay_where(text, text, timestamptz, integer, boolean, boolean, text)", "resume(text, text)",
    "retried_keys(text)", "sole_outbox()", "table_of(text)", "topic_is(text, text)", "wake_relay()",
    "wakeup_channel(text)",
)  # fmt: skip
#: Without these the daemon cannot settle the replay of a dead letter.
_NEEDED = frozenset({"past_note(@.dead_letter)"})

# With a type that is not there a function's name is no question but an error, in some versions.
_MISSING = """SELECT v.name FROM unnest(CAST(:views AS text[])) AS v(name)
    WHERE to_regclass(CAST(:schema AS text) || '.' || v.name) IS NULL
    UNION ALL
    SELECT f.name FROM unnest(CAST(:functions AS text[])) AS f(name)
    WHERE CASE WHEN f.name NOT LIKE '%@%' OR to_regclass(CAST(:schema AS text) || '.dead_letter') IS NOT NULL
          THEN to_regprocedure(CAST(:schema AS text) || '.' || replace(f.name, '@', CAST(:schema AS text))) END
          IS NULL"""


def missing_objects(connection: Connection, schema: str) -> Iterator[Finding]:
    """Tell of the views and functions that are not there, though the schema has the revision that made them."""
    values = {"schema": quoted(schema), "views": list(VIEWS), "functions": list(FUNCTIONS)}
    missing = sorted(connection.scalars(text(_MISSING), values))
    for weight, names in (
        (Weight.MISCONFIGURED, [name for name in missing if name in _NEEDED]),
        (Weight.WARNING, [name for name in missing if name not in _NEEDED]),
    ):
        if names:
            listed = ", ".join(name.replace("@.", "") for name in names)
            yield Finding(
                "schema",
                weight,
                f"of the schema {schema!r} views or functions are missing that `outboxd migrate` made: {listed}",
                "somebody dropped them, and migrate makes none anew: in an empty database it does, from which pg_dump "
                "--schema-only has them; grant them then as docs/postgresql-roles.sql does",
            )
