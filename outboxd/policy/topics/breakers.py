"""Breakers: a topic on hold for a systemic fault, when to probe it, and the storm guard. Pure: `now` is an argument.

    closed ──a systemic fault──▶ open ──probe due──▶ probing ──delivered──▶ closed
                                   ▲                    │ failed again: the next probe waits longer, 250 ms to 5 s
                                   └────────────────────┘

A probe is a real record: the lowest unsettled one of its key; successive probes take other keys, by turns one that
failed and one that has not been tried, so that one sick record does not keep a whole topic waiting. Any delivery on
the topic closes its breaker. A storm (twenty different keys of a topic fail for good with one code, none delivered
between) is not a breaker's to close: an operator says so. From then on the topic has a breaker like any other, whose
probes die of nothing that stormed. Rows that name what Kafka allows no topic to be called make no storm: such a name
never becomes legal, so that to hold them would serve nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from outboxd.policy.blame.backoff import probe_delay_seconds
from outboxd.policy.faults import Fault, fault_named
from outboxd.policy.rows.records import GateKey
from outboxd.policy.rows.row_checks import topic_name_problem

STORM_KEYS = 20
"""So many different keys failing for good with one code, and none delivered between, are no longer the rows' fault."""
STORM_ROWS = 200
"""So many rows of several keys are not either, however few keys the topic has (docs/decisions/0029)."""
WATCHED_SECONDS = 1.0
"""A failure may be reported this long after a delivery that came later: so long a topic is still watched after it."""
WATCHED_TRIES = 3
"""So often a row fails with what its topic stormed with, after an operator let the topic go, before it is blamed."""
LOOK_ON_SECONDS = 0.05
"""The pause between two short reads of one look for a probe."""
STORM_TOPICS_MAX = 10_000
"""Of so many topics failures are counted; beyond that, those of the topic that failed the longest time ago are not."""
_NOTE_BEGINS = "storm guard: many keys in a row failed for good with "
_NOTE_ENDS = ", none was delivered between"


@dataclass(slots=True)
class Breaker:
    """One open breaker.

    `read_from` is where the next look for an untried record begins, and `keys_read` are the keys met before it: a later
    record of those is not the lowest of its key. `began_again`: what is being read was not asked for from there, so it
    shows no probe; before the first look it may have been asked for by a breaker that closed. `nothing_untried`: the
    last look met all and found none to try.
    A look that takes longer than until `turn_ends_at` waits for what is parked.
    """

    fault: Fault
    message: str
    opened_at: float
    failures: int = 0
    next_probe_at: float = 0.0
    probing_id: int | None = None
    wants_untried: bool = False
    read_from: int | None = None
    keys_read: set[GateKey] = field(default_factory=set)
    began_again: bool = True
    nothing_untried: bool = False
    turn_ends_at: float = float("inf")

    def look_again(self) -> None:
        """Look for untried records from the beginning: all were met, or an older one came up."""
        self.nothing_untried = False
        self.read_from = None
        self.keys_read.clear()
        self.began_again = True

    def begins_at(self, otherwise: int) -> int:
        """Return where the next look begins, `otherwise` where that is the beginning: 0 is an id as any other."""
        return otherwise if self.read_from is None else self.read_from

    @property
    def is_watched(self) -> bool:
        """Whether what is in flight serves as the probe: the breaker opened on age, and closes when the old ones
        are through.
        """
        return self.fault.name == "IN_FLIGHT_TOO_OLD"


class Breakers:
    """The open breakers, by topic."""

    def __init__(self) -> None:
        """Start with all closed."""
        self.open: dict[str, Breaker] = {}

    def trip(self, topic: str, fault: Fault, message: str, now: float) -> bool:
        """A systemic fault was seen on the topic. Return whether its breaker opened by that."""
        breaker = self.open.get(topic)
        if breaker is not None:
            return False
        self.open[topic] = Breaker(fault, message, now, 0, now + probe_delay_seconds(0))
        return True

    def probe_failed(self, topic: str, record_id: int, fault: Fault, message: str, now: float) -> None:
        """The record came back with a systemic fault again; if it was the probe, the next one waits longer."""
        breaker = self.open.get(topic)
        if breaker is None or breaker.probing_id != record_id:
            return
        breaker.probing_id = None
        breaker.failures += 1
        breaker.fault, breaker.message = fault, message
        breaker.next_probe_at = now + probe_delay_seconds(breaker.failures)

    def probe_ended(self, topic: str, record_id: int, now: float) -> None:
        """The record came to an end that says nothing about the topic; if it was the probe, the next one goes soon."""
        breaker = self.open.get(topic)
        if breaker is not None and breaker.probing_id == record_id:
            breaker.probing_id = None
            breaker.next_probe_at = now + probe_delay_seconds(0)

    def no_probe(self, topic: str, now: float) -> None:
        """Nothing could be found to probe with just now: look again soon."""
        breaker = self.open.get(topic)
        if breaker is not None and breaker.probing_id is None:
            breaker.next_probe_at = now + probe_delay_seconds(0)

    def look_on(self, topic: str, now: float) -> None:
        """A short read showed nothing to probe with, and there is more to look at: a little later, since a long backlog
        of few keys is not to be walked through while other topics wait.
        """
        breaker = self.open.get(topic)
        if breaker is not None and breaker.probing_id is None:
            breaker.next_probe_at = now + LOOK_ON_SECONDS
            breaker.turn_ends_at = min(breaker.turn_ends_at, now + probe_delay_seconds(breaker.failures))

    def probes_due(self, now: float) -> list[str]:
        """Return the topics that want a probe now."""
        return [
            topic
            for topic, breaker in self.open.items()
            if breaker.probing_id is None and not breaker.is_watched and breaker.next_probe_at <= now
        ]

    def probing(self, topic: str, record_id: int) -> None:
        """This record is the topic's probe."""
        breaker = self.open[topic]
        breaker.probing_id = record_id
        breaker.turn_ends_at = float("inf")

    def is_probe(self, topic: str, record_id: int) -> bool:
        """Say whether the record is the topic's probe."""
        breaker = self.open.get(topic)
        return breaker is not None and breaker.probing_id == record_id

    def next_probe_at(self) -> float | None:
        """Return when the next probe is due, None when no breaker waits for one."""
        waiting = [
            breaker.next_probe_at
            for breaker in self.open.values()
            if breaker.probing_id is None and not breaker.is_watched
        ]
        return min(waiting, default=None)

    def close(self, topic: str) -> Breaker | None:
        """A record of the topic was delivered, or nothing is left to probe with: return the breaker that closed."""
        return self.open.pop(topic, None)


