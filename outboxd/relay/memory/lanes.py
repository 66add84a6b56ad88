"""Lanes: what the relay keeps for each topic it met: its route, its breaker, how it is doing.

A lane is made when the first record of a topic is read, so that the hot path looks nothing up in globs. An application
may write a topic of its own into each row: where there are many lanes, those of topics of which nothing is left are
forgotten, and made anew when they are met again.
"""

from __future__ import annotations

import glob
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from outboxd.policy.blame.routes import Confirm, Route, matches_pattern, route_for
from outboxd.policy.faults import Fault
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import Record, topic_of
from outboxd.policy.topics.breakers import Breakers, StormGuard, can_storm, storm_of
from outboxd.policy.topics.topic_holds import HoldReason, TopicHolds
from outboxd.relay.ports import Clock, Pause

LANES_KEPT_MAX = 5_000
"""So many lanes are kept, whatever is left of their topics."""
LOOK_SECONDS = 60.0
"""Where most of more lanes than that are needed, a look for idle ones is taken so seldom, or once they have doubled."""


def shares(records: Sequence[Record]) -> dict[str, Sequence[Record]]:
    """Divide records by topic; mostly all are of one."""
    if not records:
        return {}
    topics = set(map(topic_of, records))
    if len(topics) == 1:
        return {topics.pop(): records}
    parts: dict[str, list[Record]] = {topic: [] for topic in topics}
    for record in records:
        parts[record[3]].append(record)
    return dict(parts)


@dataclass(slots=True)
class Lane:
    """One topic. Times are monotonic seconds. `answered` counts the reports that the producer no longer owes, and
    `given_back` the records that it gave back, last at `given_back_at`, and was not given again since.
    """

    topic: str
    route: Route
    in_flight: int = 0
    answered: int = 0
    given_back: int = 0
    given_back_at: float = float("-inf")
    last_delivered_at: float = float("-inf")
    probe_passed_at: float = float("-inf")


@dataclass(slots=True)
class _Stormed:
    """A topic that the storm guard holds. `noted_at` is when that came to stand in `control`, None before."""

    fault: Fault
    noted_at: float | None = None


