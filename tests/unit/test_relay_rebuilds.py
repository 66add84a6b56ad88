"""How soon a relay goes on whose transactional producer ends: at once, and later each time where it ends in a row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import KafkaError

from outboxd.policy.faults import fault_of
from outboxd.policy.limits import RelayLimits
from outboxd.policy.messages import DeliveryFault
from outboxd.policy.routes import Route
from outboxd.relay.ownership import IN_A_ROW_SECONDS, Ownership
from outboxd.relay.state import Ports

FENCED = DeliveryFault(fault_of(KafkaError._FENCED), "fenced")


class Stand:
    """An owner whose database answers at once, on a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.loads: list[float] = []
        self.events: list[str] = []
        ports: Any = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            observer=SimpleNamespace(
                event=lambda name, **_: self.events.append(name), database_not_asked=lambda _: None
            ),
            publisher=SimpleNamespace(rebuild=lambda: None, purge=lambda: None),
            lease=SimpleNamespace(give_up=lambda _: None),
            store=SimpleNamespace(begin_load=lambda: self.loads.append(self.now)),
            dice=None,
        )
        self.ownership = Ownership(cast(Ports, ports), RelayLimits(), (), Route(), pipelined=True)
        self.ownership.own(1)
        self.answer()

    def answer(self) -> None:
        """The load that is under way is answered."""
        self.ownership.state.reading = None

    def fail(self) -> float:
        """The producer ends as soon as it was recovered; return how long nothing is loaded after that."""
        ended_at = self.now
        self.ownership.resolve(FENCED)
        for at in self.ownership.reading.deadlines():
            self.ownership.reading.fetch(self.now)
            assert self.ownership.state.reading is None, "asked before its time"
            self.now = at
            self.ownership.reading.fetch(at)
        self.answer()
        return self.loads[-1] - ended_at


def test_producers_that_end_in_a_row_are_replaced_later_each_time_up_to_five_seconds() -> None:
    stand = Stand()
    assert [stand.fail() for _ in range(8)] == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert stand.events.count("producer_rebuilt") == 8


def test_a_producer_that_ends_long_after_the_one_before_is_replaced_at_once() -> None:
    stand = Stand()
    for _ in range(3):
        stand.fail()
    stand.now += IN_A_ROW_SECONDS
    assert stand.fail() == 0.0


def test_an_owner_that_stands_by_meanwhile_loads_nothing() -> None:
    stand = Stand()
    stand.fail()
    stand.ownership.resolve(FENCED)
    loads = len(stand.loads)
    stand.ownership.stand_down("the lease could not be renewed in time")
    stand.now += IN_A_ROW_SECONDS
    assert stand.ownership.reading.deadlines() == []
    assert len(stand.loads) == loads
