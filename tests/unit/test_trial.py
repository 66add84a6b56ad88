"""The trial: a process of its own sends suspects, and only its death, twice, is a proof."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from outboxd.kafka.trials.child import send
from outboxd.kafka.trials.trial import TrialProcess
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Record
from tests.support.children import wait_for

OLD = {"sasl.password": "old"}


def row(record_id: int, payload: bytes) -> Record:
    return Record(6, record_id, "event", "orders", "k", payload, "{}", None, 1, 1)


class ScriptedPublisher:
    """Lives in the child: does with a record what its payload says, and notes each try in a directory."""

    def __init__(self, notes: Path, properties: Mapping[str, str]) -> None:
        self._notes = notes
        self._properties = properties
        self._reports: list[Report] = []
        self._waiting: list[Record] = []

    def publish(self, records: Sequence[Record], start: int) -> int:
        for record in records[start:]:
            self.publish_alone(record)
        return len(records)

    def publish_alone(self, record: Record) -> bool:
        tries = len(list(self._notes.iterdir()))
        (self._notes / f"{record.id}-{tries}").write_text(str(os.getpid()))
        match record.payload:
            case b"kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"raise":
                raise SystemExit(3)
            case b"kill once" if tries == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            case b"silence":
                return True
            case b"until told":
                self._waiting.append(record)
                return True
            case b"silence while old" if self._properties == OLD:
                return True
            case b"die of the old" if self._properties == OLD:
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                pass
        self._reports.append(Report(record, None, 1, 10 + record.id, True))
        return True

    def poll(self, timeout_seconds: float) -> None:
        if self._waiting and (self._notes / "told").exists():
            self._reports.append(Report(self._waiting.pop(), None, 1, 11, True))

    def flush(self, timeout_seconds: float) -> None: ...

    def take_reports(self) -> list[Report]:
        taken, self._reports = self._reports, []
        return taken

    def failure(self) -> DeliveryFault | None:
        return None


def broken(_: Mapping[str, str]) -> ScriptedPublisher:
    raise SystemExit(9)


def waiting_for_brokers(notes: Path, _: Mapping[str, str]) -> ScriptedPublisher:
    (notes / "child").write_text(str(os.getpid()))
    threading.Event().wait()
    raise AssertionError


def state(stat: Path) -> str:
    """Return the letter of a process's state, nothing where it is gone."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def be_a_daemon(notes: Path) -> None:
    trial = TrialProcess(partial(waiting_for_brokers, notes), OLD, lambda _, **__: None)
    trial.send([row(1, b"")])
    threading.Event().wait()


Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def trial(tmp_path: Path, told: Told) -> Iterator[TrialProcess]:
    made = TrialProcess(partial(ScriptedPublisher, tmp_path), OLD, lambda name, **fields: told.append((name, fields)))
    yield made
    made.close()


def answers(trial: TrialProcess, count: int) -> list[Report]:
    found: list[Report] = []

    def enough() -> bool:
        found.extend(trial.take_reports())
        return len(found) >= count

    wait_for(enough, timeout_seconds=60, what=f"{count} answers")
    return found


def test_innocent_rows_are_delivered_by_it_in_their_order(trial: TrialProcess) -> None:
    for number in range(3):
        trial.send([row(number, b"x")])
    assert not trial.is_idle()
    reports = answers(trial, 3)
    assert [(report.record.id, report.error, report.offset) for report in reports] == [
        (0, None, 10), (1, None, 11), (2, None, 12),
    ]  # fmt: skip
    assert all(report.alone for report in reports)
    assert trial.is_idle()


def test_whoever_waits_for_a_report_is_woken_by_it(tmp_path: Path) -> None:
    reported: SimpleQueue[None] = SimpleQueue()
    trial = TrialProcess(partial(ScriptedPublisher, tmp_path), OLD, lambda *_, **__: None, lambda: reported.put(None))
    for number in range(2):
        trial.send([row(number, b"x")])
        reported.get(timeout=60)
        assert [report.record.id for report in trial.take_reports()] == [number]
    trial.close()


