"""Standard output as a shell may leave it: closed, full, a pipe that nobody reads, a poor encoding."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from outboxd import __version__
from outboxd.cli.output import console, print_json, print_line
from outboxd.cli.streams import prepare

OUTBOXD = f"{sys.executable} -m outboxd"


def shell(line: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOXD_")}
    clean["OUTBOXD_CONFIG"] = os.devnull
    return subprocess.run(["/bin/sh", "-c", line], env=clean | env, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("command", ["version", "version --json", "--version", "--help", "check --offline"])
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", ">&- <&-"])
def test_a_closed_output_ends_as_a_broken_pipe_does(command: str, closed: str) -> None:
    done = shell(f"{OUTBOXD} {command} {closed}")
    assert (done.returncode, done.stdout, done.stderr) == (141, b"", b"")


def test_a_command_that_writes_to_one_stream_needs_no_other() -> None:
    assert shell(f"{OUTBOXD} version 2>&- <&-").stdout.startswith(f"outboxd {__version__}\n".encode())
    done = shell(f"{OUTBOXD} nonsense >&-")
    assert done.returncode == 64
    assert b"No such command" in done.stderr


@pytest.mark.parametrize(
    ("stream", "said"), [("<&-", b"standard input is closed"), ("0>/dev/null", b"standard input cannot be read: ")]
)
def test_an_input_that_cannot_be_read_is_no_empty_payload(tmp_path: Path, stream: str, said: bytes) -> None:
    config = tmp_path / "outboxd.toml"
    config.write_text('[database]\nurl = "postgresql://127.0.0.1:1/none"\n')
    done = shell(f"{OUTBOXD} send orders --payload - -c {config} {stream}")
    assert (done.returncode, done.stdout) == (64, b"")
    assert said in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("version", ">/dev/full"),
        ("config show", ">/dev/full"),
        ("config show --json", ">/dev/full"),
        ("version", "1</dev/null"),
    ],
)
def test_an_output_that_cannot_be_written_is_no_bug(command: str, where: str, unbuffered: str) -> None:
    done = shell(f"{OUTBOXD} {command} {where}", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 69
    assert done.stderr.startswith(b"outboxd: the output cannot be written: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("nonsense 2>/dev/full", 64),
        ("send 2>/dev/full", 64),
        ("run -c /nonexistent.toml 2>/dev/full", 78),
        ("config show -c /nonexistent.toml 2>/dev/full", 78),
        ("version >/dev/full 2>&1", 69),
    ],
)
def test_the_exit_code_tells_the_cause_where_nothing_can_be_told_on_standard_error(line: str, code: int) -> None:
    assert shell(f"{OUTBOXD} {line}").returncode == code


def test_the_exit_code_tells_the_cause_where_nobody_reads_standard_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "outboxd", "run", "-c", "/nonexistent.toml"]
    done = subprocess.run(command, stderr=writing, timeout=60, check=False)
    os.close(writing)
    assert done.returncode == 78


def test_an_interrupt_while_the_command_is_loaded_is_told_by_the_exit_code_alone(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = shell(f"{OUTBOXD} version", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_disk_without_room_for_the_configuration_is_no_wrong_use(tmp_path: Path) -> None:
    done = shell(f"ulimit -f 1; {OUTBOXD} config init -c {tmp_path}/outboxd.toml")
    assert done.returncode == 69
    assert b"outboxd.toml cannot be written: File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


class Unread(io.StringIO):
    def write(self, _: str) -> NoReturn:
        raise BrokenPipeError


def test_a_table_that_nobody_reads_leaves_it_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Unread())
    with pytest.raises(BrokenPipeError):
        console().print("table")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_cannot_be_encoded_is_escaped_and_json_stays_json(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    prepare()
    text = "größe → 😀"
    print_json({"text": text})
    print_line(f"{text} \udcff")
    sys.stdout.flush()
    document, line = written.getvalue().decode(encoding).splitlines()
    assert json.loads(document) == {"text": text}
    shown = {
        "ascii": "gr\\u00f6\\u00dfe \\u2192 \\ud83d\\ude00",
        "latin-1": "größe \\u2192 \\ud83d\\ude00",
        "utf-8": text,
    }
    assert line == f"{shown[encoding]} \\udcff"


def test_a_whole_command_gets_by_with_ascii() -> None:
    done = shell(f"{OUTBOXD} config show --json", PYTHONIOENCODING="ascii", OUTBOXD_ALERTS__COMMAND="größe")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["settings"]["alerts.command"]["value"] == "größe"