class Lanes:
    """All lanes, with the pauses, breakers and storm guard that work on topics."""

    def __init__(
        self, routes: Sequence[Route], default: Route, topics: TopicHolds, gate: KeyGate, *, clock: Clock
    ) -> None:
        """`routes` are tried in order; `default` holds where none matches."""
        self._clock = clock
        self._routes = routes
        self._default = default
        self._topics = topics
        self._gate = gate
        self._lanes: dict[str, Lane] = {}
        self.breakers = Breakers()
        self.storms = StormGuard()
        self.pauses: Sequence[Pause] = ()
        self._stormed: dict[str, _Stormed] = {}
        self._storms_in_control = 0
        self._let_go: dict[str, Fault] = {}
        self.unconfirmed_topics: set[str] = set()
        self.rows_in_flight = 0
        """How many reports the producer owes, of all topics."""
        self.last_delivered_at = float("-inf")
        """When a record of any topic was delivered last."""
        self._needed = 0
        """How many lanes the last look for idle ones left."""
        self._looked_at = float("-inf")

    def __getitem__(self, topic: str) -> Lane:
        lane = self._lanes.get(topic)
        return self._open(topic) if lane is None else lane

    def meet(self, topics: Iterable[str]) -> None:
        """Make lanes for the topics that are new."""
        for topic in topics:
            if topic not in self._lanes:
                self._open(topic)

    def _open(self, topic: str) -> Lane:
        lane = self._lanes[topic] = Lane(topic, route_for(topic, self._routes, self._default))
        self._bind(lane)
        if any(matches_pattern(topic, pause.topic_pattern) for pause in self.pauses):
            self._topics.hold(topic, HoldReason.PAUSED, self._clock.monotonic())
        return lane

    def _bind(self, lane: Lane) -> None:
        for confirm, topics in ((Confirm.EACH, self._gate.serial_topics), (Confirm.NONE, self.unconfirmed_topics)):
            if lane.route.confirm is confirm:
                topics.add(lane.topic)
            else:
                topics.discard(lane.topic)

    def reroute(self, routes: Sequence[Route], default: Route) -> None:
        """Take new routes; they bind records that are admitted from now on.

        A topic keeps its form of confirmation while the daemon runs, since its key gate is of that form.
        """
        self._routes = routes
        self._default = default
        for lane in self._lanes.values():
            lane.route = route_for(lane.topic, routes, default)

    def pause(self, pauses: Sequence[Pause], asked_at: float) -> tuple[list[str], list[str]]:
        """Take the rows of `control` as of `asked_at` or later. Return the topics that stop and that go on by that."""
        if list(pauses) == list(self.pauses):
            return [], self._calmed(pauses, asked_at)
        ended = [pause for pause in self.pauses if pause not in pauses]
        self.pauses = pauses
        self._storms_in_control = sum(storm_of(pause.note) is not None for pause in pauses)
        stopped: list[str] = []
        resumed: list[str] = []
        now = self._clock.monotonic()
        for topic in self._lanes:
            if any(matches_pattern(topic, pause.topic_pattern) for pause in pauses):
                if self._topics.hold(topic, HoldReason.PAUSED, now):
                    stopped.append(topic)
            elif self._topics.release(topic, HoldReason.PAUSED, now):
                resumed.append(topic)
                self._note_storms_before(topic, ended)
        return stopped, resumed + self._calmed(pauses, asked_at)

    @property
    def storm_holds(self) -> int:
        """How many topics the storm guard holds: those of owners before this one, and those not noted yet, too."""
        return max(len(self._stormed), self._storms_in_control)

    def _note_storms_before(self, topic: str, ended: Sequence[Pause]) -> None:
        """The topic goes on: was it the storm guard of an owner before this one that held it?"""
        for pause in ended:
            fault = storm_of(pause.note)
            if fault is not None and matches_pattern(topic, pause.topic_pattern):
                self._let_storm_go(topic, fault)

    def _let_storm_go(self, topic: str, fault: Fault) -> None:
        if not can_storm(topic):
            # Each of its rows is to blame by itself, whatever held it: there is nothing to be careful for.
            return
        self.storms.calm(topic, fault.code)
        self._let_go[topic] = fault

    def take_let_go(self) -> dict[str, Fault]:
        """Return the topics that operators let go after a storm since the last call, with what they stormed with."""
        let_go, self._let_go = self._let_go, {}
        return let_go

    def storm(self, topic: str, fault: Fault) -> str:
        """Hold the topic until an operator resumes it. Return the pattern under which `control` is to keep that."""
        self._stormed[topic] = _Stormed(fault)
        self._topics.hold(topic, HoldReason.STORM, self._clock.monotonic())
        return glob.escape(topic)

    def storms_noted(self, patterns: Iterable[str]) -> None:
        """These notes are in `control` now: what an operator takes away from there goes on."""
        noted = set(patterns)
        for topic, stormed in self._stormed.items():
            if glob.escape(topic) in noted:
                stormed.noted_at = self._clock.monotonic()

    def _calmed(self, pauses: Sequence[Pause], asked_at: float) -> list[str]:
        """Release the topics whose storm note stood in `control` before and was taken away by an operator."""
        if not self._stormed:
            return []
        patterns = {pause.topic_pattern for pause in pauses}
        calmed: list[str] = []
        for topic, stormed in list(self._stormed.items()):
            if glob.escape(topic) in patterns or stormed.noted_at is None or asked_at < stormed.noted_at:
                continue
            del self._stormed[topic]
            self._let_storm_go(topic, stormed.fault)
            if self._topics.release(topic, HoldReason.STORM, self._clock.monotonic()):
                calmed.append(topic)
        return calmed

    def count_in_flight(self, lane: Lane, rows: int) -> None:
        """The producer owes so many more reports of this topic, or fewer."""
        lane.in_flight += rows
        self.rows_in_flight += rows
        if rows < 0:
            lane.answered -= rows

    def published(self, records: Sequence[Record]) -> None:
        """The producer took these records."""
        for topic, share in shares(records).items():
            lane = self[topic]
            self.count_in_flight(lane, len(share))
            if lane.given_back:
                lane.given_back = max(0, lane.given_back - len(share))

    def came_back(self, records: Sequence[Record], now: float) -> None:
        """The producer gave these records back, unsent: that is no answer, and they are sent again."""
        for record in records:
            lane = self[record.topic]
            lane.in_flight -= 1
            lane.given_back += 1
            lane.given_back_at = now
        self.rows_in_flight -= len(records)

    def nothing_in_flight(self) -> None:
        """The producer was replaced: it owes nothing."""
        self.rows_in_flight = 0
        for lane in self._lanes.values():
            lane.in_flight = lane.given_back = 0

    def topics(self) -> list[Lane]:
        """Return all lanes."""
        return list(self._lanes.values())

    def are_many(self, now: float) -> bool:
        """Say whether there are so many lanes that a look for idle ones pays."""
        count = len(self._lanes)
        return count > LANES_KEPT_MAX and (count > 2 * self._needed or now - self._looked_at >= LOOK_SECONDS)

    def forget_idle(self, needed: Container[str], delivered_before: float, now: float) -> None:
        """Forget the lanes of topics of which nothing is left, and whatever else is kept of them.

        `needed` are the topics that others have something of; what was delivered before `delivered_before` says nothing
        about its topic any more.
        """
        for topic, lane in list(self._lanes.items()):
            is_held = topic in self._topics.held or topic in self._topics.deferred
            is_busy = lane.in_flight or lane.last_delivered_at >= delivered_before
            if topic in needed or is_held or is_busy or topic in self.breakers.open:
                continue
            del self._lanes[topic]
            self._gate.serial_topics.discard(topic)
            self.unconfirmed_topics.discard(topic)
            self._topics.forget(topic)
            self.storms.forget(topic)
        self._needed, self._looked_at = len(self._lanes), now
