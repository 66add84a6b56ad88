"""`outboxd status` says of each topic on hold why, for how long, and what happens next."""

from __future__ import annotations

from typing import Any

from outboxd.cli.status import on_hold


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
