"""The bounds and intervals of one relay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REPLAYS_MAX: Final = 20_000
"""So many dead letters are kept in memory to be replayed; further ones wait in the database for their turn. Those that
hold their keys are known to a new owner, however many they are."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What one relay may hold and how often it reads; durations in seconds.

    The limits named `in_flight` are for all that is in memory, from its fetch to its settlement. `row_bytes` is what a
    row costs there beside its payload, key and headers, and counts with them.
    `reach_ids_min` is how many ids a read of one topic covers at least, where there are more.
    `stall_seconds` is how long the oldest record of a topic may be the same before the topic is taken for stuck.
    `idle_poll_interval_seconds` is the longest pause between reads while notifications come, which wake it before.
    `chain_rows_min` is with how many records a key in memory those of a key go together, as a chain; 0: they never do.
    After one failed none goes for `chain_pause_seconds`, or longer.
    """

    batch_rows: int = 5_000
    batch_bytes: int = 4 * 1024 * 1024
    max_in_flight_rows: int = 50_000
    max_in_flight_bytes: int = 12 * 1024 * 1024
    row_bytes: int = 0
    poll_interval_min_seconds: float = 0.001
    poll_interval_max_seconds: float = 0.1
    idle_poll_interval_seconds: float = 1.25
    sweep_interval_seconds: float = 5.0
    shutdown_timeout_seconds: float = 20.0
    reach_ids_min: int = 100_000
    stall_seconds: float = 10.0
    chain_rows_min: int = 32
    chain_pause_seconds: float = 5.0

    @property
    def fetch_rows_min(self) -> int:
        """With room for fewer rows than that a fetch is not worth it: what is in memory has to leave it first."""
        return max(1, min(self.batch_rows, self.max_in_flight_rows) // 2)

    @property
    def fetch_bytes_min(self) -> int:
        """The same of bytes."""
        return min(self.batch_bytes, self.max_in_flight_bytes) // 4
