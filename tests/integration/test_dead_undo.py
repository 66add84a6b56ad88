"""What `outboxd dead replay` and `discard` print to take back what they did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres_fixtures import Database
from tests.support.rows import Letters, value
from tests.support.shell import Shell, shell_on


@pytest.fixture
def rows(database: Database) -> Iterator[Letters]:
    with database.connect() as connection:
        made = Letters(connection)
        made.acquire()
        yield made


@pytest.fixture
def shell(database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return shell_on(database, monkeypatch, capsys)


def test_what_was_done_in_bulk_can_be_undone_by_the_sql_it_prints(shell: Shell, rows: Letters) -> None:
    earlier = rows.bury(rows.enqueue("bills"))
    shell.ok("dead", "discard", str(earlier), "--yes")
    letters = [rows.bury(rows.enqueue()) for _ in range(3)]
    undo = shell.ok("dead", "discard", "--topic", "orders", "--yes", "--json").document["undo_sql"]
    assert {rows.status_of(letter) for letter in letters} == {"discarded"}
    rows.connection.execute(undo)
    assert {rows.status_of(letter) for letter in letters} == {"dead"}
    assert rows.status_of(earlier) == "discarded"


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_the_undo_touches_what_was_taken_and_nothing_that_another_took(shell: Shell, rows: Letters, verb: str) -> None:
    others, ours = rows.bury(rows.enqueue(key="a")), rows.bury(rows.enqueue(key="b"))
    bills = rows.bury(rows.enqueue("bills"))
    elsewhere = rows.bury(rows.enqueue(key="c"))
    shell.ok("dead", verb, str(others), str(bills), "--yes")
    status = rows.status_of(others)
    undo = shell.ok("dead", verb, str(others), str(ours), "--yes", "--json").document["undo_sql"]
    rows.connection.execute(undo)
    assert (rows.status_of(others), rows.status_of(ours)) == (status, "dead")
    undo = shell.ok("dead", verb, "--topic", "orders", "--yes", "--json").document["undo_sql"]
    rows.connection.execute("UPDATE outboxd.dead_letter SET outbox = 'it''s' WHERE id = %s", (elsewhere,))
    rows.connection.execute(
        "UPDATE outboxd.dead_letter SET resolved_at = (SELECT l.resolved_at FROM outboxd.dead_letter l WHERE l.id = %s)"
        " WHERE id = %s",
        (ours, bills),
    )
    rows.connection.execute(undo)
    assert [rows.status_of(each) for each in (others, ours, bills, elsewhere)] == [status, "dead", status, status]


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_the_undo_leaves_what_another_took_meanwhile(
    shell: Shell, rows: Letters, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    ours, others = rows.bury(rows.enqueue(key="a")), rows.bury(rows.enqueue(key="b"))
    again = rows.bury(rows.enqueue(key="c"))
    rows.connection.execute("UPDATE outboxd.dead_letter SET note = 'before' WHERE id = %s", (again,))

    def meanwhile(_seconds: float) -> None:
        rows.connection.execute(f"SELECT outboxd.{verb}(%s, note => 'another')", (others,))

    # Between its batches of one.
    monkeypatch.setattr("outboxd.cli.dead.mending.time.sleep", meanwhile)
    options = ("--topic", "orders", "--rate", "1", "--yes", "--json", "--note", "it's \\ \u0001 mended")
    undo = shell.ok("dead", verb, *options).document["undo_sql"]
    status = rows.status_of(others)
    assert status != "dead"
    rows.connection.execute(undo)
    assert [rows.status_of(each) for each in (ours, others, again)] == ["dead", status, "dead"]


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_after_the_undo_nobody_has_resolved_it(shell: Shell, rows: Letters, verb: str) -> None:
    letter = rows.bury(rows.enqueue())
    resolved = "SELECT count(*) FROM outboxd.dead_letter WHERE resolved_at IS NOT NULL OR resolved_by IS NOT NULL"
    rows.connection.execute(shell.ok("dead", verb, str(letter), "--yes", "--json").document["undo_sql"])
    assert (rows.status_of(letter), value(rows.connection, resolved)) == ("dead", 0)
    shell.ok("dead", verb, "--all", "--yes")
    statements = shell.ok("dead", "show", str(letter), "--json").document["sql"]
    rows.connection.execute(next(sql for purpose, sql in statements.items() if purpose.startswith("undo")))
    assert (rows.status_of(letter), value(rows.connection, resolved)) == ("dead", 0)
