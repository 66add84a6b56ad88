"""`outboxd demo` as somebody meets it who has just installed outboxd."""

from __future__ import annotations

import io
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from outboxd.demo import database, show
from outboxd.demo.reader import ReadRecord, read_log
from outboxd.errors import BugError, UnavailableError

DEMO_SECONDS_MAX = 100


@pytest.fixture
def temporary() -> Iterator[Path]:
    """An empty directory for temporary files that any user can reach; what is in it at the end was left behind."""
    path = Path(tempfile.mkdtemp(prefix="demo-test-", dir="/tmp"))
    path.chmod(0o1777)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def start(temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOXD_", "CREDENTIALS_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "outboxd", "demo", *arguments],
        env=clean | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reachable_python() -> str | None:
    """An interpreter of this version that every user may run: as root, one's own may lie in root's home."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        real = Path(path).resolve()
        if real.exists() and all(each.stat().st_mode & 0o001 for each in (real, *real.parents)):
            return path
    return None


#: As root there is an ordinary user to try too; as an ordinary user every other test here has tried it.
ORDINARY_USERS = ["nobody"] if os.geteuid() == 0 and reachable_python() is not None else []


@contextmanager
def running(temporary: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    child = start(temporary, *arguments)
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=30)


def left_behind(temporary: Path) -> list[str]:
    """Files in the directory, and processes that work there."""
    found = [str(path) for path in temporary.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text()
        except OSError:
            continue
        if str(temporary) in command:
            found.append(f"{process.name}: {command}")
    return found


def read_until(child: subprocess.Popen[str], words: str) -> str:
    assert child.stdout is not None
    told = ""
    for line in child.stdout:
        told += line
        if words in line:
            return told
    raise AssertionError(f"it ended before it said {words!r}: {told}")


def test_the_demo_relays_shows_and_checks_and_leaves_nothing_behind(temporary: Path) -> None:
    users = [user.pw_name for user in pwd.getpwall()]
    done = start(temporary)
    out, err = done.communicate(timeout=DEMO_SECONDS_MAX)
    assert (done.returncode, err) == (0, "")
    assert re.search(r"delivered +orders-\d@0 to @\d+", out)
    assert re.search(r"retried +row 413 → orders-\d@\d+ .*REQUEST_TIMED_OUT.*attempt 2", out)
    assert re.search(r"dead +row 641 → dead letter 1 .*MSG_SIZE_TOO_LARGE", out)
    assert "FROM outboxd.dead_letter_recent" in out
    assert "999 records and 1 dead letter make 1,000 rows; none dropped, repeated or altered" in out
    assert "\x1b" not in out
    assert left_behind(temporary) == []
    assert [user.pw_name for user in pwd.getpwall()] == users


@pytest.mark.parametrize("user", ORDINARY_USERS)
def test_the_demo_works_as_an_ordinary_user(temporary: Path, user: str) -> None:
    done = subprocess.run(
        [reachable_python() or "", "-m", "outboxd", "demo"],
        env={
            "PATH": "/usr/bin:/bin", "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        cwd="/", user=user, extra_groups=[], capture_output=True, text=True, timeout=DEMO_SECONDS_MAX, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "none dropped, repeated or altered" in done.stdout
    assert left_behind(temporary) == []


@pytest.mark.parametrize(("words", "arguments"), [("starting", []), ("the daemon relays", []), ("Ctrl+C", ["--keep"])])
def test_ctrl_c_leaves_nothing_behind_whenever_it_comes(temporary: Path, words: str, arguments: list[str]) -> None:
    with running(temporary, *arguments) as child:
        read_until(child, words)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=DEMO_SECONDS_MAX)
        # On a busy machine all may be over when it comes, and what it meets is the interpreter's own end.
        is_over = "none dropped, repeated or altered" in out
        assert child.returncode in ((0, 130, -signal.SIGINT) if is_over else (0,) if arguments else (130,))
        assert "Traceback" not in err
    assert left_behind(temporary) == []


def test_kept_running_it_can_be_used_from_other_shells_until_it_is_told_to_stop(temporary: Path) -> None:
    with running(temporary, "--keep") as child:
        told = read_until(child, "psql")
        url = re.search(r"OUTBOXD_DATABASE__URL='([^']+)'", told)
        broker = re.search(r"BOOTSTRAP_SERVERS='([^']+)'", told)
        page = re.search(r"OUTBOXD_HTTP__LISTEN=(\S+)", told)
        assert url is not None
        assert broker is not None
        assert page is not None
        done = subprocess.run(
            [sys.executable, "-m", "outboxd", "send", "orders", "--key", "customer-01", "--payload", "later"],
            env={**os.environ, "OUTBOXD_DATABASE__URL": url[1]}, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        row_id = int(done.stdout.split()[1])
        relayed = subprocess.run(
            [sys.executable, "-m", "outboxd", "status", "--json"],
            env={**os.environ, "OUTBOXD_DATABASE__URL": url[1], "OUTBOXD_HTTP__LISTEN": page[1]},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert '"alive":true' in relayed.stdout
        assert '"daemon":{"outbox":"default"' in relayed.stdout
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(re.sub(r":[^:@]+@", ":wrong@", url[1]))
        assert row_id in {record.outbox_id for record in until_there(broker[1], row_id)}
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=DEMO_SECONDS_MAX)
        assert child.returncode == 0
    assert left_behind(temporary) == []


def until_there(bootstrap: str, row_id: int) -> Sequence[ReadRecord]:
    """Read the broker again until the row is there; each reading waits for the log's end."""
    for _ in range(50):
        records = read_log(bootstrap, ["orders"])
        if any(record.outbox_id == row_id for record in records):
            return records
    raise AssertionError(f"row {row_id} did not arrive")


