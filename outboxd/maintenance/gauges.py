"""The gauges of the database: what is pending, what is dead, and whether dead letters of a new kind appeared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from outboxd.errors import OutboxdError
from outboxd.observability.metrics import Metrics
from outboxd.observability.status import GAUGES, Backlog, StatusBoard
from outboxd.policy.exchange.messages import TellEvent
from outboxd.postgres.schema.names import quoted
from outboxd.postgres.upkeep.housekeeping import COUNTED_MAX

REST_SHARE: Final = 20.0
"""The next measurement waits for so many times as long as the quicker of the last two took."""
REST_SECONDS_MAX: Final = 60.0
"""It waits no longer: the figures of before an outage would stand long after it, and a statement is limited anyway."""


class KindFound(Protocol):
    """Dead letters of one topic and error code."""

    @property
    def topic(self) -> str:
        """The topic."""
        ...

    @property
    def error_code(self) -> str:
        """The error's name."""
        ...

    @property
    def rows(self) -> int:
        """How many."""
        ...

    @property
    def is_more(self) -> bool:
        """Whether there may be more than `rows`."""
        ...

    @property
    def sample_id(self) -> int:
        """The newest of them."""
        ...


class Found(Protocol):
    """What is pending and dead."""

    @property
    def pending(self) -> int:
        """Pending rows, counted up to one more than `COUNTED_MAX`."""
        ...

    @property
    def pending_estimate(self) -> int:
        """The same, and about how many there are where they are more."""
        ...

    @property
    def oldest_pending_seconds(self) -> float:
        """Since when the oldest of them is due."""
        ...

    @property
    def in_retry(self) -> int:
        """Rows that wait for another attempt."""
        ...

    @property
    def kinds(self) -> Sequence[KindFound]:
        """The kinds of dead letters."""
        ...

    @property
    def other_dead(self) -> int:
        """Dead letters of further kinds."""
        ...

    @property
    def other_dead_is_more(self) -> bool:
        """Whether there may be more than `other_dead`."""
        ...


class GaugeStore(Protocol):
    """The database, as the gauges see it."""

    def measure(self) -> Found:
        """Count what is pending and dead."""
        ...


class Gauges:
    """Measures, and tells the board, the metrics and, by an event, people."""

    def __init__(
        self,
        store: GaugeStore,
        board: StatusBoard,
        metrics: Metrics,
        event: TellEvent,
        *,
        schema: str,
        is_owner: Callable[[], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Only the owner (`is_owner`) tells of new kinds of dead letters, so that people are told once; only from a
        standby's measurements the board learns whether the database answers.
        """
        self._store = store
        self._board = board
        self._metrics = metrics
        self._event = event
        self._schema = schema
        self._is_owner = is_owner
        self._monotonic = monotonic
        self._kinds: frozenset[tuple[str, str]] | None = None
        self._not_before = float("-inf")
        self._last_took_seconds = 0.0

    def run(self) -> None:
        """Measure, unless the last two measurements took so long that it is too early. One alone proves no long count:
        the server may have stood still.

        Raises:
            OutboxdError: the database does not answer, or not as it should; a standby's board knows by then.
        """
        began_at = self._monotonic()
        if began_at < self._not_before:
            return
        try:
            found = self._store.measure()
        except OutboxdError as error:
            if not self._is_owner():
                # An owner asks several times a second, and knows better: this may be a lock on a table beside.
                self._board.database_answers(False, str(error), asked_by=[GAUGES])
            raise
        now = self._monotonic()
        took, former = now - began_at, self._last_took_seconds
        self._last_took_seconds = took
        self._not_before = now + min(REST_SHARE * min(took, former), REST_SECONDS_MAX)
        self._board.database_answers(True, asked_by=[GAUGES])
        self._take(found, now)

    def _take(self, found: Found, now: float) -> None:
        dead = found.other_dead + sum(kind.rows for kind in found.kinds)
        dead_is_more = found.other_dead_is_more or any(kind.is_more for kind in found.kinds)
        self._board.measured(
            Backlog(
                pending=min(found.pending, COUNTED_MAX),
                pending_is_more=found.pending > COUNTED_MAX,
                oldest_pending_seconds=found.oldest_pending_seconds,
                dead=dead,
                dead_is_more=dead_is_more,
                in_retry=found.in_retry,
                measured_at=now,
                pending_estimate=found.pending_estimate,
            )
        )
        self._metrics.pending.set(found.pending_estimate)
        self._metrics.oldest_pending.set(found.oldest_pending_seconds)
        by_topic: dict[str, int] = {}
        for kind in found.kinds:
            by_topic[kind.topic] = by_topic.get(kind.topic, 0) + kind.rows
        self._metrics.set_dead_letters(by_topic, found.other_dead)
        self._tell_new(found.kinds)

    def _tell_new(self, kinds: Sequence[KindFound]) -> None:
        """Tell of kinds that were not there before; those found at the start are no news, and resolved ones are
        forgotten.
        """
        former, self._kinds = self._kinds, frozenset((kind.topic, kind.error_code) for kind in kinds)
        if former is None or not self._is_owner():
            return
        for kind in kinds:
            if (kind.topic, kind.error_code) not in former:
                self._event(
                    "dead_letter_kind_appeared",
                    topic=kind.topic,
                    error_code=kind.error_code,
                    count=kind.rows,
                    sample_id=kind.sample_id,
                    sql=f"SELECT * FROM {quoted(self._schema)}.dead_letter_recent WHERE id = {kind.sample_id};",  # noqa: S608 - to be read
                )
