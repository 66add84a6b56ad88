"""Progress records: what each Kafka transaction delivered, written inside it, for whoever comes after.

The number of the transaction, and of every row its id, partition and offset, and a piece of its event id: an id alone
may be given to another row by a database that lost its latest commits. A successor that fenced the producer
before it reads every record above the last settled transaction, to the end of the topic: what is there was
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
import time
import zlib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from sys import byteorder

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from outboxd.errors import BrokerUnavailableError, OutboxdError
from outboxd.kafka.client.answers import answer_of
from outboxd.kafka.client.client_config import CLIENT_LOGGER, QUICK_CONNECTION
from outboxd.kafka.client.codes import FORBIDDEN, why_unread
from outboxd.kafka.client.consumers import is_groups_alone, without_producers_own
from outboxd.policy.exchange.messages import ProgressRow, Report
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
READ_SECONDS_MAX = 60.0
_ANSWER_WAIT_MS = 20
"""So long a broker waits for more before it says that the topic ends here."""
VERSION = 2
"""Version 1 had no event pieces; it is still read."""
ROW_BYTES_MAX = 30
HEAD_BYTES_MAX = 1024
"""What a record takes at most, for each row and beside them: identifiers and offsets may be as good as random."""
_FIRST_LOOK_BACK = 4 * UNSETTLED_MAX
_NAME_CHARS_MAX = 200
_ROW = struct.Struct(">qiq?")
_PIECE_BYTES = 8
_REPLAY = int(Arm.REPLAY)
_ILLEGAL = re.compile(r"[^a-zA-Z0-9._-]")
TOPIC_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "compact",
    "segment.bytes": str(32 << 20),
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.1",
    "max.message.bytes": "1048588",
}


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

    def add_restated(self, rows: Sequence[ProgressRow]) -> None:
        """Take rows of earlier transactions that cannot be settled."""
        if rows:
            *columns, pieces = zip(*rows, strict=True)
            self._add(array("q", [piece or 0 for piece in pieces]), *columns)

    def _add(self, pieces: array[int], *columns: Iterable[int]) -> None:
        if byteorder == "little":
            pieces.byteswap()
        self._pieces.append(pieces.tobytes())
        self._packed.append(self._compressor.compress(b"".join(map(_ROW.pack, *columns))))
        self._rows += len(pieces)

    def value(self, number: int, lineage: str) -> bytes:
        """Return the record's value, once all rows are there: a JSON head, a newline, the event pieces, the rows."""
        head = orjson.dumps({"v": VERSION, "number": number, "lineage": lineage, "rows": self._rows})
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
    rows = [ProgressRow._make((*entry, piece)) for entry, piece in zip(entries, pieces, strict=True)]
    return ProgressRecord(number, lineage, rows)


def _decoded(topic: str, offset: int | None, value: bytes, is_wanted: IsWanted) -> ProgressRecord:
    try:
        return decode(value, is_wanted)
    except (ValueError, KeyError, TypeError, struct.error, zlib.error) as error:
        raise ProgressUnreadableError(
            f"{topic}-0@{offset} is no progress record that this outboxd can read ({error}); nothing is relayed, since "
            "rows might go twice. Run the outboxd that wrote it until it ends cleanly, then the other one"
        ) from error


class ProgressMissingError(OutboxdError):
    """The progress topic is not there."""


class ProgressUnreadableError(OutboxdError):
    """The progress topic holds what this version cannot read."""


