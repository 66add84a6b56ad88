"""The status board: the relay's last status, the last ten minutes as points, and whether the servers answer.

The relay's thread writes, the threads of the page and the metrics read. Every write replaces a frozen value, so
readers need no lock; only the ring of points has one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from outboxd import __version__
from outboxd.observability.contact import NOT_ASKED, Contact
from outboxd.observability.status_words import ROLES, counted, spoken, topics_on_hold, topics_stuck
from outboxd.relay.settle.writing import REFUSED
from outboxd.relay.status import RelayStatus, status_of

if TYPE_CHECKING:
    from outboxd.relay.relay import Relay

POINTS_MAX: Final = 600
POINT_SECONDS: Final = 1.0
PUBLISH_SECONDS: Final = 0.25
GAUGES: Final = "gauges"
"""Who asks the database beside the relay, four times a minute: what failed then is over with any answer since."""
BACKLOG_SECONDS: Final = 5.0
"""A pending row older than this is a backlog, whose age grows while nobody measures it."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the database says is pending and dead; None: not measured yet. Counts end at a bound: `…_is_more`.

    `pending_estimate` is about how many are pending where they are more than were counted, and else how many.
    """

    pending: int | None = None
    pending_is_more: bool = False
    oldest_pending_seconds: float = 0.0
    dead: int | None = None
    dead_is_more: bool = False
    in_retry: int = 0
    measured_at: float = 0.0
    pending_estimate: int | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One second of the last ten minutes. `lag_seconds` is the age of the latest acknowledged or the oldest waiting
    row.
    """

    at: float
    rows_per_second: float
    bytes_per_second: float
    lag_seconds: float
    in_memory_rows: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Acknowledged rows a second, over the last one, ten and six hundred seconds."""

    one_second: float = 0.0
    ten_seconds: float = 0.0
    ten_minutes: float = 0.0


@dataclass(slots=True)
class StatusBoard:
    """What everybody may know of a running daemon.

    `outbox` and `daemon` only label it. `monotonic` (the relay's own) and `wall` are clocks.
    """

    outbox: str = "default"
    daemon: str = ""
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    relay: RelayStatus | None = None
    database: Contact = NOT_ASKED
    kafka: Contact = NOT_ASKED
    backlog: Backlog = Backlog()
    published_at: float | None = None
    advanced_at: float | None = None
    began_at: float = 0.0
    published_by_topic: dict[str, int] = field(default_factory=dict)
    """Acknowledged rows since the start, by label."""
    published_bytes_by_topic: dict[str, int] = field(default_factory=dict)
    _counted: tuple[int, int] = (0, 0)
    """Of rows and bytes those that the points have."""
    _ack_seconds_max: float = 0.0
    _points: deque[Point] = field(default_factory=lambda: deque(maxlen=POINTS_MAX))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _point_began_at: float | None = None
    _last_point: Point | None = None
    _rates: Rates = Rates()
    _failing: dict[str, str] = field(default_factory=dict)
    """By who asks the database: why it does not answer."""

    def __post_init__(self) -> None:
        """Note when it began, for those who ask how long the start takes."""
        self.began_at = self.monotonic()

    # Written on the relay's thread.

    def look(self, relay: Relay, *, at_once: bool = False) -> bool:
        """Look at the relay after a turn of its loop, four times a second at most unless `at_once`; say whether it was
        time.
        """
        now = self.monotonic()
        is_time = at_once or self.published_at is None or now - self.published_at >= PUBLISH_SECONDS
        if is_time:
            self.publish(status_of(relay, now))
        return is_time

    def publish(self, status: RelayStatus) -> None:
        """Take the relay's status, and a point when a second is over."""
        now = self.monotonic()
        former = self.relay
        if former is None or former.turns != status.turns:
            self.advanced_at = now
        self.relay = status
        self.published_at = now
        if self._point_began_at is None:
            self._point_began_at = now
        elif now - self._point_began_at >= POINT_SECONDS:
            self._take_point(status, now)

    def _take_point(self, status: RelayStatus, now: float) -> None:
        rows, size_bytes = sum(self.published_by_topic.values()), sum(self.published_bytes_by_topic.values())
        rows_before, bytes_before = self._counted
        self._counted = (rows, size_bytes)
        lasted = now - (self._point_began_at or now)
        lag = max(self._ack_seconds_max, status.oldest_in_memory_seconds, self._backlog_seconds(now))
        self._ack_seconds_max = 0.0
        point = Point(
            at=self.wall(),
            rows_per_second=(rows - rows_before) / lasted,
            bytes_per_second=(size_bytes - bytes_before) / lasted,
            lag_seconds=lag,
            in_memory_rows=status.in_memory_rows,
        )
        with self._lock:
            self._points.append(point)
        self._point_began_at = now
        self._last_point = point
        # Once a second here, so that the state's sentence costs next to nothing whenever it is asked for.
        rates = [each.rows_per_second for each in self.points()]
        self._rates = Rates(*(_mean(rates[-count:]) for count in (1, 10, POINTS_MAX)))

    def _backlog_seconds(self, now: float) -> float:
        """The age of the oldest pending row, which grows between two measurements where it is a backlog."""
        measured = self.backlog.oldest_pending_seconds
        return measured + (now - self.backlog.measured_at) if measured > BACKLOG_SECONDS else measured

    def delivered(self, rows: int, size_bytes: int, topic: str = "") -> None:
        """Count acknowledged rows, on the relay's thread; `topic` is a label, so there is a bounded number of them."""
        self.published_by_topic[topic] = self.published_by_topic.get(topic, 0) + rows
        self.published_bytes_by_topic[topic] = self.published_bytes_by_topic.get(topic, 0) + size_bytes

    def acknowledged_after(self, seconds: float) -> None:
        """Note how long after its creation a row was acknowledged, on the relay's thread."""
        self._ack_seconds_max = max(seconds, self._ack_seconds_max)

    # Written by whoever talks to the servers.

    def database_answers(self, answers: bool, cause: str = "", *, asked_by: Collection[str] = ("",)) -> None:
        """The database answered each `asked_by`, or did not. It is up while nobody asks it in vain: one that counts its
        rows and cannot give the lease is of no use.
        """
        if answers:
            self.database_not_asked(asked_by)
        else:
            self._failing.update(dict.fromkeys(asked_by, cause))
        failing = dict(self._failing)
        refuses = set(failing) == {REFUSED}
        # What it says where it refuses rows may quote them, and is told as that alone.
        causes = [cause for each, cause in failing.items() if refuses or each != REFUSED]
        contact = self._contact(self.database, not failing, next(iter(causes), ""))
        self.database = replace(contact, refuses=refuses)

    def database_not_asked(self, asked_by: Collection[str]) -> None:
        """These wait for it no more. Whether it is up is for the next answer to say: theirs never came."""
        for each in asked_by:
            self._failing.pop(each, None)

    def kafka_answers(self, answers: bool, cause: str = "") -> None:
        """A broker answered, or none did."""
        self.kafka = self._contact(self.kafka, answers, cause)

    def _contact(self, former: Contact, answers: bool, cause: str) -> Contact:
        if former.answers == answers and former.cause == cause:
            return former
        return Contact(answers, "" if answers else cause, former.since if former.answers == answers else self.wall())

    def measured(self, backlog: Backlog) -> None:
        """Take what the database says is pending and dead."""
        self.backlog = backlog

    # Read by anybody.

    def points(self) -> list[Point]:
        """The last ten minutes, one point a second, oldest first."""
        with self._lock:
            return list(self._points)

    def rates(self) -> Rates:
        """How fast it goes."""
        return self._rates

    def lag_seconds(self) -> float:
        """How far behind the relay is, by the last point and the database."""
        last = self._last_point
        return max(last.lag_seconds if last else 0.0, self._backlog_seconds(self.monotonic()))

    def sentence(self) -> str:
        """The daemon's state in one line, as systemd and the page show it."""
        status = self.relay
        if status is None:
            return "starting"
        parts = [ROLES[status.role]]
        if status.role == "owner":
            rate, lag = self.rates().ten_seconds, self.lag_seconds()
            parts.append(f"{rate:,.0f} rows/s, lag {spoken(lag)}" if rate or lag >= 1 else "idle")
        parts += [f"{name} {contact.trouble}" for name, contact in self._servers() if contact.answers is False]
        if status.recovery_failure:
            parts.append("nothing is sent until what was sent before is known")
        if status.stalled_topics and self.kafka.answers is not False:
            parts.append(topics_stuck(status))
        if status.topics_held:
            parts.append(topics_on_hold(status))
        if status.held_keys:
            parts.append(f"{counted(status.held_keys, 'key')} held")
        if self.backlog.dead:
            parts.append(counted(self.backlog.dead, "dead letter", "+" if self.backlog.dead_is_more else ""))
        return ", ".join(parts)

    def _servers(self) -> Sequence[tuple[str, Contact]]:
        return (("the database", self.database), ("Kafka", self.kafka))

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        now = self.monotonic()
        return {
            "outbox": self.outbox,
            "daemon": self.daemon,
            "version": __version__,
            "state": self.sentence(),
            "at": self.wall(),
            "status_age_seconds": None if self.published_at is None else now - self.published_at,
            "lag_seconds": self.lag_seconds(),
            "rates": asdict(self.rates()),
            "published_by_topic": dict(self.published_by_topic),
            "database": {
                "up": self.database.is_up,
                "cause": self.database.cause,
                "since": self.database.since,
                "refuses": self.database.refuses,
            },
            "kafka": {"up": self.kafka.is_up, "cause": self.kafka.cause, "since": self.kafka.since},
            "backlog": {name: value for name, value in asdict(self.backlog).items() if name != "measured_at"},
            "relay": None if self.relay is None else asdict(self.relay),
        }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
