"""When the walk over all pending records goes on, and when the next one begins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from outboxd.relay.ports import Swept
from outboxd.relay.sweeping import INTERVALS_MAX, SHARE, Sweeping

INTERVAL_SECONDS = 5.0


class Now:
    """A clock that the test moves, and a state around it in which nothing is known."""

    def __init__(self) -> None:
        self.seconds = 0.0
        nothing = SimpleNamespace(
            fetch_begins=lambda: None, fetch_ended=lambda: None, want_overdue=lambda _now: None, knows=lambda _id: False
        )
        self.state = SimpleNamespace(
            ports=SimpleNamespace(
                clock=SimpleNamespace(monotonic=lambda: self.seconds),
                store=SimpleNamespace(begin_sweep=lambda _request: None),
                observer=None,
            ),
            limits=SimpleNamespace(sweep_interval_seconds=INTERVAL_SECONDS),
            admission=SimpleNamespace(cursors=SimpleNamespace(position=9, retry=None, replay=0)),
            gate=SimpleNamespace(deferred_keys={}),
            topics=SimpleNamespace(held={}, deferred={}),
            ledger=nothing,
            held=nothing,
            is_idle=True,
            reading=None,
        )
        self.sweeping = Sweeping(cast(Any, self.state))

    def chunk(self, *, begins: float, lasts: float, cursor: int | None) -> None:
        self.seconds = begins
        assert self.sweeping.sweep(begins, gives_way=False)
        self.seconds = begins + lasts
        self.sweeping.on_swept(Swept([], cursor))


def test_a_walk_that_an_outage_cut_in_two_does_not_put_off_the_next_one() -> None:
    now = Now()
    now.chunk(begins=5.0, lasts=0.01, cursor=100)
    now.chunk(begins=700.0, lasts=0.01, cursor=None)

    assert now.sweeping.next_at <= 700.0 + INTERVAL_SECONDS


def test_a_long_walk_is_followed_by_a_longer_pause_up_to_a_limit() -> None:
    for lasts, pause in ((1.0, SHARE * 1.0), (100.0, INTERVALS_MAX * INTERVAL_SECONDS)):
        now = Now()
        now.chunk(begins=5.0, lasts=lasts, cursor=None)

        assert now.sweeping.next_at == 5.0 + pause


def test_a_fetch_that_is_due_goes_between_two_chunks_but_not_before_the_first() -> None:
    now = Now()
    assert now.sweeping.sweep(5.0, gives_way=True)
    now.sweeping.on_swept(Swept([], 100))

    assert not now.sweeping.sweep(5.1, gives_way=True)
    assert now.sweeping.sweep(5.2, gives_way=True)
