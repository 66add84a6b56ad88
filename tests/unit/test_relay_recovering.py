"""What a new owner settles of what the owner before committed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.policy.blame.routes import Route
from outboxd.policy.exchange.messages import ProgressRow, Recovered, RecoverFailed
from outboxd.policy.exchange.reads import KeyHolder
from outboxd.relay.fetch.orders import Orders
from outboxd.relay.fetch.recovering import NEWS_SECONDS, PAUSE_SECONDS, TOLD_SECONDS, Recovering
from outboxd.relay.ports import Loaded, Settlement
from outboxd.relay.state import Ports, RelayLimits, State


def owner() -> State:
    """One that begins in a quiet world, with transactions."""
    ports = SimpleNamespace(
        clock=SimpleNamespace(monotonic=lambda: 100.0),
        observer=SimpleNamespace(event=lambda *_, **__: None),
        publisher=SimpleNamespace(begin_recover=lambda *_: None),
        dice=None,
    )
    return State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(), token=1, pipelined=True)


def test_a_replay_that_was_delivered_and_is_not_known_is_settled_by_its_rows_id_before_anything_is_read() -> None:
    state = owner()
    recovering = Recovering(state)
    recovering.begin(Loaded([], [], 0))

    recovering.take(Recovered(5, [ProgressRow(7, 1, 70, True, 1234, "c0ffee"), ProgressRow(8, 2, 80, False, 5678)]))

    assert not recovering.is_done
    assert state.settling.take() == Settlement(
        delivered_ids=[8],
        delivered_partitions=[2],
        delivered_offsets=[80],
        delivered_pieces=[5678],
        retries=[],
        dead=[],
        replayed=[],
        recovered_replays=[(7, 1, 70, 1234, "c0ffee")],
        died_again=[],
        out_of_retry=[],
        storms=[],
        transaction=5,
        is_recovered=True,
    )


def test_why_nothing_can_be_sent_is_told_once_a_minute_and_soon_where_it_is_another_reason() -> None:
    now, told = 100.0, list[object]()
    ports = SimpleNamespace(
        clock=SimpleNamespace(monotonic=lambda: now),
        observer=SimpleNamespace(event=lambda name, **fields: told.append(fields.get("cause", name))),
        publisher=SimpleNamespace(begin_recover=lambda *_: None),
        dice=None,
    )
    state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(), token=1, pipelined=True)
    recovering = Recovering(state)
    recovering.begin(Loaded([], [], 0))

    def fail(seconds: float, why: str) -> None:
        nonlocal now
        until = now + seconds
        while now < until:
            recovering.take(RecoverFailed(why))
            assert recovering.failure == why
            now += PAUSE_SECONDS
            recovering.begin_again(now)

    fail(NEWS_SECONDS, "no topic")
    fail(TOLD_SECONDS, "no answer")
    assert told == ["no topic", "no answer"]
    fail(1.0, "no answer")
    assert told == ["no topic", "no answer", "no answer"]
    recovering.take(Recovered(5, []))
    assert recovering.failure == ""


@pytest.mark.parametrize("is_replay", [False, True])
def test_what_was_delivered_lets_go_of_no_dead_letter_that_has_the_same_id_as_its_row(*, is_replay: bool) -> None:
    state = owner()
    orders, recovering = Orders(state), Recovering(state)
    # The replayed one is what was delivered; the other one holds its key, and its row's id was given again.
    orders.hold(KeyHolder(7, "orders", "k", 1, 107, is_replay, 0.0), 100.0)
    recovering.begin(Loaded([], [], 0))

    recovering.take(Recovered(5, [ProgressRow(7, 1, 70, is_replay, 1234)]))

    assert (len(state.held) == 1, ("orders", "k") in state.gate.held) == (not is_replay, not is_replay)
