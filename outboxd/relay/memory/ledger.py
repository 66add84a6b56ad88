"""The ledger: every record in memory, from admission to settlement, with its bytes.

It answers three questions: how much more may be read, whether a record that the database shows is one we have, and
which one has been with the producer for the longest time (dictionaries keep the order of insertion).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import repeat

from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import Record, id_of, size_of

_NOBODY = Record(0, 0, "", "", None, None, "", None, 0, 0)
"""Instead of a record that is not in memory; it frees no bytes."""


class Ledger:
    """Records in memory by id; rows and bytes are bounded by the two limits."""

    def __init__(self, rows_max: int, bytes_max: int, *, row_bytes: int = 0) -> None:
        """`rows_max` and `bytes_max` bound what may be in memory at once; one record is always let in. `row_bytes` is
        what a record costs beside its payload, key and headers.
        """
        self.row_bytes = row_bytes
        self.rows_max = rows_max
        self.bytes_max = bytes_max
        self.records: dict[int, Record] = {}
        self.size_bytes = 0
        self._rows_beside = 0
        self._bytes_beside = 0
        self._highest_id = 0
        self._left_since_fetch: set[int] = set()
        self._leaving: list[Collection[int]] = []
        """What left since then and is not in that set yet: it is seldom asked for."""
        self._fetching = False

    def __len__(self) -> int:
        return len(self.records)

    @property
    def rows_free(self) -> int:
        """How many rows may still be read."""
        return max(0, self.rows_max + self._rows_beside - len(self.records))

    @property
    def bytes_free(self) -> int:
        """How many bytes may still be read."""
        return max(0, self.bytes_max + self._bytes_beside - self.size_bytes - self.row_bytes * len(self.records))

    @property
    def rows_that_fit(self) -> int:
        """How many records of the mean size of those in memory may be there, by the limit of bytes."""
        size_bytes = self.size_bytes + self.row_bytes * len(self.records)
        return self.bytes_max * len(self.records) // size_bytes if size_bytes else self.rows_max

    def of_topics(self, topics: Collection[str]) -> list[Record]:
        """Return the records of these topics."""
        return [record for record in self.records.values() if record.topic in topics] if topics else []

    def count_beside(self, stuck: Sequence[Record], rows_least: int, bytes_least: int) -> None:
        """Let these records, which are stuck, take little room from the others.

        Half of the rows and a quarter of the bytes stay free of them, beyond the limits where it has to be. Where that
        room gets stuck too, `rows_least` and `bytes_least` do, so that topics that follow each other take little more.
        """
        self._rows_beside = _beside(len(stuck), self.rows_max, self.rows_max // 2, rows_least)
        size_bytes = sum(map(size_of, stuck)) + self.row_bytes * len(stuck)
        self._bytes_beside = _beside(size_bytes, self.bytes_max, self.bytes_max // 4, bytes_least)

    def fetch_begins(self) -> None:
        """From now on, remember what leaves: the snapshot that is being read may still show it as pending."""
        self._forget_left()
        self._fetching = True

    def fetch_ended(self) -> None:
        """The answer was taken."""
        self._forget_left()
        self._fetching = False

    def _forget_left(self) -> None:
        self._left_since_fetch.clear()
        self._leaving.clear()

    def _left(self) -> set[int]:
        """Return what left since the fetch under way began."""
        self._left_since_fetch.update(*self._leaving)
        self._leaving.clear()
        return self._left_since_fetch

    def unknown(self, records: Sequence[Record]) -> list[Record]:
        """Return the records, which are in id order, that are not in memory and did not leave it while the snapshot
        was being read.
        """
        if records and records[0][1] > self._highest_id:
            return list(records)
        known, left = self.records, self._left()
        if not left:
            return [record for record in records if record[1] not in known]
        return [record for record in records if record[1] not in known and record[1] not in left]

    def knows(self, record_id: int) -> bool:
        """Say whether the record is in memory, or left it while the snapshot was being read."""
        return record_id in self.records or record_id in self._left()

    def enter(self, records: Sequence[Record]) -> None:
        """Take records into memory."""
        if not records:
            return
        ids = list(map(id_of, records))
        self._highest_id = max(self._highest_id, *ids)
        self.records.update(zip(ids, records, strict=True))
        self.size_bytes += sum(map(size_of, records))

    def leave(self, record_ids: Collection[int]) -> None:
        """Records were settled, or go back to the database to wait there: they leave memory. The ids are kept as they
        are given.
        """
        if self._fetching and record_ids:
            self._leaving.append(record_ids)
        # Without a line of Python a record: a settlement lets go thousands.
        self.size_bytes -= sum(map(size_of, map(self.records.pop, record_ids, repeat(_NOBODY))))

    def forget_dropped(self, gate: KeyGate) -> None:
        """What the key gate deferred, which is mostly nothing, leaves memory."""
        if dropped := gate.take_dropped():
            self.leave([record.id for record in dropped])

    def oldest(self) -> Record | None:
        """Return the record that has been in memory for the longest time."""
        return next(iter(self.records.values()), None)


def _beside(stuck: int, limit: int, free: int, least: int) -> int:
    """Return how much is to be counted beside the limit, so that `free` is left where all of it is stuck, and `least`
    where more than all is. A batch may have gone beyond the limit.
    """
    beyond = max(0, stuck - limit)
    return min(stuck, beyond + max(free - beyond, least))
