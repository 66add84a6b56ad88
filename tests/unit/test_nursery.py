"""Forks of the nursery are as processes of their own: what the tests of daemons take for granted is shown here once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.children import end, wait_for
from tests.support.nursery import ROOT, Nursling, fork

SECONDS_MAX = 60.0
ASLEEP = "import time; print('asleep', flush=True); time.sleep(600)"


def forked(directory: Path, statement: str, **variables: str) -> Nursling:
    """Have `timeit` run a statement, as a module that does what it is told."""
    out, errors = directory / "out", directory / "errors"
    return fork("timeit", ["-n", "1", "-r", "1", statement], out=out, errors=errors, env={**os.environ, **variables})


def test_a_fork_has_arguments_variables_a_directory_streams_and_a_session_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = "os.environ['TOLD'], os.getcwd(), os.getsid(0) == os.getpid(), sys.stdin.read(), sys.argv[1:4]"
    child = forked(tmp_path, f"import os, sys; print({shown}); print('wrong', file=sys.stderr)", TOLD="here")
    assert child.wait(SECONDS_MAX) == 0
    first = (tmp_path / "out").read_text().splitlines()[0]
    assert first == f"here {tmp_path} True  ['-n', '1', '-r']"
    assert (tmp_path / "errors").read_text() == "wrong\n"
    assert "TOLD" not in os.environ


@pytest.mark.parametrize(("statement", "code"), [("pass", 0), ("raise LookupError", 1)])
def test_a_fork_tells_with_which_code_it_ended(tmp_path: Path, statement: str, code: int) -> None:
    child = forked(tmp_path, statement)
    assert child.wait(SECONDS_MAX) == code
    assert child.poll() == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_fork_gets_signals_and_tells_of_which_it_died(tmp_path: Path, number: signal.Signals) -> None:
    child = forked(tmp_path, ASLEEP)
    wait_for(lambda: "asleep" in (tmp_path / "out").read_text(), timeout_seconds=SECONDS_MAX, what="it sleeps")
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    child.send_signal(number)
    # timeit shows what Ctrl+C raises, and ends with 1.
    assert child.wait(SECONDS_MAX) == (1 if number == signal.SIGINT else -number)
    child.kill()


def test_the_end_of_one_fork_is_not_taken_for_that_of_another(tmp_path: Path) -> None:
    children = [forked(tmp_path, ASLEEP) for _ in range(3)]
    assert len({child.pid for child in children}) == 3
    assert end(children[1], grace_seconds=0) == -signal.SIGKILL
    assert [child.poll() for child in children] == [None, -signal.SIGKILL, None]
    for child in children:
        end(child, grace_seconds=0)


def test_forks_die_with_the_run_that_made_them(tmp_path: Path) -> None:
    parent = """
import sys
from pathlib import Path
from tests.unit.test_nursery import ASLEEP, forked
print(forked(Path(sys.argv[1]), ASLEEP).pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        os.kill(child, 0)
        process.kill()
    wait_for(lambda: not is_running(child), timeout_seconds=SECONDS_MAX, what="the kernel ends the fork")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
