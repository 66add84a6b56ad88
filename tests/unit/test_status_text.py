"""`outboxd status` says of each topic on hold why, for how long, and what happens next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from outboxd.cli.daemon_page import troubles
from outboxd.cli.status import _print, on_hold
from outboxd.postgres.operators.overview import Overview


def told(**changes: Any) -> dict[str, Any]:
    breaker = {
        "topic": "orders", "error_code": "UNKNOWN_TOPIC_OR_PART",
        "cause": "3 UNKNOWN_TOPIC_OR_PART at orders: not there", "open_seconds": 12.3, "next_probe_in_seconds": 3.6,
    }  # fmt: skip
    return {
        "relay": {
            "breakers": [{**breaker, **changes}],
            "held_topics": [
                {"topic": "orders", "reasons": ["breaker"]},
                {"topic": "audit", "reasons": ["paused"]},
                {"topic": "bills", "reasons": ["storm"]},
            ],
        }
    }


def test_a_topic_on_hold_is_named_with_its_cause_and_the_next_probe() -> None:
    first, second = on_hold(told())
    assert first == "orders: 3 UNKNOWN_TOPIC_OR_PART at orders: not there (for 12 s; next probe in 4 s)"
    assert second == "bills: many keys in a row failed for good; `outboxd resume` once it is mended"
    assert "(for 12 s; a probe is under way)" in on_hold(told(next_probe_in_seconds=None))[0]


def test_a_cause_from_elsewhere_drives_no_terminal() -> None:
    assert "\x1b" not in on_hold(told(cause="\x1b[2Jgone"))[0]


def test_a_daemon_that_does_not_relay_or_does_not_answer_holds_nothing() -> None:
    assert on_hold(None) == []
    assert on_hold({"state": "starting", "relay": None}) == []


def test_why_a_server_does_not_answer_the_daemon_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    full = {"up": False, "cause": "No space\x1b[2J left on device", "since": 1.0}
    daemon = {"state": "relaying, the database does not answer", "database": full, "kafka": {"up": True, "since": 1.0}}
    nothing = Overview(datetime.now(UTC), 0, 0, None, 0, None, 0, {}, 0, (), None, ())
    _print(nothing, "default", daemon)
    lines = capsys.readouterr().out.splitlines()
    (told,) = (line for line in lines if line.startswith("trouble"))
    assert "PostgreSQL does not answer: No space" in told
    assert "left on device" in told
    assert "\x1b" not in told


@pytest.mark.parametrize(
    "relay",
    [[1], {"breakers": 5}, {"held_topics": [{}]}, {"refused_rows": "9"}, told(open_seconds="x")["relay"]],
)
def test_an_answer_of_another_form_is_no_bug(capsys: pytest.CaptureFixture[str], relay: Any) -> None:
    nothing = Overview(datetime.now(UTC), 7, 7, None, 0, None, 0, {}, 0, (), None, ())
    _print(nothing, "default", {"state": "relaying", "relay": relay})
    out = capsys.readouterr().out
    assert "the rest of what it says cannot be read" in out
    assert "pending      7" in out


def test_a_server_that_was_not_asked_yet_is_no_trouble_and_neither_is_one_that_another_version_does_not_tell() -> None:
    unasked = {"up": False, "cause": "", "since": 0.0}
    assert troubles({"database": unasked}) == []
    assert troubles({"kafka": {**unasked, "since": 1.0}}) == ["Kafka does not answer"]


def test_an_owner_that_cannot_know_what_was_sent_before_says_why_it_sends_nothing() -> None:
    (told,) = troubles({"relay": {"recovery_failure": "the progress topic is not there"}})
    assert told == "nothing is sent until what was sent before is known: the progress topic is not there"
    assert troubles({"relay": None}) == []


def test_a_topic_that_is_stuck_while_brokers_answer_is_told_with_what_was_said_of_the_connections() -> None:
    relay = {"stalled_topics": {"orders": "refused", "audit": "silent"}}
    assert troubles({"relay": relay, "kafka": {"up": True, "cause": "", "since": 1.0}}) == [
        "the oldest record of topic orders gets no answer: refused",
        "the oldest record of topic audit gets no answer: silent",
    ]
    (told,) = troubles({"relay": relay, "kafka": {"up": False, "cause": "refused", "since": 1.0}})
    assert told == "Kafka does not answer: refused"
    assert troubles({"relay": {"stalled_topics": {}}}) == []


def test_that_rows_cannot_be_settled_is_told_with_the_cause_and_whether_all_else_waits() -> None:
    relay = {"refused_rows": 1_200, "refusal": "the row 7: row 7 is frozen", "waits_for_refused": False}
    said = "PostgreSQL refuses to settle rows that were sent (1,200)"
    assert troubles({"relay": relay}) == [f"{said}: the row 7: row 7 is frozen"]
    assert troubles({"relay": {**relay, "refusal": "", "waits_for_refused": True}}) == [
        f"{said}, and all else waits for that: the event row_not_settled in the log says why"
    ]
    assert troubles({"relay": {**relay, "refused_rows": 0}}) == []


def test_of_a_database_that_refuses_to_settle_nobody_says_that_it_does_not_answer() -> None:
    database = {"up": False, "cause": "row 2 is frozen", "since": 1.0, "refuses": True}
    relay = {"refused_rows": 3, "refusal": ""}
    assert troubles({"database": database, "relay": relay}) == [
        "PostgreSQL refuses to settle rows that were sent (3): row 2 is frozen"
    ]
