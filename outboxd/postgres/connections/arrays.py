"""Arrays of integers as parameters, in PostgreSQL's binary format.

psycopg dumps a list element by element in Python; five thousand ids a statement make that the dearest part of
settling. Here one `struct.pack` writes the whole array (the format is that of `array_recv` in PostgreSQL's
`arrayfuncs.c`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format

INT8_OID = 20
INT8_ARRAY_OID = 1016
UNKNOWN = -1
_HEAD = struct.Struct(">iiIii")


class Int8Array:
    """A `bigint[]` parameter without nulls: in their place stands UNKNOWN, which the statement turns into them."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[int | None]) -> None:
        """`values` are dumped when a statement is executed that has the parameter."""
        self.values = values


class _Int8ArrayDumper(Dumper):
    format = Format.BINARY
    oid = INT8_ARRAY_OID

    def dump(self, obj: Int8Array) -> bytes:
        values = obj.values
        count = len(values)
        if not count:
            return struct.pack(">iiI", 0, 0, INT8_OID)
        body: list[int] = [8] * (2 * count)
        body[1::2] = [UNKNOWN if value is None else value for value in values]
        return _HEAD.pack(1, 0, INT8_OID, count, 1) + struct.pack(">" + "iq" * count, *body)


def register_arrays(connection: Connection[object]) -> None:
    """Let the connection take `Int8Array` parameters."""
    connection.adapters.register_dumper(Int8Array, _Int8ArrayDumper)


__all__ = ["Int8Array", "register_arrays"]
