"""What a record's bytes are, and how much of a large one is shipped: expressions over a row `o`.

PostgreSQL tells the length of topic, key and payload without reading them. Of headers it tells the size in the table,
where they may be compressed to a ninetieth; then their text counts, which has to be made for that. In a table of
somebody's own topic and headers may be null: such headers are none, and of such a topic, which is empty, the row dies.
"""

from __future__ import annotations

from typing import Final

from outboxd.policy.rows.records import WITHHELD

COMPRESSED_MAX: Final = 255
"""No way of compressing that PostgreSQL has makes less than one byte of so many."""
ESCAPED_MAX: Final = 6
"""A byte of a header's name or value is so many in JSON at most, and what JSON has around them is in proportion: where
the text has more than so many times the client's limit, the headers are beyond it on the wire too."""

_OTHERS = "coalesce(octet_length(o.payload), 0) + coalesce(octet_length(o.key), 0) + coalesce(octet_length(o.topic), 0)"
# What is too large even compressed is never shipped, so that no text is made.
_HEADERS = (
    "CASE WHEN pg_column_compression(o.headers) IS NULL OR pg_column_size(o.headers) > %(record_bytes_max)s"
    " THEN pg_column_size(o.headers) ELSE octet_length(o.headers::text) END"
)
SIZE: Final = f"({_OTHERS} + coalesce({_HEADERS}, 0))"
"""A record's bytes as the limits count them."""
SIZE_AT_SIGHT: Final = (
    f"CASE WHEN pg_column_compression(o.headers) IS NULL THEN {_OTHERS} + coalesce(pg_column_size(o.headers), 0)"
    " ELSE %(bytes_max)s + 1 END"
)
"""The same, or more than a batch may have where the headers' text would have to be made."""
SHIPPED_PAYLOAD: Final = (
    "CASE WHEN octet_length(o.payload) > %(record_bytes_max)s"
    " THEN substring(o.payload FROM 1 FOR (%(record_bytes_max)s + 1)::int) ELSE o.payload END"
)
"""Of a payload that is too large, one byte more than the client takes: nobody can take it for a smaller one."""
SHIPPED_HEADERS: Final = (
    # Most headers are so small that nothing else has to be asked.
    f"CASE WHEN pg_column_size(o.headers) > %(record_bytes_max)s / {COMPRESSED_MAX}"
    " AND (pg_column_size(o.headers) > %(record_bytes_max)s"
    f" OR {_HEADERS} / {ESCAPED_MAX} > %(record_bytes_max)s) THEN '{WITHHELD}'"
    " ELSE coalesce(o.headers::text, '{}') END"
)
"""The headers' text, or WITHHELD where the client would refuse them."""
