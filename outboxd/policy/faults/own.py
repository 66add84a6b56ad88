"""What outboxd finds itself: in a row before it is sent, or around the sending.

Two of them carry a name and number of Kafka's, since they are the same fault found earlier and people look for one
name: `MSG_SIZE_TOO_LARGE` and `INVALID_TIMESTAMP`. Found by a check of the row alone, they are the row's.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from outboxd.policy.faults.kinds import Fault, FaultClass

_ROW = FaultClass.ROW_PERMANENT

# One fault is one entry of few lines; the formatter would give each argument a line of its own.
# fmt: off
_FAULTS: Final[tuple[Fault, ...]] = (
    Fault(-1001, "INVALID_HEADERS", _ROW,
          "The row's headers are not an object or an array of [name, value] pairs of text.",
          "Correct the dead letter's headers with an UPDATE (values are strings or null), then replay it.",
          of_row_alone=True),
    Fault(-1002, "RESERVED_HEADER", _ROW, "A header of the row has a name that outboxd adds itself.",
          "Rename the header: outbox-id, outbox-event-id and outbox-source are taken; then replay the row.",
          of_row_alone=True),
    Fault(-1003, "INVALID_TOPIC", _ROW,
          "The row's topic is not a legal name: 1 to 249 of a-z, A-Z, 0-9, dot, underscore and hyphen.",
          "Correct the dead letter's topic with an UPDATE, then replay it; correct the code that writes such rows.",
          of_row_alone=True),
    Fault(-1004, "UNKNOWN_PARTITION", _ROW,
          "The row names a partition that the topic does not have, by fresh metadata.",
          "Set the dead letter's partition to null or to one that exists, or add partitions, then replay it.",
          of_row_alone=True),
    Fault(-1005, "INVALID_KEY", _ROW, "The row's key cannot be sent as UTF-8.",
          "Correct the dead letter's key with an UPDATE, then replay it.", of_row_alone=True),
    Fault(-1006, "INVALID_PAYLOAD", _ROW, "The row's payload is not bytes, so the client refuses it.",
          "Correct the dead letter's payload with an UPDATE, then replay it.", of_row_alone=True),
    Fault(-1007, "MISSING_KEY", _ROW, "The topic is compacted and the row has no key.",
          "Give the dead letter a key with an UPDATE, or take compaction from the topic, then replay it."),
    Fault(-1008, "CRASHED_DAEMON", _ROW,
          "The daemon died while it sent this row, and so did, twice, a process that sent nothing else.",
          "Do not replay it as it is: look at the daemon's log and core dump at those times, report it, then discard "
          "or correct the row. It may have reached the topic all the same.", found_by_sending=True),
    Fault(-1009, "IN_FLIGHT_TOO_OLD", FaultClass.TOPIC, "The oldest record in flight has had no answer for too long.",
          "Look for a partition without a leader, a slow broker or a broken network; the row stays in the client and "
          "serves as the probe.", of_one_partition=True),
    Fault(-1010, "NEVER_REPORTED", FaultClass.PRODUCER,
          "The producer ended without a report on this record: its outcome is unknown.",
          "Nothing: the row is sent again by the next producer; consumers drop a duplicate by outbox-event-id."),
    Fault(-1011, "SENT_BACK", FaultClass.PRODUCER,
          "Another row failed in the same transaction, so this one was not sent.",
          "Nothing: the row goes when its turn comes."),
    Fault(-1012, "TRANSACTION_TIMED_OUT", FaultClass.PRODUCER,
          "A transaction of the daemon's own was open for longer than its time-out, so the brokers ended it.",
          "Nothing: its outcome is read from the progress topic. If it comes back, look for frozen machines or slow "
          "brokers."),
    Fault(-1013, "PROGRESS_REFUSED", FaultClass.TOPIC,
          "The progress topic does not take the record of a transaction, without which nothing may be committed.",
          "Give the progress topic max.message.bytes of 1 MB or more, or the daemon's user WRITE on it, as the cause "
          "says; the rows wait and go by themselves."),
    Fault(10, "MSG_SIZE_TOO_LARGE", _ROW,
          "The row with its key and headers is larger than the topic or the client allows.",
          "Raise the topic's max.message.bytes (and \"message.max.bytes\" in [kafka]), or make the payload smaller "
          "with an UPDATE of the dead letter; then replay it.", of_row_alone=True),
    Fault(32, "INVALID_TIMESTAMP", _ROW, "The row's created_at is before 1970 or beyond what Kafka can store.",
          "Discard it, and insert it again with a real time: a replay would die of the same. Correct the code that "
          "writes such rows.", of_row_alone=True),
)
# fmt: on

OWN_FAULTS: Final = MappingProxyType({fault.name: fault for fault in _FAULTS})