def rows_max(record_bytes_max: int) -> int:
    """Return how many rows' progress fits into one record of at most so many bytes."""
    return max(1, (record_bytes_max - HEAD_BYTES_MAX) // ROW_BYTES_MAX)


def restated_max(record_bytes_max: int) -> int:
    """Return how many of these rows may be of earlier transactions."""
    return min(RESTATED_ROWS_MAX, rows_max(record_bytes_max) // 2)


def ensure_topic(properties: Mapping[str, str], topic: str, timeout_seconds: float = 30.0) -> None:
    """Make the progress topic where it is missing. Raises KafkaException where the cluster refuses, and
    BrokerUnavailableError where it did not answer in time.
    """
    # Kept alive until its futures are through.
    admin = AdminClient(dict(properties), logger=CLIENT_LOGGER)
    wanted = NewTopic(topic, num_partitions=1, config=dict(TOPIC_CONFIG))
    future = admin.create_topics([wanted], request_timeout=timeout_seconds)[topic]
    try:
        made = answer_of(future, timeout_seconds)
    except TimeoutError as late:
        raise BrokerUnavailableError(
            f"the progress topic {topic} was not made within {timeout_seconds:g} s; look at the brokers, or make it"
        ) from late
    if isinstance(made, KafkaException) and made.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
        raise KafkaException(made.args[0])


def read_above(
    properties: Mapping[str, str], topic: str, settled: int, lineage: str, timeout_seconds: float = READ_SECONDS_MAX
) -> list[ProgressRecord]:
    """Return the committed records of this lineage with numbers above `settled`, in the order of their numbers.

    To be called after `init_transactions`, which ends what the producer before had open: the end does not move then.

    Raises:
        BrokerUnavailableError: the topic could not be read to its end in time.
        ProgressMissingError: the topic is not there, or may not be seen.
        ProgressUnreadableError: another version wrote it.
    """
    consumer = _consumer(properties)
    try:
        error = consumer.list_topics(topic, timeout=timeout_seconds).topics[topic].error
        if error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise ProgressMissingError(
                f"the progress topic {topic} is not there, and transaction {settled} was settled: what came after it "
                "cannot be known, and rows might go twice. Create the topic again (one partition, compacted) to go on "
                "all the same"
            )
        if error is not None and error.code() in FORBIDDEN:
            raise BrokerUnavailableError(f"the progress topic {why_unread(topic, error)}")
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=timeout_seconds)
        look_back = _FIRST_LOOK_BACK

        def is_wanted(number: int, its_lineage: str) -> bool:
            # The rows of what is settled would take more memory than all else.
            return number > settled and its_lineage == lineage

        while True:
            start = max(low, high - look_back)
            records = _read(consumer, topic, (start, high), timeout_seconds, is_wanted)
            ours = [record for record in records if record.lineage == lineage]
            if start == low or (ours and ours[0].number <= settled + 1):
                return sorted((r for r in ours if is_wanted(r.number, r.lineage)), key=lambda record: record.number)
            look_back *= 8
    except KafkaException as said:
        raise BrokerUnavailableError(f"the progress topic {why_unread(topic, said.args[0])}") from said
    finally:
        consumer.close()


def _consumer(properties: Mapping[str, str]) -> Consumer:
    return Consumer(
        {
            "client.id": "outboxd-progress",
            **QUICK_CONNECTION,
            **without_producers_own(properties),
            # No group is ever joined; the client wants a name all the same.
            "group.id": "outboxd-progress",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": _ANSWER_WAIT_MS,
        },
        logger=CLIENT_LOGGER,
    )


def _read(
    consumer: Consumer, topic: str, span: tuple[int, int], timeout_seconds: float, is_wanted: IsWanted
) -> list[ProgressRecord]:
    consumer.assign([TopicPartition(topic, 0, span[0])])
    deadline = time.monotonic() + timeout_seconds
    records: list[ProgressRecord] = []
    while time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None:
            continue
        error = message.error()
        if error is None:
            if (value := message.value()) is not None:
                records.append(_decoded(topic, message.offset(), value, is_wanted))
        elif error.code() == KafkaError._PARTITION_EOF:
            # A replica that follows, or leads since a moment ago, says so before it knows all that is committed.
            if (message.offset() or 0) >= span[1]:
                return records
        elif error.fatal() or not (error.retriable() or is_groups_alone(error)):
            raise KafkaException(error)
    raise BrokerUnavailableError(f"the progress topic {topic} was not read to its end within {timeout_seconds:g} s")
