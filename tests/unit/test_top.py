"""`outboxd top`: what a frame shows of a canned status, in terminals of every size, and what it makes of latencies."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any, cast

import pytest
from rich.console import Console

from outboxd.cli.top.frame import frame
from outboxd.cli.top.latency import latency_between, measured
from outboxd.cli.top.look import Latency, Look, Told, look_of_daemon, look_of_database
from outboxd.cli.top.source import Source
from outboxd.cli.top.sparkline import sparkline
from outboxd.config import load
from outboxd.observability.metrics import Metrics
from outboxd.observability.status import Backlog, StatusBoard
from outboxd.postgres.operators.overview import HeldKey, LeaseFacts, Overview
from outboxd.postgres.operators.pauses import PausedTopics
from outboxd.relay.memory.held_record import HeldState
from outboxd.relay.status import BreakerStatus, HeldStatus, HeldTopicStatus, PauseStatus, RelayStatus

NO_BROKER = (
    "Kafka does not answer: _TRANSPORT: 10.0.0.17:9092/bootstrap: Connect to ipv4#10.0.0.17:9092 failed: Connection "
    "refused (in state CONNECT); nothing listens there: look at the address and the port in bootstrap.servers, and "
    "whether the broker runs"
)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BUSY = RelayStatus(
    role="owner", token=7, turns=1, in_memory_rows=5_000, in_memory_bytes=3 << 20, unsettled_rows=4_200,
    unsettled_bytes=2 << 20, in_flight_rows=4_200,
    in_flight_by_topic={"orders": 4_200}, settling_rows=800, oldest_in_memory_seconds=0.2, held_records=1, held_keys=3,
    held=[HeldStatus(17, "orders", "customer-9", "waiting", "REQUEST_TIMED_OUT", 4, 12.0, 8.0, None)],
    breakers_open=1,
    breakers=[BreakerStatus("payments", "TOPIC_AUTHORIZATION_FAILED", "no ACL lets it write", 95.0, 3, None)],
    topics_held=1, held_topics=[HeldTopicStatus("payments", ["breaker"])],
    pauses=[PauseStatus("metrics.*", 0, "anna", "too loud")], deferred_keys=0, deferred_topics=0, topics=2,
)  # fmt: skip
DATABASE_ALONE = Overview(
    now=NOW, pending=100_001, pending_estimate=5_234_567, oldest_pending_at=NOW - timedelta(seconds=300), in_retry=2,
    next_retry_at=None, replaying=0, dead_by_topic={"orders": 4}, held_keys=1,
    held_keys_listed=[
        HeldKey("orders", "customer-9", "dead letter", NOW - timedelta(hours=3), 17, "MSG_SIZE_TOO_LARGE")
    ],
    lease=LeaseFacts("host:1", 3, NOW - timedelta(days=3), NOW - timedelta(minutes=4), False),
    paused=[PausedTopics("metrics.*", NOW - timedelta(days=2), "anna", None)],
)  # fmt: skip


@pytest.fixture
def busy() -> Look:
    """What a daemon with every kind of trouble tells, as its page would."""
    board = StatusBoard(outbox="shop", daemon="host:42", monotonic=lambda: 100.0, wall=lambda: 5_000.0)
    board.publish(BUSY)
    board.delivered(900, 9_000, "orders")
    board.measured(Backlog(10_000, True, 61.0, 12, False, 5, 100.0, 1_234_567))
    board.database_answers(True)
    board.kafka_answers(False, "all brokers are down")
    status = board.as_dict()
    former = {**status, "at": 4_990.0, "published_by_topic": {"orders": 400}}
    points = [[4_000.0 + second, float(second % 60), 1.0, 0.5, 3] for second in range(600)]
    told = Told(status, points, {"orders": 12})
    return look_of_daemon(told, "the page of host:42", Told(former), Latency(0.004, 0.021, "in the last 10 s"))


def shown(look: Look, columns: int = 120, lines: int = 50, *, plain: bool = False, fits: bool = True) -> str:
    out = io.StringIO()
    console = Console(file=out, width=columns, color_system=None, legacy_windows=False)
    console.print(frame(look, columns=columns, lines=lines, plain=plain, fits=fits))
    return out.getvalue()


def test_rows_that_wait_for_their_time_have_no_age() -> None:
    look = look_of_database(replace(DATABASE_ALONE, oldest_pending_at=None), "default", "the database")
    assert "about 5,200,000 pending, 2 in retry" in shown(look)


@pytest.mark.parametrize(
    "told",
    [
        "4.0 ms, p99 21 ms commit to ack, in the last 10 s",
        "4,200 rows at the broker, 5,000 in memory (3.0 MiB)",
        "about 1,200,000 pending, the oldest for 61 s, 5 in retry",
        "12 dead letters (outboxd dead summary)",
        "Kafka does not answer: all brokers are down",
        "TOPIC_AUTHORIZATION_FAILED: no ACL lets it write (probing now, 3 probes failed)",
        "held keys: 3",
        "orders customer-9",
        "waiting: REQUEST_TIMED_OUT (row 17, attempt 4, due in 8 s)",
        "by anna: too loud",
        "the last 5 min, at most 59 rows/s",
        "▁",
    ],
)
def test_a_frame_tells_what_flows_what_waits_and_why(busy: Look, told: str) -> None:
    assert told in shown(busy)


def test_a_topic_has_its_rate_since_the_look_before_and_its_dead_letters(busy: Look) -> None:
    (line,) = [line for line in shown(busy).splitlines() if line.startswith("orders ") and "customer" not in line]
    assert line.split() == ["orders", "50", "4,200", "900", "12"]


def test_a_topic_on_hold_comes_first_and_says_so(busy: Look) -> None:
    assert [(topic.name, topic.state) for topic in busy.topics] == [("payments", "breaker"), ("orders", "")]


@pytest.mark.parametrize("columns", [10, 20, 39, 80, 200])
@pytest.mark.parametrize("lines", [1, 10, 24, 60])
def test_no_terminal_is_too_small(busy: Look, columns: int, lines: int) -> None:
    text = shown(busy, columns, lines)
    assert "outbox" in text
    assert all(len(line) <= columns for line in text.splitlines())


@pytest.mark.parametrize("plain", [False, True])
def test_without_a_terminal_nothing_is_wrapped_or_cut(busy: Look, plain: bool) -> None:
    long = "/".join(["part"] * 500)
    held = [replace(busy.held[0], what=f"what:{long}", why=f"why:{long}")]
    look = replace(busy, state=f"state:{long} and more", troubles=[f"trouble:{long}"], held=held)
    text = shown(look, columns=100_000, lines=10_000, plain=plain, fits=False)
    for told in (f"state:{long} and more", f"trouble:{long}", f"what:{long}", f"why:{long}"):
        assert any(told in line for line in text.splitlines())
    (sparks, *_) = [line for line in text.splitlines() if line.startswith("rate")][1:]
    assert len(sparks) <= 160


@pytest.mark.parametrize("columns", [80, 100_000])
def test_what_a_table_is_called_stays_one_line_where_its_rows_are_shorter(busy: Look, columns: int) -> None:
    short = [replace(busy.pauses[0], what="a", why="by b")]
    text = shown(replace(busy, pauses=short), columns=columns, fits=columns == 80)
    (title,) = [line for line in text.splitlines() if line.startswith("paused")]
    assert title == "paused until `outboxd resume`"


def test_a_held_row_without_a_key_is_not_one_whose_key_the_page_hides() -> None:
    board = StatusBoard()
    board.publish(BUSY)
    told = board.as_dict()
    (held,) = told["relay"]["held"]
    told["relay"]["held"] = [held | {"key": None}, held | {"key": ""}, held | {"key": None, "key_is_hidden": True}]
    keyless, empty, hidden = look_of_daemon(Told(told), "its page").held
    assert (keyless.what, empty.what) == ("orders without a key", 'orders ""')
    assert hidden.what == "orders a key that this page keeps to itself"


@pytest.mark.parametrize("state", HeldState)
def test_where_a_held_record_stands_is_told_in_words_for_people(state: HeldState) -> None:
    status = StatusBoard(outbox="shop", daemon="host:42").as_dict()
    held = [asdict(HeldStatus(17, "orders", "k", state.value, "storm guard", 0, 12.0, None, None))]
    (told,) = look_of_daemon(Told({**status, "relay": {"held": held}}), "its page").held
    words = told.why.partition(": storm guard (row 17)")[0]
    assert words
    assert words != state.value
    page = (resources.files("outboxd.web") / "page.html").read_text()
    assert f'{state.value}: "{words}"' in page


def test_what_does_not_fit_is_counted(busy: Look) -> None:
    many = [replace(busy.held[0], what=f"orders customer-{number}") for number in range(70)]
    lines = shown(replace(busy, held=many), lines=40).splitlines()
    assert len(lines) <= 40
    assert any(line.startswith("held keys: 3, ") and line.rstrip().endswith(" more") for line in lines)


def test_nothing_that_came_from_outside_drives_the_terminal(busy: Look) -> None:
    evil = replace(busy.held[0], what="orders \x1b[2J\u202eevil", why="\x07[red]why[/red]")
    text = shown(replace(busy, state="\x1b]0;owned\x07", held=[evil]))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[red]why[/red]" in text


@pytest.mark.parametrize("columns", [10, 40, 80, 120])
def test_a_plain_terminal_gets_ascii_alone(busy: Look, columns: int) -> None:
    assert shown(busy, columns, plain=True).isascii()


def test_the_state_is_not_cut_where_a_second_line_does(busy: Look) -> None:
    first, second = shown(busy, columns=80).splitlines()[1:3]
    told = f"{first.strip().removeprefix('state').strip()} {second.strip()}"
    assert told == busy.state
    assert "1 topic on hold (payments: TOPIC_AUTHORIZATION_FAILED)" in told


def test_without_a_daemon_the_database_says_what_it_knows_and_that_it_knows_less() -> None:
    text = shown(look_of_database(DATABASE_ALONE, "shop", "the database; no daemon's page answers"))
    assert "nobody relays it: the lease of host:1 ended 4 min ago" in text
    assert "the database; no daemon's page answers" in text
    assert "about 5,200,000 pending, the oldest for 5 min, 2 in retry" in text
    assert "unknown: only a daemon's page tells it" in text
    assert "dead letter: MSG_SIZE_TOO_LARGE (row 17)" in text


def test_a_daemon_that_has_just_started_has_a_frame() -> None:
    status = StatusBoard(outbox="shop", daemon="host:42").as_dict()
    text = shown(look_of_daemon(Told(status), "its page"))
    assert "starting" in text
    assert "not measured yet" in text


class Page:
    """Whatever has the daemon's port."""

    base = "http://127.0.0.1:9464"

    def __init__(self, status: dict[str, Any]) -> None:
        self.told = status

    def status(self) -> dict[str, Any]:
        return self.told

    def json(self, _path: str) -> object:
        return self.told.get("points")

    def ask(self, _path: str) -> None: ...