@pytest.mark.parametrize(("payload", "ending"), [(b"kill", "SIGKILL"), (b"raise", "exit code 3")])
def test_a_row_that_ends_two_processes_is_to_blame_and_the_next_one_goes_on(
    trial: TrialProcess, tmp_path: Path, payload: bytes, ending: str
) -> None:
    trial.send([row(1, payload)])
    trial.send([row(2, b"x")])
    blamed, fine = answers(trial, 2)
    assert blamed.error is not None
    assert blamed.error.fault.name == "CRASHED_DAEMON"
    assert blamed.error.text.endswith(f"{ending}, then {ending}")
    assert (fine.record.id, fine.error) == (2, None)
    tries = [note.read_text() for note in tmp_path.iterdir() if note.name.startswith("1-")]
    assert len(set(tries)) == 2


def test_what_goes_together_is_reported_at_once_and_in_its_order(trial: TrialProcess) -> None:
    trial.send([row(number, b"x") for number in range(3)])
    found: list[list[Report]] = []

    def reported() -> bool:
        if reports := trial.take_reports():
            found.append(reports)
        return trial.is_idle()

    wait_for(reported, timeout_seconds=60, what="all answers")
    assert [[report.offset for report in reports] for reports in found] == [[10, 11, 12]]


def test_a_group_that_a_process_died_with_is_reported_at_its_first_death(trial: TrialProcess, tmp_path: Path) -> None:
    trial.send([row(1, b"x"), row(2, b"kill"), row(3, b"x")])
    trial.send([row(1, b"x")])
    reports = answers(trial, 4)
    named = [report.error.fault.name if report.error else None for report in reports]
    assert named == ["CRASHED_DAEMON"] * 3 + [None]
    assert len(pids(tmp_path, 2)) == 1


def test_a_process_that_died_once_proves_nothing(trial: TrialProcess) -> None:
    trial.send([row(1, b"kill once")])
    (report,) = answers(trial, 1)
    assert report.error is None


def test_a_child_that_waits_for_brokers_ends_with_a_daemon_that_is_killed(tmp_path: Path) -> None:
    daemon = multiprocessing.get_context("spawn").Process(target=be_a_daemon, args=(tmp_path,))
    daemon.start()
    note = tmp_path / "child"
    try:
        wait_for(lambda: note.exists() and note.read_text() != "", timeout_seconds=60, what="the child waits")
    finally:
        daemon.kill()
        daemon.join()
    stat = Path(f"/proc/{note.read_text()}/stat")
    wait_for(lambda: state(stat) in ("", "Z"), timeout_seconds=20, what="the child's end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_goes_to_all_processes_of_a_service_or_a_terminal_ends_none_and_blames_no_row(
    trial: TrialProcess, tmp_path: Path, number: signal.Signals
) -> None:
    note = tmp_path / "1-0"
    trial.send([row(1, b"until told")])
    wait_for(lambda: note.exists() and note.read_text() != "", timeout_seconds=60, what="the child has it")
    os.kill(int(note.read_text()), number)
    (tmp_path / "told").touch()
    (report,) = answers(trial, 1)
    assert report.error is None
    assert sorted(each.name for each in tmp_path.iterdir()) == ["1-0", "told"], "no other child had it"


def test_what_is_abandoned_is_never_reported_and_blames_nobody(trial: TrialProcess, tmp_path: Path) -> None:
    trial.send([row(1, b"silence")])
    wait_for(lambda: any(tmp_path.iterdir()), timeout_seconds=60, what="the child has it")
    trial.abandon()
    assert trial.is_idle()
    trial.send([row(2, b"x")])
    assert [report.record.id for report in answers(trial, 1)] == [2]


