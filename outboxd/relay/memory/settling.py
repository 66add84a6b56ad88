"""Settling: outcomes are gathered here and written by the batch, one statement at a time.

A settlement that failed is given again, whole, before any other: whether it was committed is unknown, and each of
its writes changes nothing when it is already there. One that the database refused was not written, and is given again
in parts, in turns with others (see `refusals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from outboxd.policy.blame.outcomes import DeadLetter, Retry
from outboxd.policy.exchange.messages import ProgressRow
from outboxd.policy.rows.content import content_digest
from outboxd.policy.rows.records import Record
from outboxd.relay.memory.refusals import Refusals
from outboxd.relay.ports import Settlement

T = TypeVar("T")


class Settling:
    """Outcomes that wait to be written."""

    def __init__(self, rows_max: int) -> None:
        """`rows_max` bounds one settlement."""
        self.rows_max = rows_max
        self.ids: list[int] = []
        self.partitions: list[int | None] = []
        self.offsets: list[int | None] = []
        self.pieces: list[int | None] = []
        """Of the rows of an owner before this one, which are all that waits then; empty otherwise."""
        self._retries: dict[int, Retry] = {}
        self._dead: dict[int, DeadLetter] = {}
        self._replayed: list[tuple[int, int | None, int | None, str]] = []
        self._died_again: list[tuple[int, DeadLetter, str]] = []
        self._letters: dict[int, int] = {}
        self.recovered_replays: list[tuple[int, int, int, int | None, str | None]] = []
        """Dead letters that an owner before this one delivered, see `Settlement`."""
        self._out_of_retry: list[int] = []
        self._storms: list[tuple[str, str]] = []
        self._failed: Settlement | None = None
        self.under_way: Settlement | None = None
        self.first_at: float | None = None
        self._marks: list[tuple[int, int]] = []
        self._taken_rows = 0
        self._settled = 0
        self._written: int | None = None
        """The last transaction whose settlement was written; before that, the one before the first of them."""
        self.refusals = Refusals()
        self._is_others_turn = False

    @property
    def rows(self) -> int:
        """How many delivered rows wait."""
        return len(self.ids)

    @property
    def records(self) -> int:
        """How many records have an outcome that is not written yet: new, failed, refused or under way."""
        letters = len(self._replayed) + len(self.recovered_replays) + len(self._died_again)
        begun = sum(settlement.records for settlement in (self.under_way, self._failed) if settlement is not None)
        return len(self.ids) + len(self._retries) + len(self._dead) + letters + begun + self.refusals.records

    @property
    def is_empty(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not self.waits and self.under_way is None and self.refusals.is_empty

    @property
    def is_written(self) -> bool:
        """Whether nothing waits but what was refused one by one, and nothing else is under way."""
        is_under_way = self.under_way is not None and not self.refusals.tries_aside
        return not self.waits and not is_under_way and self.refusals.are_aside

    @property
    def has_transaction(self) -> bool:
        """Whether a transaction can be settled by itself, though rows of it or of others were refused."""
        return not self.refusals.is_empty and self._markable() > 0

    @property
    def transactions(self) -> int:
        """How many transactions wait for being settled, about."""
        return self._marks[-1][0] - self._written if self._marks and self._written is not None else 0

    @property
    def waits(self) -> bool:
        """Something waits besides what was refused."""
        return bool(self.ids or self._out_of_retry or self.is_pressing)

    @property
    def is_pressing(self) -> bool:
        """Something other than deliveries waits: a key, a retry or an operator waits for it to be written."""
        of_letters = self._dead or self._replayed or self._died_again or self.recovered_replays
        return bool(self._failed or self._retries or of_letters or self._storms)

    def known_ids(self) -> set[int]:
        """Return the outbox ids whose outcome is known and not written yet."""
        ids = {*self.ids, *self._retries, *self._dead, *self._letters}
        for settlement in (self.under_way, self._failed, *self.refusals.waiting()):
            if settlement is not None:
                ids.update(settlement.outbox_ids)
        return ids

    def retry(self, record_id: int, outcome: Retry) -> None:
        """The record goes to the `retry` table."""
        self._retries[record_id] = outcome

    def dead(self, record_id: int, outcome: DeadLetter) -> None:
        """The record moves to the dead-letter table."""
        self._dead[record_id] = outcome

    def replayed(self, record: Record, dead_letter_id: int, partition: int | None, offset: int | None) -> None:
        """The record, a dead letter that was replayed, was delivered."""
        self._replayed.append((dead_letter_id, partition, offset, content_digest(record)))
        self._letters[record.id] = dead_letter_id

    def died_again(self, record: Record, dead_letter_id: int, outcome: DeadLetter) -> None:
        """The record, a dead letter that was replayed, failed again."""
        self._died_again.append((dead_letter_id, outcome, content_digest(record)))
        self._letters[record.id] = dead_letter_id

    def record_of(self, dead_letter_id: int) -> int | None:
        """Return the outbox id of the record whose replay's outcome is not written yet."""
        return next((each for each, its_letter in self._letters.items() if its_letter == dead_letter_id), None)

    def letter_written(self, dead_letter_id: int) -> int | None:
        """What became of the replay was written: return the record's outbox id."""
        record_id = self.record_of(dead_letter_id)
        if record_id is not None:
            del self._letters[record_id]
        return record_id

    def out_of_retry(self, record_id: int) -> None:
        """The record is done with, one way or another: nothing is to be retried."""
        self._out_of_retry.append(record_id)

    def storm(self, topic: str, note: str) -> None:
        """The storm guard holds the topic until an operator says otherwise."""
        self._storms.append((topic, note))

    def mark(self, transaction: int) -> None:
        """All outcomes given until now are those of the Kafka transactions up to this one."""
        self._written = transaction - 1 if self._written is None else self._written
        self._marks.append((transaction, self._taken_rows + len(self.ids)))

    def take(self, now: float = 0.0) -> Settlement | None:
        """Return the next settlement to be written, or None; it is under way until `done`, `failed` or `refused`."""
        if self.under_way is not None:
            return None
        if self._failed is not None:
            self.under_way, self._failed = self._failed, None
            return self.under_way
        # Where something was refused, by itself: what is written with it may be refused too.
        settlement = Settlement() if self.has_transaction else self._next(now)
        if settlement is not None:
            transaction = self._marked()
            self.under_way = settlement if transaction is None else replace(settlement, transaction=transaction)
        return self.under_way

    def _next(self, now: float) -> Settlement | None:
        # In turns, since a part that waits for a lock keeps the others waiting.
        others = self.waits and (self._is_others_turn or self.refusals.is_empty)
        part = None if others else self.refusals.take(now)
        self._is_others_turn = part is not None
        if part is not None or not self.waits:
            return part
        count = self.rows_max
        is_recovered, above = bool(self.pieces or self.recovered_replays), self._above()
        settlement = Settlement(
            delivered_ids=self.ids[:count],
            delivered_partitions=self.partitions[:count],
            delivered_offsets=self.offsets[:count],
            delivered_pieces=self.pieces[:count],
            retries=_take_items(self._retries, count),
            dead=_take_items(self._dead, count),
            replayed=_take(self._replayed, count),
            recovered_replays=_take(self.recovered_replays, count),
            died_again=_take(self._died_again, count),
            out_of_retry=_take(self._out_of_retry, count),
            storms=_take(self._storms, count),
            is_recovered=is_recovered,
            above=above,
        )
        del self.ids[:count], self.partitions[:count], self.offsets[:count], self.pieces[:count]
        if not self.ids:
            self.first_at = None
        self._taken_rows += len(settlement.delivered_ids)
        return settlement

    def _marked(self) -> int | None:
        """Return the last transaction all of whose outcomes were taken by now."""
        count = self._markable()
        if not count:
            return None
        self._settled = self._marks[count - 1][0]
        del self._marks[:count]
        return self._settled

    def _markable(self) -> int:
        """Return how many transactions are such that all of their outcomes were taken, or are stated by later ones."""
        if not self._marks or self.is_pressing or self._out_of_retry:
            return 0
        settled_max = self.refusals.settled_max()
        passed = [
            rows <= self._taken_rows and (settled_max is None or number <= settled_max) for number, rows in self._marks
        ]
        return [*passed, False].index(False)

    def _above(self) -> int:
        """Return a transaction that all which is taken next came after."""
        if self._replayed or self.recovered_replays:
            # They are not counted among the rows.
            return self._settled
        return max([self._settled, *(number for number, rows in self._marks if rows <= self._taken_rows)])

    def of_events(self, settlement: Settlement) -> Settlement:
        """The settlement under way is this one instead: the same, of the rows' very events."""
        self.under_way = settlement
        return settlement

    def done(self) -> None:
        """The settlement under way was committed, or is of no interest any more."""
        if self.under_way is not None and self.under_way.transaction is not None:
            self._written = self.under_way.transaction
        self.under_way = None

    def failed(self, again: Settlement) -> None:
        """The settlement under way failed: `again` is given next."""
        self.under_way = None
        self._failed = again

    def refused(self, settlement: Settlement, now: float, row: ProgressRow | None = None) -> bool:
        """The settlement under way was refused: it is given again in parts. Say whether it had none, and is set aside
        by itself. Its transaction is settled once all of it is, or stated again. `row` is told in `Refusals`.
        """
        self.under_way = None
        if settlement.transaction is not None:
            self._marks.insert(0, (settlement.transaction, self._taken_rows))
        return self.refusals.refused(settlement, now, row)


def _take(values: list[T], count: int) -> Sequence[T]:
    taken = values[:count]
    del values[:count]
    return taken


def _take_items(values: dict[int, T], count: int) -> Sequence[tuple[int, T]]:
    taken = list(islice(values.items(), count))
    for record_id, _ in taken:
        del values[record_id]
    return taken
