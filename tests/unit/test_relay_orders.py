"""What the relay makes of the dead letters that hold their keys, as the database lists them once in a while."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from outboxd.policy.blame.routes import Route
from outboxd.policy.faults import fault_of
from outboxd.policy.rows.records import FIRST_ID
from outboxd.policy.topics.breakers import storm_note
from outboxd.relay.fetch.orders import Orders
from outboxd.relay.memory.held_record import HeldState
from outboxd.relay.ports import DueReplay, Fetched, HoldingLetters, KeyHolder, Loaded, Pause
from outboxd.relay.state import Ports, RelayLimits, State
from tests.unit.records import record

TOPIC = "orders"


def letter(outbox_id: int, key: str | None, *, replaying: bool = False) -> KeyHolder:
    return KeyHolder(outbox_id, TOPIC, key, 1, 100 + outbox_id, replaying, 0.0)


class Bench:
    """Orders on an ownership that loaded dead letters, all of which hold their keys."""

    def __init__(self, *loaded: KeyHolder) -> None:
        self.now = 100.0
        self.events: list[tuple[str, object]] = []
        ports = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            observer=SimpleNamespace(event=lambda name, **fields: self.events.append((name, fields.get("topic")))),
            dice=None,
            publisher=None,
        )
        self.state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(), token=1)
        self.orders = Orders(self.state)
        for each in loaded:
            self.orders.hold(each, self.now)
        self.now += 1.0

    def listed(self, *letters: KeyHolder, after: int = FIRST_ID, cursor: int | None = None) -> dict[int, str | None]:
        """List these, as asked for a moment ago; return what holds a key since, and which one."""
        self.orders.on_holding(after, HoldingLetters(letters, cursor), self.now)
        held_records = self.state.held
        return {held.id: held.key for held in (*held_records.by_id.values(), *held_records.letters)}

    @property
    def held_keys(self) -> set[str | None]:
        return {key for _, key in self.state.gate.held}


def test_a_dead_letter_that_is_not_listed_any_more_lets_its_key_go() -> None:
    bench = Bench(letter(1, "a"), letter(2, "b"), letter(3, "c"))

    assert bench.listed(letter(1, "a"), letter(3, "c", replaying=True)) == {1: "a", 3: "c"}
    assert bench.held_keys == {"a", "c"}


def test_only_the_part_that_was_listed_is_judged() -> None:
    bench = Bench(*(letter(number, str(number)) for number in range(1, 6)))

    assert sorted(bench.listed(letter(3, "3"), after=1, cursor=3)) == [1, 3, 4, 5]


def test_what_died_after_it_was_asked_for_keeps_its_key() -> None:
    bench = Bench(letter(1, "a"))
    bench.orders.hold(letter(2, "b"), bench.now + 1.0)

    assert bench.listed() == {2: "b"}


def test_a_replay_that_is_under_way_is_not_judged() -> None:
    bench = Bench(letter(1, "a", replaying=True))

    assert bench.listed() == {1: "a"}
    assert bench.state.held.by_id[1].state is HeldState.WANTED


def test_a_dead_letter_that_was_given_another_key_holds_that() -> None:
    bench = Bench(letter(1, "a"))

    assert bench.listed(letter(1, "b")) == {1: "b"}
    assert bench.held_keys == {"b"}


def test_dead_letters_whose_rows_had_the_same_id_hold_their_keys_each_for_itself() -> None:
    first, second = letter(1, "a"), letter(1, "b")._replace(dead_letter_id=200)
    bench = Bench(first, second)
    assert bench.held_keys == {"a", "b"}

    assert bench.listed(second) == {1: "b"}
    assert bench.held_keys == {"b"}
    bench.listed(first, second)
    assert bench.held_keys == {"a", "b"}
    bench.orders.on_told(Fetched([], 0, replays=[replay_of(1, "c", 200)]))
    assert bench.held_keys == {"a", "c"}, "the other one keeps its key"


def test_a_dead_letter_that_nobody_knew_holds_its_key_and_what_waited_behind_it_leaves_memory() -> None:
    bench = Bench()
    sent, waiting = record(5, key="a"), record(6, key="a")
    bench.state.ledger.enter([sent, waiting])
    assert bench.state.gate.admit([sent, waiting]) == [sent]

    assert bench.listed(letter(1, "a")) == {1: "a"}
    assert list(bench.state.ledger.records) == [5]


@pytest.mark.parametrize("unknown", [letter(1, "a", replaying=True), letter(1, None), letter(2, "b")])
def test_what_is_told_apart_or_in_memory_or_has_no_key_is_not_taken_in(unknown: KeyHolder) -> None:
    bench = Bench()
    bench.state.ledger.enter([record(2, key="b")])

    assert bench.listed(unknown) == {}


def replay_of(outbox_id: int, key: str, dead_letter_id: int) -> DueReplay:
    return DueReplay(dead_letter_id, outbox_id, TOPIC, key, 1)


def test_of_replays_whose_rows_had_the_same_id_one_waits_for_the_other_and_nothing_is_loaded_anew() -> None:
    bench = Bench()
    told = Fetched([], 0, replays=[replay_of(1, "a", 10), replay_of(1, "b", 11)])

    assert not bench.orders.on_told(told), "the second is to be listed again"
    assert [held.key for held in bench.state.held.by_id.values()] == ["a"]
    assert not bench.state.wants_reload

    bench.orders._release_held(bench.state.held.by_id[1])
    assert bench.orders.on_told(Fetched([], 0, replays=[replay_of(1, "b", 11)]))
    assert [held.key for held in bench.state.held.by_id.values()] == ["b"]


def test_a_replay_waits_for_the_retry_of_a_row_that_was_given_its_id() -> None:
    bench = Bench(KeyHolder(1, TOPIC, "a", 1, None, replaying=False, due_in_seconds=5.0))

    assert not bench.orders.on_told(Fetched([], 0, replays=[replay_of(1, "b", 10)]))
    assert bench.state.held.by_id[1].state is HeldState.SCHEDULED
    assert not bench.state.wants_reload


def of_a_storm(outbox_id: int, topic: str, *, attempts: int = 0) -> KeyHolder:
    return KeyHolder(
        outbox_id, topic, "k", attempts, None, replaying=False, due_in_seconds=0.0, error_code="MSG_SIZE_TOO_LARGE"
    )


def test_a_topic_that_stormed_under_an_owner_before_is_tried_with_care_unless_it_is_held_for_that_still() -> None:
    holders = [of_a_storm(1, "resumed"), of_a_storm(2, "held"), of_a_storm(3, "ordinary", attempts=1), letter(4, "a")]
    bench = Bench(*holders)
    note = storm_note(fault_of(KafkaError.MSG_SIZE_TOO_LARGE))
    pauses = [Pause("held", 0, "daemon", note), Pause("res*", 0, "somebody", "for the night")]
    bench.orders.try_stormed(Loaded(holders, pauses, 0))
    assert bench.events == [("breaker_opened", "resumed")]
    assert bench.state.lanes.storms.untried() == {"resumed": KafkaError.MSG_SIZE_TOO_LARGE}


def test_a_replay_that_was_changed_before_it_went_has_all_loaded_anew() -> None:
    bench = Bench()
    assert bench.orders.on_told(Fetched([], 0, replays=[replay_of(1, "a", 10)]))
    assert bench.orders.on_told(Fetched([], 0, replays=[replay_of(1, "b", 10)]))
    assert bench.state.wants_reload


@pytest.mark.parametrize("is_replay", [False, True])
def test_a_held_record_that_somebody_took_away_frees_its_key_and_is_nobodys_probe_any_more(*, is_replay: bool) -> None:
    """A replay that was taken back may hold its key as a dead letter, which only another load can tell."""
    holder = letter(1, "a", replaying=True) if is_replay else letter(1, "a")._replace(dead_letter_id=None)
    bench = Bench(holder)
    state = bench.state
    state.in_doubt.update({1, 2})
    state.lanes.breakers.trip(TOPIC, fault_of(29), "denied", bench.now)
    state.lanes.breakers.probing(TOPIC, 1)
    assert bench.held_keys == {"a"}

    bench.orders.on_vanished(state.held.by_id[1])

    assert (len(state.held), bench.held_keys) == (0, set())
    assert state.in_doubt == {2}
    assert state.lanes.breakers.open[TOPIC].probing_id is None
    assert state.wants_reload is is_replay
    settlement = state.settling.take()
    assert (None if settlement is None else settlement.out_of_retry) == (None if is_replay else [1])
    assert state.aftermath.histories.own_age_seconds(record(1, topic=TOPIC), bench.now + 9.0) == 0.0


def test_a_retry_that_is_due_is_wanted_and_one_that_is_asked_for_already_is_not_asked_for_twice() -> None:
    retries = [letter(each, str(each))._replace(dead_letter_id=None, due_in_seconds=60.0) for each in (1, 2, 3)]
    bench = Bench(*retries)
    held = bench.state.held
    held.asked([held.by_id[2]])

    assert bench.orders.on_told(Fetched([], 0, due_ids=[1, 2, 99]))

    states = [held.by_id[each].state for each in (1, 2, 3)]
    assert states == [HeldState.WANTED, HeldState.ASKED, HeldState.SCHEDULED]
    assert [each.id for each in held.choose(10, (), ())] == [1]


def test_a_replay_that_is_not_taken_now_is_told_as_such_so_that_nobody_takes_the_outbox_for_empty() -> None:
    bench = Bench()
    bench.state.ledger.enter([record(2, topic=TOPIC)])
    taken, in_memory, behind = replay_of(1, "a", 101), replay_of(2, "b", 102), replay_of(3, "c", 103)

    assert bench.orders.on_told(Fetched([], 0, replays=[taken]))
    assert not bench.orders.on_told(Fetched([], 0, replays=[in_memory, taken]))
    assert not bench.orders.on_told(Fetched([], 0, replays=[behind._replace(is_behind=True), taken]))

    assert [(held.id, held.state) for held in bench.state.held.by_id.values()] == [(1, HeldState.WANTED)]
    assert bench.held_keys == {"a"}


def test_where_there_is_no_room_for_more_replays_a_dead_letter_that_holds_its_key_is_replayed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outboxd.relay.memory.held_records.REPLAYS_MAX", 1)
    bench = Bench(letter(1, "a"))
    assert bench.orders.on_told(Fetched([], 0, replays=[replay_of(5, "x", 105)]))

    bench.orders.on_told(Fetched([], 0, replays=[replay_of(1, "a", 101), replay_of(7, "y", 107)]))

    assert sorted(bench.state.held.by_id) == [1, 5]
    assert len(bench.state.held.letters) == 0


def test_a_new_owner_goes_on_with_a_retry_where_the_one_before_stood_but_for_a_pause_longer_than_any() -> None:
    bench = Bench()
    loaded = KeyHolder(1, TOPIC, "a", 3, None, False, 5.0, own_age_seconds=40.0, waited_seconds=60.0)
    bench.orders.hold(loaded, 100.0)
    bench.orders.hold(loaded._replace(outbox_id=2, key="b", due_in_seconds=1e9), 100.0)

    retry, far = bench.state.held.by_id[1], bench.state.held.by_id[2]
    assert (retry.state, retry.due_at, retry.waits_since) == (HeldState.SCHEDULED, 105.0, 40.0)
    assert (retry.history.attempts, retry.why, retry.key) == (3, "retry", "a")
    assert far.due_at == 100.0 + Route().retry.backoff_max_seconds
    assert bench.state.aftermath.histories.own_age_seconds(record(1, topic=TOPIC), 110.0) == 50.0


def test_a_dead_letter_that_is_loaded_does_not_age() -> None:
    bench = Bench()
    bench.orders.hold(letter(1, "a")._replace(own_age_seconds=40.0), 100.0)

    assert [held.why for held in bench.state.held.letters] == ["dead letter"]
    assert bench.state.aftermath.histories.own_age_seconds(record(1, topic=TOPIC), 110.0) == 0.0
