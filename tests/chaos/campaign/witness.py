"""What the database itself notes: each committed row with a digest, each poison row, each acquisition of the lease.

The notes stand in the same transactions as what they tell of, so that no crash of a writer leaves a doubt.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

PARTITION_PREFIX: Final = "part-"
"""Keys that begin so name the partition of their rows: `part-2-17`."""

WITNESS: Final = """
CREATE TABLE public.written (id bigint PRIMARY KEY, digest bigint NOT NULL);
CREATE TABLE public.poison (id bigint PRIMARY KEY, kind text NOT NULL, code text NOT NULL);
CREATE TABLE public.takeover (token bigint, daemon text, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE FUNCTION public.note_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.written
    SELECT id, ('x' || left(md5(convert_to(topic || E'\\x1f' || coalesce('k' || key, 'n') || E'\\x1f' || event_id
        || E'\\x1f' || headers::text || E'\\x1f' || coalesce(partition::text, '') || E'\\x1f', 'UTF8')
        || coalesce('\\x70'::bytea || payload, '\\x6e'::bytea)), 16))::bit(64)::bigint
    FROM fresh;
    RETURN NULL;
END $$;
CREATE TRIGGER note_written AFTER INSERT ON outboxd.outbox REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION public.note_written();
CREATE FUNCTION public.note_takeover() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.takeover (token, daemon) VALUES (NEW.token, NEW.daemon);
    RETURN NULL;
END $$;
CREATE TRIGGER note_takeover AFTER INSERT OR UPDATE OF token ON outboxd.lease
    FOR EACH ROW EXECUTE FUNCTION public.note_takeover();
"""

Headers = list[tuple[str, bytes | None]]


def digest(
    *, topic: str, key: bytes | None, event_id: bytes, headers: Headers, partition: int, payload: bytes | None
) -> int:
    """The same number from a consumed record: 64 bits of MD5. `headers` are the application's own.

    A key tells whether its row named a partition; a list of headers is one where a name occurs twice.
    """
    named = f"{partition}".encode() if key is not None and key.startswith(PARTITION_PREFIX.encode()) else b""
    head = b"\x1f".join((topic.encode(), b"n" if key is None else b"k" + key, event_id, _as_jsonb(headers), named, b""))
    body = b"\x6e" if payload is None else b"\x70" + payload
    return int.from_bytes(hashlib.md5(head + body, usedforsecurity=False).digest()[:8], "big")


def _as_jsonb(headers: Headers) -> bytes:
    """The text that PostgreSQL gives such headers."""
    if not headers:
        return b"{}"
    pairs: list[tuple[str, Any]] = [(name, None if value is None else value.decode()) for name, value in headers]
    shown = dict(pairs) if len({name for name, _ in pairs}) == len(pairs) else [list(pair) for pair in pairs]
    return json.dumps(shown, ensure_ascii=False).encode()