def drop(records: list[ReadRecord]) -> list[ReadRecord]:
    return records[:500] + records[501:]


def swap(records: list[ReadRecord]) -> list[ReadRecord]:
    first = records[0]
    second = next(record for record in records[1:] if (record.topic, record.key) == (first.topic, first.key))
    exchanged = {first: replace(second, offset=first.offset), second: replace(first, offset=second.offset)}
    return [exchanged.get(record, record) for record in records]


def repeat(records: list[ReadRecord]) -> list[ReadRecord]:
    return [*records, replace(records[-1], offset=records[-1].offset + 1)]


@pytest.mark.parametrize(("spoil", "word"), [(drop, "dropped"), (swap, "swapped"), (repeat, "repeated")])
def test_the_demo_exits_70_when_a_record_is_dropped_swapped_or_repeated(
    spoil: Callable[[list[ReadRecord]], list[ReadRecord]], word: str
) -> None:
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(BugError, match=word) as broken:
        show.run(console, read=lambda bootstrap, topics: spoil(read_log(bootstrap, topics)))
    assert broken.value.exit_code == 70


def test_without_any_postgresql_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_embedded", lambda: iter(()))
    monkeypatch.setattr(database, "_installed", lambda: iter(()))
    with pytest.raises(UnavailableError, match=r"pip install 'outboxd\[demo\]'") as missing:
        show.run(Console(file=io.StringIO()))
    assert missing.value.exit_code == 69


@pytest.mark.parametrize("temporary_directory", ["/proc", None])
def test_where_no_file_can_be_made_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, temporary_directory: str | None
) -> None:
    # Nothing can be made there, whoever tries; without one, these are all that there are.
    monkeypatch.setattr(tempfile, "tempdir", temporary_directory)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    with pytest.raises(UnavailableError, match="TMPDIR"), database.EmbeddedPostgres():
        pass


@pytest.mark.parametrize("where", ["_embedded", "_installed"])
def test_embedded_and_system_binaries_both_serve(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    binaries = list(getattr(database, where)())
    if not binaries:
        if where == "_embedded" and os.environ.get("CI") == "true":
            raise AssertionError("the extra `demo` is not installed")
        pytest.skip("no binaries of this kind here: install the extra `demo`, or the package postgresql")
    other = "_installed" if where == "_embedded" else "_embedded"
    monkeypatch.setattr(database, other, lambda: iter(()))
    with database.EmbeddedPostgres() as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not server.is_running
