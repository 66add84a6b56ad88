"""When the walk over all pending records goes on, and when the next one begins."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from outboxd.policy.blame.routes import Route
from outboxd.policy.fetch.strides import SLOW_SECONDS, STRIDE_IDS, STRIDES_MAX
from outboxd.policy.rows.records import FIRST_ID
from outboxd.policy.topics.topic_holds import HoldReason
from outboxd.relay.fetch.sweeping import FOUND_ROWS_MAX, INTERVALS_MAX, SHARE, Sweeping
from outboxd.relay.ports import SweepRequest, Swept
from outboxd.relay.state import RelayLimits, State

INTERVAL_SECONDS = 5.0
POSITION = 1_000_000


class Now:
    """A clock that the test moves, and a state around it in which nothing is known."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.asked: list[SweepRequest] = []
        nothing = SimpleNamespace(
            fetch_begins=lambda: None, fetch_ended=lambda: None, want_overdue=lambda _now: None, knows=lambda _id: False
        )
        self.state = SimpleNamespace(
            ports=SimpleNamespace(
                clock=SimpleNamespace(monotonic=lambda: self.seconds),
                store=SimpleNamespace(begin_sweep=self.asked.append),
                observer=None,
            ),
            limits=SimpleNamespace(sweep_interval_seconds=INTERVAL_SECONDS),
            wishes=SimpleNamespace(cursors=SimpleNamespace(position=POSITION, retry=None, replay=0), found={}),
            gate=SimpleNamespace(deferred_keys={}),
            topics=SimpleNamespace(held={}, deferred={}),
            partitions=SimpleNamespace(deferred={}),
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
        self.sweeping.on_swept(Swept([], cursor, lasts))


def test_a_walk_that_an_outage_cut_in_two_does_not_put_off_the_next_one() -> None:
    now = Now()
    now.chunk(begins=5.0, lasts=0.01, cursor=100)
    now.chunk(begins=700.0, lasts=0.01, cursor=None)

    assert now.sweeping.next_at <= 700.0 + INTERVAL_SECONDS


def test_each_walk_begins_with_the_wish_to_see_what_holds_its_key() -> None:
    now = Now()
    for begins in (5.0, 20.0):
        now.state.wishes.wants_holding = False
        now.chunk(begins=begins, lasts=0.01, cursor=100)
        assert now.state.wishes.wants_holding
        now.state.wishes.wants_holding = False
        now.chunk(begins=begins, lasts=0.01, cursor=None)
        assert not now.state.wishes.wants_holding


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


def walk(now: Now, *, first_lasts: float, others_last: float) -> list[tuple[int, int]]:
    """Make one walk that finds nothing; return from where to where each of its chunks went. The first is what passes
    over ids from the first one on.
    """
    return walk_as(now, lambda request: first_lasts if request.cursor == FIRST_ID < request.position else others_last)


def beginning(chunks: list[tuple[int, int]]) -> int:
    """Return where the beginning of a walk ended."""
    return next(end for _, end in chunks if end > FIRST_ID)


def walk_as(now: Now, lasts: Callable[[SweepRequest], float]) -> list[tuple[int, int]]:
    """Make one walk that finds nothing, and whose statements last as told."""
    began, asked = now.sweeping.next_at, len(now.asked)
    now.seconds = began
    while now.sweeping.next_at == began:
        assert now.sweeping.sweep(now.seconds, gives_way=False)
        seconds = lasts(now.asked[-1])
        now.seconds += seconds
        now.sweeping.on_swept(Swept([], None, seconds))
    return [(request.cursor, request.position) for request in now.asked[asked:]]


def test_a_walk_is_one_statement_while_that_is_quick() -> None:
    now = Now()

    assert [walk(now, first_lasts=0.001, others_last=0.0) for _ in range(3)] == [[(FIRST_ID, POSITION)]] * 3


def test_after_a_slow_statement_the_next_walk_goes_the_last_part_of_its_way_in_strides() -> None:
    now = Now()
    walk(now, first_lasts=2 * SLOW_SECONDS, others_last=0.0)

    chunks = walk(now, first_lasts=0.001, others_last=SLOW_SECONDS / 2)

    far = POSITION - 2 * STRIDE_IDS
    assert chunks == [(FIRST_ID, FIRST_ID), (FIRST_ID, far), (far, far + STRIDE_IDS), (far + STRIDE_IDS, POSITION)]


def test_the_beginning_is_cut_further_from_the_position_until_it_is_quick() -> None:
    now = Now()
    walks = [walk(now, first_lasts=2 * SLOW_SECONDS, others_last=0.001) for _ in range(3)]

    assert [beginning(chunks) for chunks in walks] == [POSITION, POSITION - 2 * STRIDE_IDS, POSITION - 8 * STRIDE_IDS]


def test_strides_that_are_quick_are_passed_over_by_one_statement_again() -> None:
    now = Now()
    for _ in range(3):
        walk(now, first_lasts=2 * SLOW_SECONDS, others_last=0.001)

    walks = [walk(now, first_lasts=0.001, others_last=0.001) for _ in range(2)]

    assert [len(chunks) for chunks in walks] == [22, 1]


def test_strides_stay_where_there_is_much_to_pass_over_and_go_where_there_is_nothing() -> None:
    """A long row of dead ones ends at the position, and nothing but a bound on the walks says where it begins."""
    now = Now()
    dead_from, seconds_per_id = POSITION - 300_000, 0.06 / 300_000

    def lasts(request: SweepRequest) -> float:
        return 0.001 + seconds_per_id * max(0, request.position - max(dead_from, request.cursor))

    walks = [walk_as(now, lasts) for _ in range(8)]

    assert len(walks[0]) == 1
    assert 5 <= len(walks[-1]) <= 9
    assert max(map(lasts, now.asked[-len(walks[-1]) :])) <= SLOW_SECONDS
    assert walks[-1] == walks[-2] == walks[-3]


def test_a_statement_that_is_always_slow_is_not_given_more_often() -> None:
    """A slow network, or a busy database: strides would make nothing shorter."""
    now = Now()

    walks = [len(walk(now, first_lasts=0.04, others_last=0.04)) for _ in range(12)]

    assert walks == [1, 4] + [1] * 10


def test_after_a_slow_time_a_walk_is_one_statement_again() -> None:
    now = Now()
    while now.seconds < 90:
        walk(now, first_lasts=0.04, others_last=0.04)

    assert [len(walk(now, first_lasts=0.001, others_last=0.001)) for _ in range(3)] == [1, 1, 1]


def test_a_walk_has_a_limited_number_of_strides_whatever_was_slow() -> None:
    dice = random.Random(1)
    for position in (1_000, POSITION, 2**62):
        now = Now()
        now.state.wishes.cursors.position = position

        walks = [walk_as(now, lambda _request: dice.choice([0.001, 0.001, 0.3])) for _ in range(100)]

        assert max(map(len, walks)) <= STRIDES_MAX + 3
        assert all(beginning(chunks) >= 0 for chunks in walks)


def test_a_long_backlog_that_waits_is_walked_without_strides() -> None:
    """Of a paused topic: each statement shows as many rows as it may, and takes its time for them."""
    now = Now()
    for _ in range(3):
        began, asked = now.sweeping.next_at, len(now.asked)
        for cursor in (*range(20_000, 600_000, 20_000), None):
            now.chunk(begins=max(began, now.seconds), lasts=0.04 if cursor else 0.001, cursor=cursor)

        assert now.sweeping.next_at > began
        assert len(now.asked) - asked == 30


def test_a_position_that_went_back_ends_the_walk_there() -> None:
    now = Now()
    walk(now, first_lasts=2 * SLOW_SECONDS, others_last=0.0)
    began = now.sweeping.next_at
    now.chunk(begins=began, lasts=0.001, cursor=None)
    now.chunk(begins=now.seconds, lasts=0.001, cursor=None)
    now.state.wishes.cursors.position = 0
    now.chunk(begins=now.seconds, lasts=0.001, cursor=None)

    assert now.asked[-1].position == 0
    assert now.sweeping.next_at > began


# --- Ids that went back


class Swept1000:
    """A sweeping with its real memory, whose outbox was read up to id 1,000."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.events: list[tuple[str, dict[str, object]]] = []
        self.asked: list[SweepRequest] = []
        ports = SimpleNamespace(
            publisher=None,
            clock=SimpleNamespace(monotonic=lambda: self.seconds),
            store=SimpleNamespace(begin_sweep=self.asked.append),
            observer=SimpleNamespace(event=lambda name, **fields: self.events.append((name, fields))),
            dice=None,
        )
        self.state = State(cast(Any, ports), RelayLimits(), (), Route(), token=1)
        self.state.wishes.cursors.position = 1_000
        self.sweeping = Sweeping(self.state)

    def walk(self, *ids: int, cursor: int | None = None) -> None:
        """Make a walk, or its first chunk where `cursor` says that it goes on, which shows these."""
        self.seconds = max(self.seconds, self.sweeping.next_at)
        assert self.sweeping.sweep(self.seconds, gives_way=False)
        self.sweeping.on_swept(Swept([(one, "orders", None) for one in ids], cursor))

    @property
    def position(self) -> int:
        return self.state.wishes.cursors.position

    @property
    def went_back(self) -> list[dict[str, object]]:
        return [fields for name, fields in self.events if name == "reading_went_back"]


def test_few_rows_that_a_walk_finds_are_read_by_their_ids() -> None:
    bench = Swept1000()
    bench.walk(*range(1, FOUND_ROWS_MAX + 1))

    assert bench.position == 1_000
    assert list(bench.state.wishes.found) == list(range(1, FOUND_ROWS_MAX + 1))
    assert bench.events == [("late_rows_found", {"rows": FOUND_ROWS_MAX})]


def test_many_rows_that_a_walk_finds_are_read_forward_from_the_first_of_them() -> None:
    bench = Swept1000()
    bench.state.wishes.gaps.seen_below(100, 1_000, [*range(110, 800), 900, 1_000])

    bench.walk(*range(200, 200 + FOUND_ROWS_MAX + 1), cursor=900)

    request = bench.state.wishes.request(5_000, 1_000_000)
    assert request.position == 199
    assert (request.gap_lows, request.gap_highs) == ([101], [109])
    assert not request.chosen_ids
    assert bench.went_back == [{"from_id": 200, "position": 1_000}]


def test_rows_in_a_gap_are_left_to_the_look_back_and_are_no_sign_of_ids_that_went_back() -> None:
    bench = Swept1000()
    bench.state.wishes.gaps.seen_below(100, 1_000, [800, 1_000])

    for _ in range(2):
        bench.walk(*range(101, 800), 900)

    assert bench.position == 1_000
    assert not bench.state.wishes.found
    assert not bench.events


def test_rows_beside_a_gap_are_read_by_their_ids() -> None:
    bench = Swept1000()
    bench.state.wishes.gaps.seen_below(100, 1_000, [800, 1_000])

    bench.walk(100, 101, 799, 800, 801, 999, 1_000)

    assert list(bench.state.wishes.found) == [100, 800, 1_000]
    assert bench.events == [("late_rows_found", {"rows": 3})]


def test_where_rows_come_below_the_position_and_none_above_it_reading_goes_back_at_the_second_walk() -> None:
    bench = Swept1000()
    bench.walk(501)
    assert bench.position == 1_000
    bench.state.wishes.found.clear()
    bench.walk()
    bench.walk(502, 503)
    assert bench.position == 1_000, "one walk between them found nothing"
    bench.state.wishes.found.clear()

    bench.walk(505, 504)

    assert bench.position == 503
    assert bench.went_back == [{"from_id": 504, "position": 1_000}]


def test_where_rows_come_above_the_position_too_reading_does_not_go_back_for_few() -> None:
    bench = Swept1000()
    for number in range(1, 5):
        bench.walk(number)
        bench.state.wishes.cursors.position += 1

    assert bench.position == 1_004
    assert not bench.went_back


def test_no_chunk_is_looked_at_while_many_that_were_found_wait_to_be_read() -> None:
    bench = Swept1000()
    bench.walk(1, cursor=10)
    bench.state.wishes.found_by_sweep(range(2_000, 2_000 + FOUND_ROWS_MAX))

    assert not bench.sweeping.sweep(bench.seconds, gives_way=False)
    bench.state.wishes.found.clear()
    assert bench.sweeping.sweep(bench.seconds, gives_way=False)


def test_a_walk_ends_where_the_position_was_when_it_began() -> None:
    now = Now()
    now.chunk(begins=5.0, lasts=0.01, cursor=100)
    now.state.wishes.cursors.position = 2**62
    now.chunk(begins=5.1, lasts=0.01, cursor=None)

    assert [request.position for request in now.asked] == [POSITION, POSITION]
    assert now.sweeping.next_at > 5.2


def test_a_walk_that_waits_for_what_it_found_to_be_read_is_due_at_no_time() -> None:
    now = Now()
    now.chunk(begins=5.0, lasts=0.01, cursor=100)
    now.state.wishes.found = dict.fromkeys(range(FOUND_ROWS_MAX + 1))
    assert now.sweeping.deadline == float("inf")
    now.state.wishes.found.clear()
    assert now.sweeping.deadline <= 5.1


def test_a_walk_finds_what_came_below_the_position_of_a_held_topic_of_which_nothing_was_dropped() -> None:
    bench = Swept1000()
    bench.state.lanes.meet(["orders"])
    bench.state.topics.hold("orders", HoldReason.BREAKER, 0.0)

    bench.walk(7)
    assert list(bench.state.wishes.found) == [7]

    bench.state.wishes.found.clear()
    bench.state.topics.defer("orders", 7)
    bench.walk(7, 8)
    assert not bench.state.wishes.found
    assert [request.skipped_topics for request in bench.asked] == [{}, {"orders": 7}]


def test_a_walk_finds_what_came_of_a_topic_below_where_it_is_to_be_read_again() -> None:
    bench = Swept1000()
    bench.state.lanes.meet(["orders"])
    # It was read again up to here, towards a row of a high id, when it was held once more.
    bench.state.topics.hold("orders", HoldReason.BREAKER, 0.0)
    bench.state.topics.defer("orders", 500)

    bench.walk(7, 8, 500, 501)

    assert list(bench.state.wishes.found) == [7, 8]
