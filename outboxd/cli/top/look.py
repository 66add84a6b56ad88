"""One look at an outbox, for `top`: the same value, whether a daemon's page told it or the database alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from outboxd.cli.daemon_page import troubles
from outboxd.cli.plain_text import NOTHING, about, count_of, lapse

if TYPE_CHECKING:
    from outboxd.postgres.operators.overview import HeldKey, Overview

ATTEMPTS_SHOWN_FROM: Final = 1
_STATES: Final = {
    "scheduled": "waits for its retry",
    "parked": "waits for its topic",
    "wanted": "to be read again",
    "asked": "being read again",
    "dead": "dead letter",
}
"""Where a held record stands, in words for people; the page has the same."""


@dataclass(frozen=True, slots=True)
class Latency:
    """From a row's creation to its acknowledgement, in seconds; `over` says which rows were looked at."""

    p50_seconds: float
    p99_seconds: float
    over: str


@dataclass(frozen=True, slots=True)
class Counted:
    """A count that may have ended at a bound: then there are more, about `estimate` where that is known."""

    rows: int
    is_more: bool = False
    estimate: int | None = None

    def __str__(self) -> str:
        if self.is_more and self.estimate is not None:
            return about(self.estimate)
        return f"{self.rows:,}+" if self.is_more else f"{self.rows:,}"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. A rate is None where nobody knows it."""

    name: str
    rows_per_second: float | None
    in_flight: int
    published: int | None
    dead: int
    state: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that waits, and why: a held key, a breaker, a pause."""

    what: str
    since: str
    why: str


@dataclass(frozen=True, slots=True)
class Point:
    """One second of the past."""

    at: float
    rows_per_second: float
    lag_seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """How an outbox stands. What only a daemon knows is None when it came from the database."""

    outbox: str
    source: str
    state: str
    rows_per_second: float | None = None
    rows_per_second_10s: float | None = None
    rows_per_second_10min: float | None = None
    lag_seconds: float | None = None
    latency: Latency | None = None
    in_flight_rows: int | None = None
    in_memory_rows: int | None = None
    in_memory_bytes: int | None = None
    pending: Counted | None = None
    oldest_pending_seconds: float = 0.0
    in_retry: Counted | None = None
    dead: Counted | None = None
    topics: Sequence[Topic] = ()
    breakers: Sequence[Waiting] = ()
    held_keys: Counted = Counted(0)
    held: Sequence[Waiting] = ()
    pauses: Sequence[Waiting] = ()
    troubles: Sequence[str] = ()
    points: Sequence[Point] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What a daemon's page told at one time: `/status`, `/api/points`, and what `/metrics` adds."""

    status: Mapping[str, Any]
    points: Sequence[Sequence[float]] = ()
    dead_by_topic: Mapping[str, int] = field(default_factory=dict)


def look_of_daemon(told: Told, source: str, former: Told | None = None, latency: Latency | None = None) -> Look:
    """The look of what a daemon told; rates by topic need what it told before (`former`)."""
    status = told.status
    relay, backlog, rates = status["relay"] or {}, status["backlog"], status["rates"]
    is_measured = backlog["pending"] is not None
    return Look(
        outbox=status["outbox"],
        source=source,
        state=status["state"],
        rows_per_second=rates["one_second"],
        rows_per_second_10s=rates["ten_seconds"],
        rows_per_second_10min=rates["ten_minutes"],
        lag_seconds=status["lag_seconds"],
        latency=latency,
        in_flight_rows=relay.get("in_flight_rows"),
        in_memory_rows=relay.get("in_memory_rows"),
        in_memory_bytes=relay.get("in_memory_bytes"),
        pending=_pending(backlog) if is_measured else None,
        oldest_pending_seconds=backlog["oldest_pending_seconds"],
        in_retry=Counted(backlog["in_retry"]) if is_measured else None,
        dead=None if backlog["dead"] is None else Counted(backlog["dead"], backlog["dead_is_more"]),
        topics=_topics(told, former),
        breakers=[_breaker(each) for each in relay.get("breakers", ())],
        held_keys=Counted(relay.get("held_keys", 0)),
        held=[_held(each) for each in relay.get("held", ())],
        pauses=[
            Waiting(
                each["topic_pattern"],
                lapse(status["at"] - each["since_ms"] / 1000),
                f"by {each['who']}" + (f": {each['note']}" if each["note"] else ""),
            )
            for each in relay.get("pauses", ())
        ],
        troubles=troubles(status),
        points=[Point(at, rows, lag) for at, rows, _bytes, lag, _rows in told.points],
    )