@dataclass(slots=True)
class _Watched:
    code: int
    tries: dict[int, int] = field(default_factory=dict)
    until: float = float("inf")


@dataclass(slots=True)
class _Storm:
    keys: set[str | int] = field(default_factory=set)
    rows: int = 0


class StormGuard:
    """Counts, for each topic and code, what fails for good since the last delivery.

    A topic that an operator let go after a storm is watched until the first delivery: a row that fails there with the
    storm's code is not blamed at once, so that a word that came too early costs next to no row. It is after some tries,
    since where a topic has one key only no other row could ever show that the fault is the row's.
    """

    def __init__(
        self, keys_max: int = STORM_KEYS, rows_max: int = STORM_ROWS, topics_max: int = STORM_TOPICS_MAX
    ) -> None:
        """`keys_max` different keys make a storm, and so do `rows_max` rows of several; at most `topics_max` topics are
        counted.
        """
        self._keys_max = keys_max
        self._rows_max = rows_max
        self._topics_max = topics_max
        self._storms: OrderedDict[str, dict[int, _Storm]] = OrderedDict()
        self._watched: dict[str, _Watched] = {}

    def failed_for_good(self, topic: str, code: int, key: str | None, record_id: int) -> bool:
        """Count one permanent failure; return whether the topic storms now, so that this record is not to die.

        Failures with other codes between say nothing about the topic, so each code has a count of its own.
        """
        if not can_storm(topic):
            return False
        storm = self._storms.setdefault(topic, {}).setdefault(code, _Storm())
        self._storms.move_to_end(topic)
        if len(self._storms) > self._topics_max:
            self._storms.popitem(last=False)
        storm.keys.add(record_id if key is None else key)
        storm.rows += 1
        return len(storm.keys) >= self._keys_max or (storm.rows >= self._rows_max and len(storm.keys) > 1)

    def delivered(self, topic: str, now: float) -> None:
        """A record of the topic was delivered, or nothing is left of what stormed."""
        if self._storms:
            self._storms.pop(topic, None)
        watched = self._watched.get(topic) if self._watched else None
        if watched is not None:
            watched.until = min(watched.until, now + WATCHED_SECONDS)

    def disproved(self, topic: str, code: int) -> None:
        """What failed with this code failed before a record of the topic was delivered: count from zero."""
        self._storms.get(topic, {}).pop(code, None)

    def calm(self, topic: str, code: int) -> None:
        """An operator says that the topic may go on after its storm of this code: count from zero, and watch."""
        self._storms.pop(topic, None)
        self._watched[topic] = _Watched(code)

    def untried(self) -> dict[str, int]:
        """Return the topics that are watched and of which nothing was delivered since, with the storm's code."""
        return {topic: watched.code for topic, watched in self._watched.items() if watched.until == float("inf")}

    def forget(self, topic: str) -> None:
        """Nothing is left of the topic, so that nothing fails in it that was sent before an operator let it go."""
        self._watched.pop(topic, None)

    def is_watched(self, topic: str, code: int, record_id: int, now: float) -> bool:
        """Count a record's failure where the topic was let go after a storm of this code and nothing was delivered
        since; return whether it is still not to be blamed.
        """
        watched = self._watched.get(topic)
        if watched is None or watched.code != code:
            return False
        if now > watched.until:
            del self._watched[topic]
            return False
        watched.tries[record_id] = watched.tries.get(record_id, 0) + 1
        return watched.tries[record_id] < WATCHED_TRIES


def can_storm(topic: str) -> bool:
    """Say whether Kafka may have a topic of this name, so that what its rows fail with may be the topic's fault.

    So whatever stands in the column `topic`, the storm guard notes none in `control` that its index would refuse.
    """
    return topic_name_problem(topic) is None


def storm_note(fault: Fault) -> str:
    """Return what stands in `control` for a topic that stormed."""
    return f"{_NOTE_BEGINS}{fault.name}{_NOTE_ENDS}"


def storm_of(note: str | None) -> Fault | None:
    """Return the fault that a note of the storm guard names; None for the note of anybody else."""
    if note is None or not note.startswith(_NOTE_BEGINS):
        return None
    return fault_named(note.removeprefix(_NOTE_BEGINS).split(",", 1)[0])
