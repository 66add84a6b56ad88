"""The log tells everything once, hides secrets, and never makes the relay wait."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outboxd.config import load
from outboxd.daemon.daemon import Daemon
from outboxd.observability.logs import SECRETS_MAX, Log, choose_format, open_log

DEADLINE_SECONDS = 10


class Lines(list[Any]):
    """A sink that keeps what it gets, and can be blocked."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.taken = threading.Event()

    def write(self, line: Any) -> None:
        self.taken.set()
        assert self.open.wait(DEADLINE_SECONDS)
        self.append(line)


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    yield lines
    lines.open.set()


def test_a_json_line_has_name_level_time_sentence_and_fields(lines: Lines) -> None:
    log = Log(lines.write, "json")
    log.event(
        "breaker_closed", topic="orders", error_code="TOPIC_AUTHORIZATION_FAILED", open_seconds=1.5, then="goes on"
    )
    log.close()
    (line,) = lines
    told = json.loads(line)
    assert told.pop("timestamp").endswith("Z")
    assert told == {
        "event": "breaker_closed",
        "level": "info",
        "message": "The topic orders, on hold for TOPIC_AUTHORIZATION_FAILED for 1.5 s, goes on.",
        "topic": "orders",
        "error_code": "TOPIC_AUTHORIZATION_FAILED",
        "open_seconds": 1.5,
        "then": "goes on",
    }


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_gets_colours_unless_it_has_none_or_nobody_wants_them(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    shown, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stream:
        log = open_log("info", "console", stream=stream)
        log.event("database_answers")
        log.close()
        line = os.read(shown, 4_096).decode()
    os.close(shown)
    assert "PostgreSQL answers again." in line
    assert ("\x1b[" in line) is coloured


def test_a_journal_entry_has_the_sentence_a_priority_and_fields_in_capitals(lines: Lines) -> None:
    log = Log(lines.write, "journal")
    log.event("settle_mismatch", expected=5, matched=4)
    log.close()
    assert lines == [
        {
            "MESSAGE": "Rows that a settlement changed: 4, not 5; somebody else changed or deleted the others.",
            "PRIORITY": 4,
            "SYSLOG_IDENTIFIER": "outboxd",
            "OUTBOXD_EVENT": "settle_mismatch",
            "OUTBOXD_EXPECTED": "5",
            "OUTBOXD_MATCHED": "4",
        }
    ]


def test_a_console_line_begins_with_the_sentence_and_repeats_none_of_its_values(lines: Lines) -> None:
    log = Log(lines.write, "console")
    log.event("topic_paused", topic="orders")
    log.close()
    (line,) = lines
    assert "The topic orders is paused." in line
    assert "topic_paused" in line
    assert "topic=orders" not in line


def test_events_below_the_level_are_not_logged_and_the_level_can_change(lines: Lines) -> None:
    log = Log(lines.write, "json", "warning")
    log.event("topic_paused", topic="a")
    log.set_level("info")
    log.event("topic_paused", topic="b")
    log.close()
    assert [json.loads(line)["topic"] for line in lines] == ["b"]


def test_no_secret_comes_out_by_whatever_way_it_came_in(lines: Lines) -> None:
    log = Log(lines.write, "json", secrets=["hunter22", "hunter22-longer"])
    log.event(
        "database_failed",
        during="fetch",
        cause='connection to "postgresql://app:pa55word@db/app" failed, sasl.password=tops3cret hunter22-longer',
        password="plain",
    )
    log.hide(["rotated!"])
    log.event("database_failed", during="rotated!", cause=ValueError("password: 'quoted one'"))
    log.close()
    told = "\n".join(lines)
    for secret in ("pa55word", "tops3cret", "hunter22", "longer", "plain", "rotated!", "quoted one"):
        assert secret not in told
    assert "postgresql://app:***@db/app" in told


def test_a_secret_of_several_lines_or_with_a_tab_is_hidden_too(lines: Lines) -> None:
    key = "-----BEGIN KEY-----\nMIIEvg\r\nIBADAN\n-----END KEY-----\n"
    log = Log(lines.write, "json", secrets=[key, "tab\tbed", "\x9b two  words "])
    log.event("database_failed", during="fetch", cause=f"of {key}, tab\tbed and \x9b two  words .")
    log.close()
    told = "\n".join(lines)
    for part in ("MIIEvg", "IBADAN", "bed", "two"):
        assert part not in told


def test_passwords_that_change_for_ever_are_hidden_in_a_bounded_number(lines: Lines) -> None:
    log = Log(lines.write, "json", secrets=["user-of-all", "first-password"])
    for number in range(SECRETS_MAX):
        log.hide(["user-of-all", f"password-{number:05}-"])
    log.event("database_failed", during="fetch", cause="user-of-all password-00001- password-00999- first-password")
    log.close()
    (line,) = lines
    assert json.loads(line)["cause"] == "*** *** *** first-password"
    assert len(log._secrets) == SECRETS_MAX


def test_a_topic_cannot_forge_a_line_or_drive_a_terminal(lines: Lines) -> None:
    log = Log(lines.write, "console")
    log.event("topic_paused", topic="a\n\x1b[31mfake \ud800")
    log.close()
    (line,) = lines
    assert "\n" not in line
    assert "\x1b" not in line
    line.encode()


def test_a_blocked_sink_delays_nobody_and_what_was_dropped_is_told(lines: Lines) -> None:
    lines.open.clear()
    log = Log(lines.write, "json", lines_max=4)
    log.event("topic_paused", topic="first")
    assert lines.taken.wait(DEADLINE_SECONDS)
    for number in range(10):
        log.event("topic_paused", topic=f"t{number}")
    assert log.dropped == 6
    lines.open.set()
    log.close(DEADLINE_SECONDS)
    told = [json.loads(line) for line in lines]
    assert [line["topic"] for line in told if line["event"] == "topic_paused"] == ["first", "t0", "t1", "t2", "t3"]
    assert sum(line["lines"] for line in told if line["event"] == "log_lines_dropped") == 6


def test_closing_does_not_wait_for_a_blocked_sink(lines: Lines) -> None:
    lines.open.clear()
    log = Log(lines.write, "json", lines_max=1)
    log.event("topic_paused", topic="a")
    assert lines.taken.wait(DEADLINE_SECONDS)
    log.event("topic_paused", topic="b")
    log.close(0.01)
    assert not lines


def test_a_sink_whose_reader_is_gone_counts_and_goes_on() -> None:
    def fail(_: str) -> None:
        raise BrokenPipeError

    log = Log(fail, "json")
    log.event("topic_paused", topic="a")
    log.close(DEADLINE_SECONDS)
    assert log.dropped == 1


def test_a_pipe_gets_whole_lines() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source, os.fdopen(writer, "w") as target:
        log = open_log("info", stream=target)
        log.event("owner", token=7, held_records=0)
        log.close(DEADLINE_SECONDS)
        line = source.readline()
    assert json.loads(line)["token"] == 7


def test_warnings_of_libraries_come_out_as_events(lines: Lines) -> None:
    root = logging.getLogger()
    former = (root.handlers, root.level, logging.getLogger("apscheduler").level)
    log = Log(lines.write, "json")
    try:
        log.take_libraries()
        logging.getLogger("somebody").warning("took %d s", 5)
        logging.getLogger("somebody").info("chatter")
    finally:
        root.handlers, level, apscheduler_level = former
        root.setLevel(level)
        logging.getLogger("apscheduler").setLevel(apscheduler_level)
        logging.captureWarnings(False)
        log.close()
    (line,) = lines
    told = json.loads(line)
    assert (told["event"], told["logger"], told["cause"]) == ("library_message", "somebody", "took 5 s")


def test_auto_is_the_journal_only_where_systemd_listens_to_this_very_stream() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "w") as stream:
        found = os.fstat(stream.fileno())
        here, elsewhere = f"{found.st_dev}:{found.st_ino}", f"{found.st_dev}:{found.st_ino + 1}"
        assert choose_format("auto", {"JOURNAL_STREAM": here}, stream) == "journal"
        assert choose_format("auto", {"JOURNAL_STREAM": elsewhere}, stream) == "json"
        assert choose_format("console", {"JOURNAL_STREAM": here}, stream) == "console"
    assert choose_format("auto", {}, io.StringIO()) == "json"


def test_auto_is_the_console_on_a_terminal() -> None:
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(follower, "w") as stream:
        assert choose_format("auto", {}, stream) == "console"


def test_a_daemon_hides_its_secrets_in_a_log_that_it_is_given_too(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"OUTBOXD_DATABASE__URL": "postgresql://u:of-the-url@h/d", "OUTBOXD_KAFKA__SASL_PASSWORD": "of-kafka"}
    monkeypatch.setattr("outboxd.daemon.daemon.StatusBoard", lambda **_: sys.exit("its parts matter not here"))
    log = Log(lines.write, "json")
    with pytest.raises(SystemExit):
        Daemon(load(Path("/dev/null"), env=secrets), log=log)
    log.event("database_failed", during="fetch", cause="of-the-url of-kafka")
    log.close()
    assert "of-" not in "".join(lines)