def _topics(told: Told, former: Told | None) -> list[Topic]:
    published: Mapping[str, int] = told.status["published_by_topic"]
    relay = told.status["relay"] or {}
    flying: Mapping[str, int] = relay.get("in_flight_by_topic", {})
    states = {each["topic"]: ", ".join(each["reasons"]) for each in relay.get("held_topics", ())}
    before: Mapping[str, int] = {} if former is None else former.status["published_by_topic"]
    seconds = 0.0 if former is None else told.status["at"] - former.status["at"]
    found = [
        Topic(
            name,
            (published.get(name, 0) - before.get(name, 0)) / seconds if seconds > 0 else None,
            flying.get(name, 0),
            published.get(name, 0),
            told.dead_by_topic.get(name, 0),
            states.get(name, ""),
        )
        for name in {*published, *flying, *states, *told.dead_by_topic}
    ]
    # What is on hold first, then what flows, then by name: a topic keeps its place from frame to frame.
    return sorted(found, key=lambda topic: (not topic.state, not (topic.published or topic.in_flight), topic.name))


def _breaker(told: Mapping[str, Any]) -> Waiting:
    probe = told["next_probe_in_seconds"]
    probing = "probing now" if probe is None else f"next probe in {lapse(probe)}"
    failed = f", {count_of(told['probes_failed'], 'probe')} failed" if told["probes_failed"] else ""
    return Waiting(
        told["topic"], lapse(told["open_seconds"]), f"{told['error_code']}: {told['cause']} ({probing}{failed})"
    )


def _held(told: Mapping[str, Any]) -> Waiting:
    due = "" if told["due_in_seconds"] is None else f", due in {lapse(told['due_in_seconds'])}"
    tries = f", attempt {told['attempts']}" if told["attempts"] >= ATTEMPTS_SHOWN_FROM else ""
    key = "without a key" if told["key"] is None else told["key"] or NOTHING
    return Waiting(
        f"{told['topic']} {'a key that this page keeps to itself' if told.get('key_is_hidden') else key}",
        lapse(told["age_seconds"]),
        f"{_STATES.get(told['state'], told['state'])}: {told['why']} (row {told['outbox_id']}{tries}{due})",
    )


def _pending(backlog: Mapping[str, Any]) -> Counted:
    # A daemon of a former version estimates nothing.
    return Counted(backlog["pending"], backlog["pending_is_more"], backlog.get("pending_estimate"))


def look_of_database(overview: Overview, outbox: str, source: str) -> Look:
    """The look of what the database alone tells."""
    from outboxd.postgres.operators.overview import COUNTED_MAX

    def counted(rows: int) -> Counted:
        return Counted(min(rows, COUNTED_MAX), rows > COUNTED_MAX)

    def since(row: HeldKey) -> str:
        return lapse((overview.now - row.since).total_seconds())

    return Look(
        outbox=outbox,
        source=source,
        state=_lease_sentence(overview),
        lag_seconds=overview.oldest_pending_age_seconds,
        pending=replace(counted(overview.pending), estimate=overview.pending_estimate),
        oldest_pending_seconds=overview.oldest_pending_age_seconds,
        in_retry=counted(overview.in_retry),
        dead=Counted(overview.dead),
        topics=[Topic(topic, None, 0, None, dead, "") for topic, dead in sorted(overview.dead_by_topic.items())],
        held_keys=counted(overview.held_keys),
        held=[
            Waiting(
                f"{row.topic} {row.key or NOTHING}", since(row), f"{row.why}: {row.error_code} (row {row.outbox_id})"
            )
            for row in overview.held_keys_listed
        ],
        pauses=[
            Waiting(
                row.topic_pattern,
                lapse((overview.now - row.since).total_seconds()),
                f"by {row.who}" + (f": {row.note}" if row.note else ""),
            )
            for row in overview.paused
        ],
    )


def _lease_sentence(overview: Overview) -> str:
    lease = overview.lease
    if lease is None:
        return "no daemon has relayed it yet"
    if lease.alive:
        return f"relayed by {lease.daemon} for {lapse((overview.now - lease.acquired_at).total_seconds())}"
    ended = lapse((overview.now - lease.expires_at).total_seconds())
    return f"nobody relays it: the lease of {lease.daemon} ended {ended} ago"
