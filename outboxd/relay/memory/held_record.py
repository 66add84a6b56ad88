"""One held record: where it stands, and what is kept of it while it is out of memory and unsettled."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from outboxd.policy.rows.records import NO_HISTORY, FailureHistory, GateKey, Record


class HeldState(enum.Enum):
    """Where a held record stands."""

    SCHEDULED = "scheduled"
    PARKED = "parked"
    WANTED = "wanted"
    ASKED = "asked"
    DEAD = "dead"


@dataclass(slots=True)
class HeldRecord:
    """A failed record that is unsettled and not in memory. `since` and `due_at` are the relay's monotonic time.

    `key` is its own, where `gate_key` may stand for its whole topic; `partition` is what it names, once it was read.
    """

    id: int
    topic: str
    gate_key: GateKey | None
    history: FailureHistory
    state: HeldState
    why: str
    since: float
    due_at: float = 0.0
    key: str | None = None
    partition: int | None = None

    @classmethod
    def of(
        cls,
        record: Record,
        gate_key: GateKey | None,
        history: FailureHistory,
        state: HeldState,
        why: str,
        *,
        since: float,
        due_at: float = 0.0,
    ) -> HeldRecord:
        """Return what is kept of a record that leaves memory."""
        # One without counted attempts is as one that never failed once it is read again.
        if history != NO_HISTORY and history.waits_since is None:
            history = history._replace(waits_since=since)
        return cls(record.id, record.topic, gate_key, history, state, why, since, due_at, record.key, record.partition)

    @property
    def waits_since(self) -> float:
        """Since when it has waited, through all counted attempts."""
        return self.since if self.history.waits_since is None else self.history.waits_since

    @property
    def is_replay(self) -> bool:
        """Whether it is to be read from the dead-letter table."""
        return self.history.dead_letter_id is not None
