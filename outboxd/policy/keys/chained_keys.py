"""Chained keys: the key gate's side towards whoever sends many records of one key together. Pure state.

busy, and others wait ──they go together──▶ chained ──the last one is delivered──▶ as after any busy record
                                               │ the chain is cut, since some record failed
                                               ▼
                              busy with the first one that was not delivered; the others wait
"""

from __future__ import annotations

from collections.abc import Sequence

from outboxd.policy.keys.key_states import KeyStates
from outboxd.policy.rows.records import Record


class ChainedKeys:
    """Knows nothing of keys that are held: what waits of those was deferred, so that there is nothing to go with."""

    def __init__(self, keys: KeyStates) -> None:
        """`keys` are the gate's."""
        self._keys = keys
        self._queues = keys.queues
        self._chains = keys.queues.chains

    @property
    def are_open(self) -> bool:
        """Whether a record of any chain is not delivered yet."""
        return bool(self._chains.by_id)

    def queue_of(self, record: Record) -> list[Record]:
        """Return the record, which was let go and is not with the producer yet, and those that wait behind it; nothing
        where it has no key, or its topic goes one record at a time.
        """
        queue = self._queues.by_key.get((record[3], record[4]), [])
        return queue if record[4] is not None and queue and queue[0][1] == record[1] else []

    def begin(self, record: Record, rows: int) -> None:
        """The record went, and of those that wait behind it so many that all are `rows`."""
        self._queues.chain_begins((record[3], record[4]), rows)

    def delivered(self, records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
        """Return those of delivered records that are of no chain, and the last ones of chains that are through."""
        others, done = self._chains.delivered(records)
        return others, [self._keys.chain_ended(gate_key) for gate_key in done]

    def undelivered(self) -> list[Record]:
        """Return the records of chains that are not delivered, in the order of their keys."""
        return self._chains.undelivered()

    def cut(self) -> list[Record]:
        """All chains end: return of each the first record that was not delivered, to go by itself now."""
        return self._keys.cut_chains()