def test_what_is_abandoned_while_its_process_starts_is_not_sent(
    trial: TrialProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_ready, abandoned = trial._is_ready, threading.Event()

    def abandoned_once_ready() -> bool:
        ready = is_ready()
        if not abandoned.is_set():
            trial.abandon()
            abandoned.set()
        return ready

    monkeypatch.setattr(trial, "_is_ready", abandoned_once_ready)
    trial.send([row(1, b"x")])
    assert abandoned.wait(60)
    trial.send([row(2, b"x")])
    assert [report.record.id for report in answers(trial, 1)] == [2]
    assert [note.name.split("-")[0] for note in tmp_path.iterdir()] == ["2"]


def test_a_process_that_does_not_start_blames_no_row_and_is_told(told: Told) -> None:
    made = TrialProcess(broken, OLD, lambda name, **fields: told.append((name, fields)))
    try:
        made.send([row(1, b"x")])
        wait_for(lambda: bool(told), timeout_seconds=60, what="a word")
        assert made.take_reports() == []
    finally:
        made.close()
    name, fields = told[0]
    assert (name, fields["job"]) == ("job_failed", "trial")
    assert "exit code 9" in fields["cause"]


def pids(notes: Path, record_id: int) -> set[str]:
    return {note.read_text() for note in notes.iterdir() if note.name.startswith(f"{record_id}-")}


def test_other_properties_are_those_of_the_next_record(trial: TrialProcess, tmp_path: Path) -> None:
    trial.send([row(1, b"x")])
    answers(trial, 1)
    trial.take_properties(OLD.copy())
    trial.send([row(2, b"x")])
    answers(trial, 1)
    trial.take_properties({"sasl.password": "new"})
    trial.send([row(3, b"die of the old")])
    (report,) = answers(trial, 1)
    assert report.error is None
    assert pids(tmp_path, 1) == pids(tmp_path, 2) != pids(tmp_path, 3), "the same properties need no other process"
    trial.take_properties({"sasl.password": "new"}, anew=True)
    trial.send([row(4, b"x")])
    answers(trial, 1)
    assert pids(tmp_path, 3) != pids(tmp_path, 4), "files that they name may have changed"


def test_a_record_that_has_no_report_by_the_old_properties_goes_again_by_the_new_and_nobody_is_blamed(
    trial: TrialProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outboxd.kafka.trials.trial.RENEWAL_SECONDS", 0.2)
    trial.send([row(1, b"silence while old")])
    wait_for(lambda: any(tmp_path.iterdir()), timeout_seconds=60, what="the child has it")
    trial.take_properties({"sasl.password": "new"})
    (report,) = answers(trial, 1)
    assert (report.error, report.offset) == (None, 11)
    assert len(pids(tmp_path, 1)) == 2


def test_the_child_ends_with_the_daemon(trial: TrialProcess, tmp_path: Path) -> None:
    trial.send([row(1, b"x")])
    answers(trial, 1)
    (note,) = tmp_path.iterdir()
    pid = int(note.read_text())
    trial.close()
    gone: Callable[[], bool] = lambda: not Path(f"/proc/{pid}").exists()  # noqa: E731 - one line is enough
    wait_for(gone, timeout_seconds=10, what="the child is gone")


class Taking:
    """A publisher that takes two records at a time, and of which the second one fails."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self._reports: list[Report] = []

    def publish(self, records: Sequence[Record], start: int) -> int:
        for record in records[start : start + 2]:
            self.given.append(record.id)
            failed = DeliveryFault(own_fault("INVALID_HEADERS"), "bad") if record.id == 2 else None
            self._reports.append(Report(record, failed, 1, None, True))
        return min(len(records), start + 2)

    def publish_alone(self, record: Record) -> bool:
        return bool(self.publish([record], 0))

    def poll(self, timeout_seconds: float) -> None: ...

    def take_reports(self) -> list[Report]:
        taken, self._reports = self._reports, []
        return taken

    def failure(self) -> DeliveryFault | None:
        return None


def test_what_was_not_taken_when_another_one_failed_is_sent_back() -> None:
    publisher = Taking()
    answers = send(publisher, [row(number, b"x") for number in range(1, 6)], lambda: False)
    assert answers is not None
    assert [answer[0] and answer[0].fault.name for answer in answers] == [
        None, "INVALID_HEADERS", "SENT_BACK", "SENT_BACK", "SENT_BACK",
    ]  # fmt: skip
    assert publisher.given == [1, 2]
    assert send(publisher, [row(9, b"x")], lambda: True) is None


def test_what_the_process_sends_with_loads_neither_the_database_nor_the_configuration() -> None:
    """All rows wait for its start, with exactly-once delivery, and a machine on which daemons die is a busy one."""
    loaded = "import outboxd.kafka.trials.publishers, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sqlalchemy", "psycopg", "pydantic", "outboxd.relay", "outboxd.daemon.wiring"} & set(modules)
