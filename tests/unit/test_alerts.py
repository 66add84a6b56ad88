"""Alerts reach the operator's program once, with all that it needs, at a limited rate, and cost nobody a wait."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from outboxd.errors import ConfigError
from outboxd.maintenance.alerts import Alert, AlertRate, Alerts, run_command

DEADLINE_SECONDS = 10


def alert(name: str = "breaker_opened", topic: str = "orders", number: int = 0) -> Alert:
    return Alert(name, {"topic": topic, "number": number}, "2026-01-02T03:04:05+00:00")


class Told:
    """Events that the alerts tell about themselves."""

    def __init__(self) -> None:
        self.events: queue.Queue[tuple[str, dict[str, object]]] = queue.Queue()

    def __call__(self, name: str, **fields: object) -> None:
        self.events.put((name, fields))

    def next(self) -> tuple[str, dict[str, object]]:
        return self.events.get(timeout=DEADLINE_SECONDS)


class Program:
    """A program that writes what it reads to a pipe which the test reads."""

    def __init__(self, directory: Path) -> None:
        self._fifo = directory / "told"
        os.mkfifo(self._fifo)
        self.command = (
            f"{sys.executable} -c 'import sys; open(sys.argv[1], \"w\").write(sys.stdin.read())' {self._fifo}"
        )

    def read(self) -> Any:
        found: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: found.put(self._fifo.read_text()), daemon=True).start()
        return json.loads(found.get(timeout=DEADLINE_SECONDS))


# The rate.


def test_the_first_of_a_kind_goes_at_once_and_the_last_of_those_after_it_a_minute_later_with_their_number() -> None:
    rate = AlertRate(60)
    assert rate.offer(alert(number=1), 0) == alert(number=1)
    assert rate.offer(alert(number=2), 1) is None
    assert rate.offer(alert(number=3), 2) is None
    assert rate.offer(alert(number=4), 59) is None
    assert rate.next_at() == 60
    assert rate.due(59.9) == []
    (late,) = rate.due(60)
    assert (late.fields["number"], late.suppressed) == (4, 2)
    assert rate.offer(alert(number=5), 61) is None
    (later,) = rate.due(120)
    assert (later.fields["number"], later.suppressed) == (5, 0)


def test_kinds_and_topics_do_not_hold_each_other_back() -> None:
    rate = AlertRate(60)
    for kind in (alert(), alert(topic="payments"), alert("breaker_closed")):
        assert rate.offer(kind, 0) is not None


def test_after_a_quiet_minute_the_next_goes_at_once() -> None:
    rate = AlertRate(60)
    rate.offer(alert(), 0)
    assert rate.next_at() is None
    assert rate.offer(alert(number=2), 61) is not None


def test_a_flood_of_topics_is_remembered_up_to_a_bound() -> None:
    rate = AlertRate(60, kinds_max=10)
    for number in range(100):
        rate.offer(alert(topic=f"t{number}"), 0)
    assert rate.offer(alert(topic="t0"), 1) is not None
    assert rate.offer(alert(topic="t99"), 1) is None


# The program.


def test_the_program_reads_the_event_as_json(tmp_path: Path) -> None:
    program, told = Program(tmp_path), Told()
    alerts = Alerts(program.command, told, about={"outbox": "default", "daemon": "here:1"})
    alerts.offer("breaker_opened", {"topic": "orders", "error_code": "X", "cause": "no grant"})
    document = program.read()
    alerts.close(DEADLINE_SECONDS)
    assert document.pop("at")
    assert document == {
        "event": "breaker_opened",
        "level": "warning",
        "message": "The topic orders is on hold, its rows stay pending and nothing is counted against them: no grant",
        "suppressed": 0,
        "outbox": "default",
        "daemon": "here:1",
        "fields": {"topic": "orders", "error_code": "X", "cause": "no grant"},
    }


def test_what_was_held_back_comes_when_its_time_has_come(tmp_path: Path) -> None:
    program, told = Program(tmp_path), Told()
    alerts = Alerts(program.command, told, rate=AlertRate(0.2))
    for number in range(3):
        alerts.offer("breaker_opened", {"topic": "orders", "number": number})
    first, last = program.read(), program.read()
    alerts.close(DEADLINE_SECONDS)
    assert (first["fields"]["number"], last["fields"]["number"], last["suppressed"]) == (0, 2, 1)


def test_what_is_held_back_when_the_daemon_ends_comes_then(tmp_path: Path) -> None:
    program, told = Program(tmp_path), Told()
    alerts = Alerts(program.command, told)
    for number in range(3):
        alerts.offer("breaker_closed", {"topic": "orders", "number": number})
    first = program.read()
    ended = threading.Thread(target=alerts.close, args=(DEADLINE_SECONDS,))
    ended.start()
    last = program.read()
    ended.join(DEADLINE_SECONDS)
    assert (first["fields"]["number"], last["fields"]["number"], last["suppressed"]) == (0, 2, 1)


def test_without_a_command_nothing_runs_and_one_can_be_set_later(tmp_path: Path) -> None:
    program, told = Program(tmp_path), Told()
    alerts = Alerts("", told)
    alerts.offer("storm_guard", {"topic": "ignored"})
    alerts.set_command(program.command)
    alerts.offer("storm_guard", {"topic": "orders"})
    assert program.read()["fields"]["topic"] == "orders"
    alerts.close(DEADLINE_SECONDS)


def test_a_failing_program_is_told_with_what_it_said() -> None:
    told = Told()
    alerts = Alerts("sh -c 'cat >/dev/null; echo no route >&2; exit 3'", told)
    alerts.offer("storm_guard", {"topic": "orders"})
    assert told.next() == ("alert_command_failed", {"command": "sh", "exit_code": 3, "cause": "no route"})
    alerts.close(DEADLINE_SECONDS)


def test_a_missing_program_is_told() -> None:
    told = Told()
    alerts = Alerts("/nowhere/to/be found", told)
    alerts.offer("storm_guard", {"topic": "orders"})
    name, fields = told.next()
    assert (name, fields["exit_code"]) == ("alert_command_failed", None)
    alerts.close(DEADLINE_SECONDS)


def test_a_program_that_hangs_is_killed_with_its_children() -> None:
    failure = run_command(["sh", "-c", "sleep 600 & sleep 600"], b"{}", 0.2)
    assert failure is not None
    assert "killed" in failure.cause


def test_a_program_that_does_not_read_is_no_failure() -> None:
    assert run_command(["true"], b"x" * 1_000_000, 5) is None


def test_offering_never_waits_for_a_slow_program_and_what_was_dropped_is_told(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    os.mkfifo(started)
    os.mkfifo(gate)
    told = Told()
    alerts = Alerts(f"sh -c 'cat >/dev/null; echo now > {started}; cat {gate}'", told)
    alerts.offer("breaker_opened", {"topic": "slow"})
    assert started.read_text() == "now\n"
    for number in range(300):
        alerts.offer("breaker_opened", {"topic": f"t{number}"})
    alerts.set_command("true")
    gate.write_text("")
    assert told.next() == ("alerts_dropped", {"suppressed": 200})
    alerts.close(DEADLINE_SECONDS)


def test_the_program_gets_no_secret_of_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OUTBOXD_DATABASE__PASSWORD", "PGPASSWORD", "PGPASSFILE", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "hunter22")
    monkeypatch.setenv("WEBHOOK", "kept")
    shown = tmp_path / "environment"
    assert run_command(["sh", "-c", f"env > {shown}"], b"", DEADLINE_SECONDS) is None
    environment = shown.read_text()
    assert "hunter22" not in environment
    assert "WEBHOOK=kept" in environment


def test_the_command_is_not_given_to_a_shell(tmp_path: Path) -> None:
    victim = tmp_path / "made"
    assert run_command(["true", f"; touch {victim}"], b"", DEADLINE_SECONDS) is None
    alerts = Alerts(f"true '$(touch {victim})' ; touch {victim}", Told())
    alerts.offer("storm_guard", {"topic": "orders"})
    alerts.close(DEADLINE_SECONDS)
    assert not victim.exists()


def test_quotes_that_do_not_match_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="quotation"):
        Alerts("mail 'ops", Told())
    alerts = Alerts("true", Told())
    with pytest.raises(ConfigError, match="quote"):
        alerts.set_command("mail 'ops")
    alerts.close(DEADLINE_SECONDS)
