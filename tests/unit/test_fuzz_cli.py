"""Whatever stands on the command line: an exit code of the contract and words, never a traceback, never a hang.

No server answers here, and what would start one is put aside.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outboxd.cli import main
from outboxd.cli.registry import COMMANDS
from outboxd.errors import EXIT_CONFIG, EXIT_OK, EXIT_PERMISSION, EXIT_UNAVAILABLE, EXIT_USAGE, UnavailableError

CODES = {EXIT_OK, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_PERMISSION, EXIT_CONFIG}
WORDS = [
    *COMMANDS, "summary", "list", "show", "replay", "discard", "export", "init", "--", "-", "-c", "--config", "--set",
    "--json", "--help", "-h", "--version", "--once", "--yes", "-y", "--all", "--offline", "--sql", "--until-empty",
    "--force", "--dry-run", "--note", "--key", "-k", "--header", "-H", "--payload", "--topic", "--code", "--since",
    "--limit", "--max", "--rows", "--seconds", "--keep", "relay.batch_rows=7", "relay.batch_rows=x", "log.level=debug",
    "K=V", "=", "K", "orders", "*", "1", "0", "-1", "1e9", "nan", "99999999999999999999", "2026-01-02", "1h",
    "fuzz.toml", "", ".", "/dev/null", "\udc80", "é", "\x1b[2J", "a" * 3_000,
]  # fmt: skip
ARGUMENTS = st.sampled_from(WORDS) | st.text(st.characters(exclude_characters="\0"), max_size=8)
COMMAND_LINES = st.one_of(
    st.lists(ARGUMENTS, max_size=6),
    st.tuples(st.sampled_from(list(COMMANDS)), st.lists(ARGUMENTS, max_size=5)).map(lambda line: [line[0], *line[1]]),
)


@pytest.fixture(scope="module")
def nothing_answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory to work in, with a configuration whose servers refuse at once."""

    def refuse(*_: object, **__: object) -> None:
        raise UnavailableError("put aside by the test")

    directory = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("OUTBOXD_DATABASE__URL", "postgresql://nobody@127.0.0.1:1/nowhere?connect_timeout=1")
        patch.setenv("OUTBOXD_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
        patch.setenv("OUTBOXD_HTTP__LISTEN", "")
        for where in (
            "outboxd.daemon.daemon.run_daemon",
            "outboxd.demo.show.run",
            "outboxd.bench.run.run",
            "outboxd.kafka.checks.inspection._Client",
        ):
            patch.setattr(where, refuse)
        yield directory


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(arguments=COMMAND_LINES)
@example(arguments=["send", "orders", "--header", "\udc80"])
@example(arguments=["--set", "\udc80.x=\udc80", "status"])
@example(arguments=["dead", "show", "99999999999999999999"])
@example(arguments=["dead", "list", "--since", "\udc80"])
@example(arguments=["-c", "a" * 3_000, "config", "show"])
@example(arguments=["-c", "/", "config", "show"])
@example(arguments=["bench", "--yes", "--seconds", "nan"])
@example(arguments=["config", "show", "--set", "kafka.acks=\udc80"])
def test_any_command_line_ends_in_words_and_with_a_code_of_the_contract(
    nothing_answers: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"payload")))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    # As the interpreter opens it.
    errors = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(errors, encoding="utf-8", errors="backslashreplace"))
    code = main(arguments)
    sys.stderr.flush()
    told = errors.getvalue().decode()
    assert code in CODES, told
    assert "Traceback" not in told
    assert code == EXIT_OK or told
