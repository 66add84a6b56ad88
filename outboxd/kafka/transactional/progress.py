"""Progress records: what each Kafka transaction delivered, written inside it, for whoever comes after.

The number of the transaction, and of every row its id, partition and offset, and a piece of its event id: an id alone
may be given to another row by a database that lost its latest commits. Of a replay, a piece of the digest of what was
sent too: the dead letter may say something else by the time that the record is read. A successor that fenced the
producer before it reads every record above the last settled transaction, to the end of the topic: what is there was
committed, what is not never will be. A maximum id or the last record alone would not do: rows commit out of id
order, and several transactions may be unsettled.

The topic is compacted. Records are keyed by the number modulo `KEYS`, far above the bound of unsettled
transactions, so that compaction only removes what was settled long ago. A row that cannot be settled is stated again by
later records (`add_restated`), so that those before them can be settled, and forgotten. `lineage` names the database
and table: records of another life of the same names are none of ours.
"""

from __future__ import annotations

import re
import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import compress
from sys import byteorder

import orjson

from outboxd.policy.exchange.messages import ProgressRow, Report
from outboxd.policy.rows.content import content_piece
from outboxd.policy.rows.event_pieces import event_pieces
from outboxd.policy.rows.records import Arm, id_of

KEYS = 1024
UNSETTLED_MAX = 32
"""At most so many transactions are committed and not settled."""
RESTATING_MAX = 8
"""So many more may be where each has to state rows that cannot be settled, so that those before it can."""
RESTATED_FROM = UNSETTLED_MAX // 2
"""From so many unsettled transactions on the next states such rows: not each has to."""
RESTATED_ROWS_MAX = 10_000
VERSION = 2
"""Version 1 had no event pieces; it is still read."""
ROW_BYTES_MAX = 49
HEAD_BYTES_MAX = 1024
"""What a record takes at most, for each row and beside them: identifiers and offsets may be as good as random."""
_NAME_CHARS_MAX = 200
_ROW = struct.Struct(">qiq?")
_PIECE_BYTES = 8
_REPLAY = int(Arm.REPLAY)
_ILLEGAL = re.compile(r"[^a-zA-Z0-9._-]")


@dataclass(frozen=True, slots=True)
class ProgressRecord:
    """One transaction's record."""

    number: int
    lineage: str
    rows: Sequence[ProgressRow]


def transactional_id(database: str, schema: str, outbox: str, shard: int = 0) -> str:
    """Return the producer's `transactional.id`, the same after every restart."""
    return f"outboxd-{database}-{schema}-{outbox}-{shard}"


def progress_topic(database: str, schema: str, outbox: str) -> str:
    """Return the progress topic's name; names that Kafka would refuse get a hash instead of what is illegal in them."""
    plain = f"{database}-{schema}-{outbox}"
    legal = _ILLEGAL.sub("_", plain)[:_NAME_CHARS_MAX]
    if legal != plain:
        legal += "-" + sha256(plain.encode()).hexdigest()[:8]
    return f"outboxd-progress-{legal}"


def progress_key(number: int) -> bytes:
    """Return the key under which the transaction's record stands."""
    return b"%d" % (number % KEYS)


class ProgressBody:
    """What one transaction's record says of its rows, packed while the reports of others are still awaited.

    The event pieces are as good as random, and stand apart from what can be compressed.
    """

    def __init__(self) -> None:
        """Begin without rows."""
        self._rows = 0
        self._pieces: list[bytes] = []
        self._packed: list[bytes] = []
        self._compressor = zlib.compressobj(1)
        self._contents: list[str | None] = []
        """Of the replays alone. They stand in the head, where an earlier outboxd passes over them."""

    def add(self, reports: Sequence[Report]) -> None:
        """Take the records that these reports say were delivered."""
        if not reports:
            return
        # By the column, without a line of Python a row, since a transaction has thousands.
        records = [report[0] for report in reports]
        pieces = event_pieces([record[2] for record in records])
        partitions, offsets = [report[2] or 0 for report in reports], [report[3] or 0 for report in reports]
        replays = [record[0] == _REPLAY for record in records]
        self._add(pieces, map(id_of, records), partitions, offsets, replays)
        if any(replays):
            self._contents += map(content_piece, compress(records, replays))

    def add_restated(self, rows: Sequence[ProgressRow]) -> None:
        """Take rows of earlier transactions that cannot be settled."""
        if rows:
            *columns, replays, pieces, contents = zip(*rows, strict=True)
            self._add(array("q", [piece or 0 for piece in pieces]), *columns, replays)
            self._contents += compress(contents, replays)

    def _add(self, pieces: array[int], *columns: Iterable[int]) -> None:
        if byteorder == "little":
            pieces.byteswap()
        self._pieces.append(pieces.tobytes())
        self._packed.append(self._compressor.compress(b"".join(map(_ROW.pack, *columns))))
        self._rows += len(pieces)

    def value(self, number: int, lineage: str) -> bytes:
        """Return the record's value, once all rows are there: a JSON head, a newline, the event pieces, the rows."""
        told = {"contents": self._contents} if any(self._contents) else {}
        head = orjson.dumps({"v": VERSION, "number": number, "lineage": lineage, "rows": self._rows, **told})
        return b"".join((head, b"\n", *self._pieces, *self._packed, self._compressor.flush()))


IsWanted = Callable[[int, str], bool]
"""Whether the rows of the record with this number and lineage are to be read."""


def decode(value: bytes, is_wanted: IsWanted | None = None) -> ProgressRecord:
    """Return what a `ProgressBody` was given; without its rows where these are not wanted.

    Raises:
        ValueError: it cannot have written this.
    """
    head_text, _, packed = value.partition(b"\n")
    head = orjson.loads(head_text)
    number, lineage, version, count = head["number"], head["lineage"], head.get("v"), head.get("rows")
    if is_wanted is not None and not is_wanted(number, lineage):
        return ProgressRecord(number, lineage, ())
    pieces: Sequence[int | None]
    match version:
        case 1:
            pieces = [None] * count
        case 2:
            length = _PIECE_BYTES * count
            pieces, packed = struct.unpack(f">{count}q", packed[:length]), packed[length:]
        case _:
            raise ValueError(f"a progress record of version {version!r}; this outboxd knows up to version {VERSION}")
    entries = list(_ROW.iter_unpack(zlib.decompress(packed)))
    if len(entries) != count:
        raise ValueError(f"a progress record with {len(entries)} rows instead of {count}")
    replays = sum(entry[3] for entry in entries)
    contents: Sequence[str | None] = head.get("contents", [None] * replays)
    if len(contents) != replays:
        raise ValueError(f"a progress record with the contents of {len(contents)} replays instead of {replays}")
    content = iter(contents)
    rows = [
        ProgressRow._make((*entry, piece, next(content) if entry[3] else None))
        for entry, piece in zip(entries, pieces, strict=True)
    ]
    return ProgressRecord(number, lineage, rows)


def rows_max(record_bytes_max: int) -> int:
    """Return how many rows' progress fits into one record of at most so many bytes."""
    return max(1, (record_bytes_max - HEAD_BYTES_MAX) // ROW_BYTES_MAX)


def restated_max(record_bytes_max: int) -> int:
    """Return how many of these rows may be of earlier transactions."""
    return min(RESTATED_ROWS_MAX, rows_max(record_bytes_max) // 2)
