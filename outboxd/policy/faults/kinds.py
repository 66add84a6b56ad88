"""The types of the table of faults: the class decides what happens, the fault says why and what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal

OWN_CODE_MAX: Final = -1000
"""Codes at or below this are outboxd's own; librdkafka's local codes end at -199 and brokers' are not below -1."""


class FaultClass(enum.Enum):
    """Whose fault a failure is, and with that what it costs. The values are the metrics' `class` label."""

    ROW_PERMANENT = "row_permanent"
    """The row's own, and no repetition helps: dead-lettered (once it failed alone, if the verdict was on a batch)."""
    ROW_PASSING = "row_passing"
    """Worth trying again with backoff; an attempt is counted while other keys of the topic are delivered."""
    TOPIC = "topic"
    """Of the topic or one of its partitions: the whole topic is held, alerted, probed; no attempt is counted."""
    CLUSTER = "cluster"
    """Of the cluster, the way to it or the credentials: each topic whose record meets it is held, alerted, probed; no
    attempt is counted.
    """
    PRODUCER = "producer"
    """Of the producer instance: it is built anew; what was in flight has an unknown outcome and goes again in order."""
    UNLISTED = "unlisted"
    """Nobody knows what this means for a producer: tried again, then the topic is held. Never a dead letter."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    `name` is stored as `error_code` and is a label of metrics. `meaning` and `remedy` are sentences for people.
    `batch_wide`: the broker's verdict is on a whole batch, so the record must fail alone before it is blamed.
    `of_one_partition` (class TOPIC): of the partition's leader or replicas, so no row's own, whatever the topic's other
    partitions deliver. The whole topic is held all the same: which keys go to which partition, only the client knows.
    `found_by_sending`: outboxd's own finding, and yet none that a look at the row shows.
    `unless_neighbour_passes` (class TOPIC): the row's own and permanent once it fails alone while another row of the
    topic is delivered; the topic's (a wrong clock) while none is.
    `of_row_alone`: told of the row without a broker's word on it, so that it would be again, at once.
    """

    code: int
    name: str
    fault_class: FaultClass
    meaning: str
    remedy: str
    batch_wide: bool = False
    of_one_partition: bool = False
    unless_neighbour_passes: bool = False
    found_by_sending: bool = False
    of_row_alone: bool = False

    @property
    def dead_reason(self) -> Literal["fatal", "invalid"]:
        """The `reason` of a row that dies of this at once: `invalid` when a look at it tells, `fatal` when sending
        it did.
        """
        return "invalid" if self.code <= OWN_CODE_MAX and not self.found_by_sending else "fatal"


GO_AGAIN: Final = "Rows go again by themselves, dead letters by a replay"
"""What becomes of the rows of a passing fault; a remedy begins with it."""
WAIT: Final = f"{GO_AGAIN}; only if this lasts, look at the brokers' logs and load."
