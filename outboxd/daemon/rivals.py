"""Rivals: who takes the lease, or the producer's identity, while this daemon holds the lease.

A daemon that lost one of them stands by and tries again, since that may happen once. Where it happens again and again,
two daemons fight, or a clock jumps: it ends with 75 and a sentence that says where to look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from outboxd.errors import FencedError
from outboxd.observability.logs import Log
from outboxd.observability.metrics import Metrics
from outboxd.observability.observer import Alert, DaemonObserver
from outboxd.observability.status import StatusBoard
from outboxd.policy.blame.fencings import FENCED_CODES, FENCINGS_MAX, RIVAL, RIVAL_SECONDS, WINDOW_SECONDS, Fencings

LEASE, PRODUCER = "lease", "producer"
"""What a rival took."""


class Rivals:
    """Counts them, and has the daemon stopped once they are too many."""

    def __init__(self, outbox: str, *, is_transactional: bool, stop: Callable[[], None]) -> None:
        """Only a transactional producer has an identity that a rival can take. `stop` may be called on any thread."""
        self._outbox = outbox
        self._is_transactional = is_transactional
        self._stop = stop
        self._fencings = {LEASE: Fencings(), PRODUCER: Fencings(RIVAL_SECONDS)}
        self._fenced_by: str | None = None

    def look(self, event: str, fields: Mapping[str, object]) -> None:
        """Look whether this event tells of a rival."""
        if event == "lease_lost" and fields.get("reason") == RIVAL:
            self._took(LEASE)
        elif event == "producer_rebuilt" and fields.get("error_code") in FENCED_CODES:
            self._took(PRODUCER)

    def _took(self, what: str) -> None:
        if (what == LEASE or self._is_transactional) and self._fencings[what].fenced(time.monotonic()):
            self._fenced_by = what
            self._stop()

    def check(self) -> None:
        """Say so where the daemon was stopped for them.

        Raises:
            FencedError: they took the lease, or the producer's identity, again and again.
        """
        if self._fenced_by == PRODUCER:
            raise FencedError(
                f"another producer took this outbox's transactional.id {FENCINGS_MAX} times in"
                f" {WINDOW_SECONDS / 60:.0f} minutes while this daemon held the lease; look for a daemon on another"
                " database of the same name that uses the same brokers, or of a schema and outbox that make the same"
                " name (a-b and c, a and b-c), and give one of the two another schema or outbox.name"
            )
        if self._fenced_by is not None:
            raise FencedError(
                f"rivals took the lease {FENCINGS_MAX} times in {WINDOW_SECONDS / 60:.0f} minutes while this daemon "
                f"held it; look for another daemon of the outbox {self._outbox!r} that writes the table "
                "lease past its expiry, and at the database server's clock"
            )


class RivalObserver(DaemonObserver):
    """The daemon's observer, which shows each event to the count of rivals too."""

    def __init__(self, log: Log, metrics: Metrics, board: StatusBoard, alert: Alert, rivals: Rivals) -> None:
        """`rivals` look at each event after all others have it."""
        super().__init__(log, metrics, board, alert)
        self._rivals = rivals

    def event(self, name: str, **fields: object) -> None:
        """Something worth a log line happened."""
        super().event(name, **fields)
        self._rivals.look(name, fields)
