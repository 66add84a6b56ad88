"""Housekeeping's decisions: when it stops, rests and tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from outboxd.daemon.wiring import CONNECTIONS
from outboxd.errors import DatabaseUnavailableError
from outboxd.maintenance.gauges import Gauges
from outboxd.maintenance.jobs import Jobs
from outboxd.maintenance.purge import LeftoversPurge, Pace, PublishedPurge
from outboxd.observability.metrics import Metrics
from outboxd.observability.status import StatusBoard
from outboxd.policy.rows.records import FIRST_ID
from outboxd.postgres.upkeep.housekeeping import COUNTED_MAX, Kind, Measured, Walked
from outboxd.web.app import QUERIES_MAX
from tests.support.children import wait_for
from tests.unit.test_status_board import IDLE, Clock

DEADLINE_SECONDS = 10


class Store:
    """An outbox in memory: ids with the age of their publishing, None while pending."""

    def __init__(self, ages: dict[int, float | None] | None = None) -> None:
        self.ages = dict(ages or {})
        self.cursors: list[int] = []
        self.resolved = self.untimed = self.orphans = self.starts = 0
        self.found = Measured(0, 0, 0.0, 0, ())
        self.problem: Exception | None = None
        self.measured = threading.Semaphore(0)
        self.after_batch: Callable[[], None] = lambda: None

    def remove_published(self, cursor: int, rows_max: int, retention_seconds: float) -> Walked:
        self.cursors.append(cursor)
        seen = sorted(row_id for row_id in self.ages if row_id > cursor)[:rows_max]
        due = [row_id for row_id in seen if (self.ages[row_id] or 0) > retention_seconds]
        for row_id in due:
            del self.ages[row_id]
        kept = [row_id for row_id in seen if row_id not in due]
        self.after_batch()
        return Walked(len(due), seen[-1] if seen else cursor, kept[0] if kept else None, len(seen) < rows_max)

    def time_resolved(self, rows_max: int) -> int:
        taken = min(rows_max, self.untimed)
        self.untimed -= taken
        return taken

    def remove_resolved(self, rows_max: int, retention_seconds: float) -> int:
        taken = min(rows_max, self.resolved)
        self.resolved -= taken
        return taken

    def remove_orphaned_retries(self, rows_max: int) -> int:
        taken = min(rows_max, self.orphans)
        self.orphans -= taken
        return taken

    def remove_old_starts(self, rows_max: int) -> int:
        taken = min(rows_max, self.starts)
        self.starts -= taken
        return taken

    def measure(self) -> Measured:
        self.measured.release()
        if self.problem is not None:
            raise self.problem
        return self.found


def pace(stop: threading.Event | None = None, may_go_on: Callable[[], bool] = lambda: True, **options: Any) -> Pace:
    return Pace(stop or threading.Event(), may_go_on, rest_share=0.0, **options)


# The purge.


def test_the_purge_walks_to_the_end_in_batches() -> None:
    ages: dict[int, float | None] = dict.fromkeys(range(1, 11), 100.0)
    store = Store({**ages, 11: None, 12: 1.0})
    assert PublishedPurge(store, pace(), batch_rows=4).run(10.0) == 10
    assert sorted(store.ages) == [11, 12]
    assert store.cursors == [FIRST_ID, 4, 8, 12]


def test_the_next_walk_begins_at_the_first_row_that_stayed_and_once_an_hour_at_the_very_first() -> None:
    clock, store = Clock(), Store({5: None, 6: 100.0})
    purge = PublishedPurge(store, pace(), batch_rows=10, monotonic=clock)
    purge.run(10.0)
    purge.run(10.0)
    purge.run(10.0)
    clock.now += 3_601
    purge.run(10.0)
    purge.run(10.0)
    assert store.cursors == [FIRST_ID, FIRST_ID, 4, 4, FIRST_ID]


def test_a_walk_that_its_time_cuts_short_goes_on_at_the_next_run() -> None:
    clock, store = Clock(), Store(dict.fromkeys(range(1, 11), 100.0))

    def pass_time() -> None:
        clock.now += 30

    store.after_batch = pass_time
    purge = PublishedPurge(store, pace(run_seconds_max=40, monotonic=clock), batch_rows=2)
    assert purge.run(10.0) == 4
    assert purge.run(10.0) == 4
    assert store.cursors == [FIRST_ID, 2, 4, 6]


def test_a_daemon_that_loses_the_outbox_stops_removing() -> None:
    store = Store(dict.fromkeys(range(1, 11), 100.0))
    answers = iter([True, True, False])
    assert PublishedPurge(store, pace(may_go_on=lambda: next(answers)), batch_rows=2).run(10.0) == 4


def test_a_stop_ends_the_purge_even_while_it_rests() -> None:
    stop, store = threading.Event(), Store(dict.fromkeys(range(1, 11), 100.0))
    clock = Clock()

    def slow() -> None:
        clock.now += 1_000
        stop.set()

    store.after_batch = slow
    began_at = time.monotonic()
    PublishedPurge(store, Pace(stop, rest_share=2.0, run_seconds_max=1e9, monotonic=clock), batch_rows=2).run(10.0)
    assert store.cursors == [FIRST_ID]
    assert time.monotonic() - began_at < DEADLINE_SECONDS


def test_zero_keeps_for_ever() -> None:
    store = Store({1: 1e9})
    store.resolved = store.orphans = 3
    assert PublishedPurge(store, pace()).run(0.0) == 0
    assert LeftoversPurge(store, pace()).run(0.0) == {"retry": 3, "start": 0}
    assert store.resolved == 3


def test_leftovers_go_in_batches() -> None:
    store = Store()
    store.resolved, store.untimed, store.orphans, store.starts = 25, 35, 10, 1
    assert LeftoversPurge(store, pace(), batch_rows=10).run(1.0) == {"retry": 10, "start": 1, "dead_letter": 25}
    assert store.untimed == 0


# The gauges.


@dataclass
class Watched:
    """Gauges over a store, with all that they tell."""

    store: Store
    clock: Clock
    board: StatusBoard
    metrics: Metrics
    events: list[tuple[str, dict[str, object]]]
    gauges: Gauges
    owns: bool = True

    def run(self, *kinds: Kind, **changes: Any) -> None:
        found = {"pending": 0, "oldest_pending_seconds": 0.0, "in_retry": 0, "kinds": kinds, **changes}
        self.store.found = Measured(**{"pending_estimate": found["pending"], **found})
        self.gauges.run()

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"outboxd_{name}", labels)


@pytest.fixture
def watched() -> Watched:
    clock, store, events = Clock(), Store(), list[tuple[str, dict[str, object]]]()
    board = StatusBoard(monotonic=clock, wall=clock)
    metrics = Metrics(board)

    def event(name: str, **fields: object) -> None:
        events.append((name, fields))

    made = Watched(store, clock, board, metrics, events, gauges=None)  # type: ignore[arg-type]  # set in the next line
    made.gauges = Gauges(store, board, metrics, event, schema="Out box", is_owner=lambda: made.owns, monotonic=clock)
    return made


def test_what_was_counted_is_on_the_board_and_in_the_metrics(watched: Watched) -> None:
    watched.run(Kind("a", "X", 2, 7), Kind("a", "Y", 1, 8), pending=5, oldest_pending_seconds=9.0, in_retry=3)
    assert (watched.value("pending_records"), watched.value("oldest_pending_age_seconds")) == (5, 9)
    assert watched.value("dead_letter_records", topic="a") == 3
    backlog = watched.board.backlog
    assert (backlog.pending, backlog.dead, backlog.in_retry, backlog.dead_is_more) == (5, 3, 3, False)
    assert watched.board.database.is_up


def test_counts_beyond_the_bound_say_so(watched: Watched) -> None:
    watched.run(Kind("a", "X", COUNTED_MAX, 7, is_more=True), pending=COUNTED_MAX + 1, pending_estimate=1_234_567)
    backlog = watched.board.backlog
    assert (backlog.pending, backlog.pending_is_more, backlog.dead_is_more) == (COUNTED_MAX, True, True)
    assert (backlog.pending_estimate, watched.value("pending_records")) == (1_234_567, 1_234_567)


def test_dead_letters_of_kinds_that_are_not_told_apart_are_counted_as_other(watched: Watched) -> None:
    watched.run(Kind("a", "X", 2, 7), other_dead=2_800)
    assert watched.value("dead_letter_records", topic="_other") == 2_800
    assert (watched.board.backlog.dead, watched.board.backlog.dead_is_more) == (2_802, False)
    watched.run(Kind("a", "X", 2, 7), other_dead=50_000, other_dead_is_more=True)
    assert watched.board.backlog.dead_is_more


def test_a_new_kind_of_dead_letter_is_told_once_with_a_sample_and_the_sql(watched: Watched) -> None:
    watched.run(Kind("old", "X", 2, 7))
    watched.run(Kind("old", "X", 3, 9), Kind("orders", "MSG_SIZE_TOO_LARGE", 4, 12))
    watched.run(Kind("old", "X", 3, 9), Kind("orders", "MSG_SIZE_TOO_LARGE", 5, 13))
    assert watched.events == [
        (
            "dead_letter_kind_appeared",
            {
                "topic": "orders",
                "error_code": "MSG_SIZE_TOO_LARGE",
                "count": 4,
                "sample_id": 12,
                "sql": 'SELECT * FROM "Out box".dead_letter_recent WHERE id = 12;',
            },
        )
    ]


def test_a_kind_that_was_resolved_and_comes_back_is_told_again(watched: Watched) -> None:
    for kinds in ((), (Kind("a", "X", 1, 1),), (), (Kind("a", "X", 1, 2),)):
        watched.run(*kinds)
    assert [fields["sample_id"] for _, fields in watched.events] == [1, 2]


def test_only_the_owner_tells(watched: Watched) -> None:
    watched.owns = False
    watched.run()
    watched.run(Kind("a", "X", 1, 1))
    watched.owns = True
    watched.run(Kind("a", "X", 2, 2))
    assert watched.events == []


def asked_at(watched: Watched, monkeypatch: pytest.MonkeyPatch, *took_seconds: float) -> list[float]:
    """When the gauges measured, run every 15 s, while measurements take this long one after the other."""
    asked: list[float] = []

    def measure() -> Measured:
        asked.append(watched.clock.now)
        watched.clock.now += took_seconds[len(asked) - 1]
        return Measured(0, 0, 0.0, 0, ())

    monkeypatch.setattr(watched.store, "measure", measure)
    while len(asked) < len(took_seconds):
        watched.gauges.run()
        watched.clock.now += 15
    return [now - asked[0] for now in asked]


def test_a_database_that_is_slow_to_count_is_asked_more_seldom(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_at(watched, monkeypatch, 2, 2, 2, 2) == [0, 17, 64, 111]


def test_a_measurement_that_waited_for_a_server_that_stood_still_does_not_delay_the_next(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_at(watched, monkeypatch, 0, 20, 0, 0) == [0, 15, 50, 65]


def test_however_slow_measurements_were_the_next_comes_soon_after_a_minute(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_at(watched, monkeypatch, 30, 30, 0, 0) == [0, 45, 135, 150]


def test_a_database_that_does_not_answer_a_standby_is_down_on_the_board(watched: Watched) -> None:
    watched.owns = False
    watched.store.problem = DatabaseUnavailableError("refused")
    with pytest.raises(DatabaseUnavailableError):
        watched.gauges.run()
    assert (watched.board.database.answers, watched.board.database.cause) == (False, "refused")


def test_what_an_owner_cannot_measure_is_no_reason_to_take_the_database_for_down(watched: Watched) -> None:
    watched.gauges.run()
    watched.store.problem = DatabaseUnavailableError("a lock on the dead letters")
    with pytest.raises(DatabaseUnavailableError):
        watched.gauges.run()
    assert watched.board.database.is_up


# The jobs.


class Running:
    """Jobs that run, with all that they tell."""

    def __init__(self, store: Store) -> None:
        self.board = StatusBoard()
        self.metrics = Metrics(self.board)
        self.events: list[tuple[str, dict[str, object]]] = []
        self.told = threading.Semaphore(0)
        self.now = 0.0
        self.wall_ahead = 1_000_000.0
        self.jobs = Jobs(
            store, self.board, self.metrics, self.event,
            schema="outboxd", published_retention_seconds=10.0, dead_letter_retention_seconds=10.0,
            wall=lambda: self.now + self.wall_ahead, monotonic=lambda: self.now,
        )  # fmt: skip

    def event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))
        self.told.release()


@pytest.fixture
def running() -> Iterator[Callable[[Store], Running]]:
    made: list[Running] = []

    def make(store: Store) -> Running:
        made.append(Running(store))
        return made[-1]

    yield make
    for each in made:
        each.jobs.stop()


def test_the_gauges_run_at_once(running: Callable[[Store], Running]) -> None:
    store = Store()
    running(store).jobs.start()
    assert store.measured.acquire(timeout=DEADLINE_SECONDS)


def test_all_jobs_run_at_once_where_the_wall_clock_was_set_back(running: Callable[[Store], Running]) -> None:
    store = Store()
    daemon = running(store)
    daemon.jobs.start()
    assert store.measured.acquire(timeout=DEADLINE_SECONDS)
    for ahead in (0.0, 0.5, 3_600.0, 3_600.0):
        daemon.now += 1.0
        daemon.wall_ahead = 1_000_000.0 + ahead
        daemon.jobs.follow_clock()
    assert not store.measured.acquire(blocking=False)

    def ran_once_set_back() -> bool:
        daemon.now += 1.0
        daemon.wall_ahead -= 3_600.0
        daemon.jobs.follow_clock()
        # One whose former run has not quite ended is left out.
        return store.measured.acquire(timeout=DEADLINE_SECONDS / 10)

    wait_for(ran_once_set_back, timeout_seconds=DEADLINE_SECONDS, what="the gauges ran at once")


def test_every_job_has_a_connection_beside_the_relays_and_the_pages() -> None:
    board = StatusBoard()
    store, port = Store(), cast(Any, None)
    jobs = Jobs(
        store, board, Metrics(board), lambda *_, **__: None, copies=(port, port),
        schema="outboxd", published_retention_seconds=10.0, dead_letter_retention_seconds=10.0,
    )  # fmt: skip
    relays = ("fetch", "settle", "lease", "starts", "wake-up")
    asking = [job for job in jobs._scheduler.get_jobs() if job.id != "give_back_memory"]
    assert len(relays) + len(asking) + QUERIES_MAX == CONNECTIONS


def test_a_failing_job_is_logged_and_counted(running: Callable[[Store], Running]) -> None:
    store = Store()
    store.problem = RuntimeError("division by zero")
    daemon = running(store)
    daemon.jobs.start()
    assert daemon.told.acquire(timeout=DEADLINE_SECONDS)
    assert daemon.events == [("job_failed", {"job": "gauges", "cause": "RuntimeError: division by zero"})]
    assert daemon.metrics.registry.get_sample_value("outboxd_job_failures_total", {"task": "gauges"}) == 1


def test_only_the_owner_removes_and_what_was_removed_is_told(running: Callable[[Store], Running]) -> None:
    store = Store({1: 100.0, 2: 1.0})
    store.orphans = 2
    daemon = running(store)
    daemon.board.publish(replace(IDLE, role="standby", token=None))
    daemon.jobs.purge_published()
    daemon.jobs.purge_leftovers()
    assert daemon.events == []
    daemon.board.publish(IDLE)
    daemon.jobs.purge_published()
    daemon.jobs.purge_leftovers()
    assert daemon.events == [("purged", {"table": "outbox", "rows": 1}), ("purged", {"table": "retry", "rows": 2})]
    assert daemon.metrics.registry.get_sample_value("outboxd_purged_rows_total", {"table": "retry"}) == 2


def test_a_changed_retention_holds_at_the_next_run(running: Callable[[Store], Running]) -> None:
    store = Store({1: 5.0})
    daemon = running(store)
    daemon.board.publish(IDLE)
    daemon.jobs.purge_published()
    daemon.jobs.published_retention_seconds = 1.0
    daemon.jobs.purge_published()
    assert store.ages == {}
