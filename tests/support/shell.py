"""The command line within this process: quick, and with its exit code and both outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from outboxd.cli import main
from tests.support.postgres_fixtures import Database


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, which has to be one JSON document and nothing else."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Runs commands with settings from the environment and no file."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    settings: Mapping[str, str]

    def __call__(self, *arguments: str) -> Answer:
        self.monkeypatch.delenv("OUTBOXD_CONFIG", raising=False)
        for name, value in self.settings.items():
            self.monkeypatch.setenv(name, value)
        self.capsys.readouterr()
        code = main(list(arguments))
        captured = self.capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    def ok(self, *arguments: str) -> Answer:
        """The same for a command that has to succeed."""
        answer = self(*arguments)
        assert answer.code == 0, answer.err or answer.out
        return answer


def shell_on(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    user: str = "postgres",
    **settings: str,
) -> Shell:
    """A shell whose database is that of the test, as this user, and without a daemon's page to look for."""
    return Shell(
        monkeypatch,
        capsys,
        {"OUTBOXD_DATABASE__URL": database.url_as(user), "OUTBOXD_HTTP__LISTEN": "", **settings},
    )
