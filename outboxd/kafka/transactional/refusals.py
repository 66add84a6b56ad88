"""Refusals: rows that outboxd's own checks keep from a transaction, and what stands behind them in their keys.

    refused ──nothing of its key is before it──▶ told at once
       └─ an earlier row of its key is still with the worker ──delivered──▶ told then
                                                   └─ failed, or sent back ──▶ sent back with it

Of two bad rows of a key only the first is to blame: whether the key goes on after that, only the relay knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outboxd.kafka.transactional.verdicts import sent_back
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.rows.records import Record

Key = tuple[str, str | None]
"""A topic and a key in it."""


def key_of(record: Record) -> Key:
    """Return the key that the record's order is kept by."""
    return record[3], record[4]


class Refusals:
    """Those that are not told yet. Lives on the relay's thread."""

    def __init__(self, keys_before: Callable[[], set[Key]]) -> None:
        """`keys_before` returns the keys of the records that the worker has, or that gather for it."""
        self._keys_before = keys_before
        self._before: set[Key] | None = None
        self._accepted = 0
        self.ready: list[Report] = []
        """These wait for nothing."""
        self._waiting: dict[Key, list[Report]] = {}
        self._keys: set[Key] = set()

    def __len__(self) -> int:
        return len(self.ready) + len(self._waiting)

    def begin(self) -> set[Key]:
        """More records are to be checked: return the keys of which nothing goes before the relay has heard of what was
        refused; they may become more.
        """
        self._before, self._accepted = None, 0
        return self._keys

    def put_behind(self, record: Record) -> None:
        """The record is of such a key: it is sent back with what it stands behind."""
        self._waiting.get(key_of(record), self.ready).append(sent_back(record))

    def add(self, record: Record, fault: DeliveryFault, accepted: Sequence[Record]) -> None:
        """The record is refused; these are accepted with it, and not the worker's yet."""
        key, report = key_of(record), Report(record, fault, record.partition, None, True)
        if record.key is None:
            self.ready.append(report)
            return
        self._keys.add(key)
        before = self._keys_before() if self._before is None else self._before
        before.update(map(key_of, accepted[self._accepted :]))
        self._before, self._accepted = before, len(accepted)
        if key in before:
            self._waiting[key] = [report]
        else:
            self.ready.append(report)

    def take(self, reports: Sequence[Report], before: set[Key]) -> list[Report]:
        """Return what can be told by now: `before` are the keys of what the worker has and what gathers, `reports` are
        all that came since the last call of what is not there any more.
        """
        if not self:
            return []
        failed = {key_of(report.record) for report in reports if report.error is not None}
        waiting, self._waiting = self._waiting, {}
        for key, behind in waiting.items():
            if key in before and key not in failed:
                self._waiting[key] = behind
            else:
                self.ready += behind
        ready, self.ready = self.ready, []
        self._keys.clear()
        self._keys.update(self._waiting)
        failed = {key for key in failed if key[1] is not None}
        return [sent_back(report.record) if key_of(report.record) in failed else report for report in ready]
