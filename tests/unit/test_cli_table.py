"""Tables of `outboxd dead` in terminals of several widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from outboxd.cli.dead import text

TITLES = ("ID", "TOPIC", "BYTES")
ROWS = [("7", "order", "1,000"), ("8", "a-topic-of-a-long-name", "null")]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> io.StringIO:
    written = io.StringIO()
    console = Console(file=written, width=request.param, force_terminal=True, color_system=None)
    monkeypatch.setattr(text, "console", lambda: console)
    return written


@pytest.mark.parametrize("terminal", [18], indirect=True)
def test_where_the_titles_fit_a_row_is_a_line_of_a_table_whose_cells_are_folded(terminal: io.StringIO) -> None:
    text.print_table(TITLES, ROWS)
    lines = terminal.getvalue().splitlines()
    assert lines[0].split() == list(TITLES)
    assert lines[2].split() == ["7", "order", "1,000"]
    assert all(len(line) <= 18 for line in lines)


@pytest.mark.parametrize("terminal", [17], indirect=True)
def test_where_they_do_not_each_cell_has_a_line_of_its_own(
    terminal: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    text.print_table(TITLES, ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "ID    7", "TOPIC order", "BYTES 1,000", "", "ID    8", "TOPIC a-topic-of-a-long-name", "BYTES null",
    ]  # fmt: skip
    assert terminal.getvalue() == ""
