"""What of a row is moved into a dead letter, and what of a dead letter is digested, as SQL expressions."""

from __future__ import annotations

from outboxd.postgres.store.record_sizes import SHIPPED_HEADERS, SHIPPED_PAYLOAD

MOVED_COLUMNS = "event_id, topic, key, payload, headers, partition, created_at"
_IN_PLACE_OF_NULL = {
    "event_id": "gen_random_uuid()",
    "topic": "''",
    "headers": "'{}'",
    "created_at": "now()",
}
"""What a dead letter has to have, and a row of somebody's own table may lack."""
# Escapes that `json` takes and `jsonb` does not, other than pairs of surrogates, and numbers that may be too large.
_PAIRS = r"E'\\\\ud[89ab][0-9a-f]{2}\\\\ud[c-f][0-9a-f]{2}'"
_NOT_JSONB = r"E'\\\\u(0000|d[89a-f])|[0-9]e[+-]?0*[1-9][0-9]{4}'"
_HEADERS = (
    "CASE WHEN pg_typeof(m.headers) = 'json'::regtype"
    f" AND regexp_replace(m.headers::text, {_PAIRS}, '', 'gi') ~* {_NOT_JSONB}"
    " THEN to_jsonb(m.headers::text) ELSE m.headers::jsonb END"
)
"""A dead letter's headers. Where a table has them as `json`, and they can be no `jsonb`: their text, a JSON string."""


def moved_values() -> str:
    """Return the values of these columns of a row that is named m."""
    values = {column: f"m.{column}" for column in MOVED_COLUMNS.split(", ")} | {"headers": _HEADERS}
    return ", ".join(
        f"coalesce({value}, {_IN_PLACE_OF_NULL[column]})" if column in _IN_PLACE_OF_NULL else value
        for column, value in values.items()
    )


def content_text(letter: str, *, payload: str | None = None, headers: str | None = None) -> str:
    """Return the expression for the digest of a dead letter's content, as `policy.rows.content` has it; with these
    expressions for its payload and its headers' text where they are given.
    """
    headers_text = headers or f"{letter}.headers::text"
    texts = [f"{letter}.topic", f"{letter}.key", headers_text, f"{letter}.partition::text"]
    parts = [*(f"convert_to({text}, 'UTF8')" for text in texts), payload or f"{letter}.payload"]
    hashed = [f"coalesce(sha256({part}), decode('00', 'hex'))" for part in parts]
    return f"encode(sha256({' || '.join(hashed)}), 'hex')"


def shipped_content_text(letter: str) -> str:
    """Return the same of what a fetch would ship of it now: of what is too large only a part was read."""
    columns = ", ".join(f"{letter}.{name}" for name in ("topic", "key", "payload", "headers", "partition"))
    digest = content_text("o", payload=SHIPPED_PAYLOAD, headers=SHIPPED_HEADERS)
    return f"(SELECT {digest} FROM (SELECT {columns}) AS o)"