def look_at(page: Page, monkeypatch: pytest.MonkeyPatch) -> Look:
    monkeypatch.setattr("outboxd.postgres.operators.overview.look", lambda *_: DATABASE_ALONE)
    source = Source(load(env={}), lambda: cast(Any, None))
    source._page = cast(Any, page)
    return source.look()


def test_a_page_of_this_version_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    board = StatusBoard(outbox="default", daemon="host:42")
    board.publish(BUSY)
    look = look_at(Page({**board.as_dict(), "points": [[4_000.0, 1, 1.0, 0.5, 3]]}), monkeypatch)
    assert look.source == "the page of host:42 at http://127.0.0.1:9464"
    assert [each.what for each in look.breakers] == ["payments"]


@pytest.mark.parametrize(
    "other",
    [
        {"relay": [1]}, {"relay": {"breakers": 5}}, {"relay": {"in_flight_rows": "many"}}, {"rates": None},
        {"rates": {"one_second": "x", "ten_seconds": 0, "ten_minutes": 0}}, {"lag_seconds": float("inf")},
        {"state": None}, {"backlog": {}}, {"points": [[1]]}, {"published_by_topic": {"orders": "x"}}, {"at": None},
    ],
)  # fmt: skip
def test_a_page_of_another_form_is_no_bug_and_the_database_is_looked_at(
    other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Page({**StatusBoard(outbox="default", daemon="host:42").as_dict(), "relay": {}, **other})
    if "at" in other:
        page.told["relay"] = {"pauses": [{"topic_pattern": "*", "since_ms": 0, "who": "anna", "note": None}]}
    look = look_at(page, monkeypatch)
    assert look.source == f"the database; the page at {page.base} is of another form than this version's"
    assert "about 5,200,000 pending" in shown(look)


def test_latencies_are_those_of_the_rows_acknowledged_in_between() -> None:
    from prometheus_client import generate_latest

    metrics = Metrics(StatusBoard())
    metrics.commit_to_ack.observe(30.0, 1_000)
    before = measured(generate_latest(metrics.registry))
    metrics.commit_to_ack.observe(0.004, 98)
    metrics.commit_to_ack.observe(0.2, 2)
    metrics.set_dead_letters({"orders": 3})
    after = measured(generate_latest(metrics.registry))
    found = latency_between(before, after, "now")
    assert found is not None
    assert 0.0025 <= found.p50_seconds <= 0.005
    assert 0.1 <= found.p99_seconds <= 0.25
    assert after.dead_by_topic == {"orders": 3}
    assert latency_between(after, after, "now") is None
    assert latency_between(after, before, "a daemon that was restarted counts anew") is None


@pytest.mark.parametrize("metrics", [None, b"", b"\xff\xfe", b'outboxd_commit_to_ack_seconds_bucket{le="x"} 1\n'])
def test_metrics_that_make_no_sense_measure_nothing(metrics: bytes | None) -> None:
    assert measured(metrics).rows_up_to == {}


def test_a_sparkline_keeps_its_peaks_and_its_zeros() -> None:
    assert sparkline([0, 1, 2, 7], 10) == "▁▂▃█"
    assert sparkline([0.0] * 50 + [9.0] + [0.0] * 49, 10) == "▁▁▁▁▁█▁▁▁▁"
    assert sparkline([0, 0], 10) == "▁▁"
    assert sparkline([], 10) == ""
    assert sparkline([1.0], 0) == ""


@pytest.mark.parametrize("lines", [16, 24, 50])
def test_what_is_wrong_and_what_to_do_about_it_is_not_cut_in_a_narrow_terminal(busy: Look, lines: int) -> None:
    state = "relaying, 0 rows/s, lag 14 min, Kafka does not answer, 1 topic on hold (payments: breaker), 3 keys held"
    text = shown(replace(busy, state=state, troubles=[NO_BROKER]), columns=80, lines=lines)
    read = " ".join(text.split())
    assert state in read
    assert NO_BROKER in read


def test_a_pause_of_the_storm_guard_is_not_called_one_of_operators(busy: Look) -> None:
    text = shown(busy)
    assert "paused until `outboxd resume`" in text
    assert "operators" not in text
