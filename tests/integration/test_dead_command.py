"""`outboxd dead` as a person and a script meet it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from outboxd.policy.faults import own_fault
from tests.support.children import wait_for
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


def test_the_summary_as_json_is_what_the_contract_says(shell: Shell, rows: Letters) -> None:
    rows.bury(rows.enqueue(key="a"))
    newest = rows.bury(rows.enqueue(key="b"))
    document = shell.ok("dead", "summary", "--json").document
    assert list(document) == ["groups", "total"]
    (group,) = document["groups"]
    assert list(group) == ["topic", "reason", "error_code", "count", "first", "last", "keys", "sample_id"]
    assert (group["topic"], group["reason"], group["error_code"]) == ("orders", "fatal", "MSG_SIZE_TOO_LARGE")
    assert (group["count"], group["keys"], group["sample_id"], document["total"]) == (2, 2, newest, 2)
    assert shell.ok("dead", "summary", "--json", "--topic", "none").document == {"groups": [], "total": 0}


def test_the_summary_tells_what_broke_since_when_and_whether_it_still_grows(shell: Shell, rows: Letters) -> None:
    assert shell.ok("dead", "summary").out == "no dead letters in outbox default\n"
    letter = rows.bury(rows.enqueue())
    out = shell.ok("dead", "summary").out
    assert "1 dead letter in outbox default, still growing: 1 in the last 10 min" in out
    assert "MSG_SIZE_TOO_LARGE: The record" in out
    assert f"outboxd dead show {letter}" in out
    rows.connection.execute("UPDATE outboxd.dead_letter SET died_at = now() - interval '1 h'")
    assert "not growing: none in the last 10 min" in shell.ok("dead", "summary").out


def test_the_list_says_when_there_is_more(shell: Shell, rows: Letters) -> None:
    ids = [rows.bury(rows.enqueue()) for _ in range(3)]
    document = shell.ok("dead", "list", "--limit", "2", "--json").document
    assert [letter["id"] for letter in document["dead_letters"]] == ids[:0:-1]
    assert document["more"] is True
    assert "there are more" in shell.ok("dead", "list", "--limit", "2").out
    assert "there are more" not in shell.ok("dead", "list").out


def test_show_has_what_a_person_needs_and_its_sql_works(shell: Shell, rows: Letters) -> None:
    letter = rows.bury(rows.enqueue(payload='{"größe": 12}\nzweite Zeile'.encode()))
    rows.connection.execute("""UPDATE outboxd.dead_letter SET headers = '{"trace": "abc", "none": null}'""")
    out = shell.ok("dead", "show", str(letter)).out
    for part in (
        "MSG_SIZE_TOO_LARGE (fatal): ", "max.message.bytes", "safe to replay  yes", "trace: abc", "none: null",
        '  {"größe": 12}\n  zweite Zeile\n', "payload: 28 bytes, text", "1 dead of this topic and error",
        "still growing",
    ):  # fmt: skip
        assert part in out, part
    statements = shell.ok("dead", "show", str(letter), "--json").document["sql"]
    (mend,) = (statement for purpose, statement in statements.items() if purpose.startswith("mend it first"))
    rows.connection.execute(mend)
    assert "payload = convert_to" in mend
    assert rows.connection.execute(statements["replay it"]).fetchone() == (1,)
    assert rows.status_of(letter) == "replaying"
    rows.connection.execute(statements["undo, before it was sent"])
    assert rows.status_of(letter) == "dead"
    rows.connection.execute(statements["give it up"])
    assert rows.status_of(letter) == "discarded"
    rows.connection.execute(shell.ok("dead", "show", str(letter), "--json").document["sql"]["undo"])
    assert rows.status_of(letter) == "dead"


def test_show_prints_bytes_as_hexadecimal_and_drives_no_terminal(shell: Shell, rows: Letters) -> None:
    letter = rows.bury(rows.enqueue(topic="evil\x1b[31m\nname", key="\x9b", payload=b"\xff\x00AB"))
    out = shell.ok("dead", "show", str(letter)).out
    assert "00000000  ff 00 41 42" in out
    assert "..AB" in out
    assert not {"\x1b", "\x9b"} & set(out + shell.ok("dead", "list").out + shell.ok("dead", "summary").out)
    document = shell.ok("dead", "show", str(letter), "--json").document
    assert (document["payload"], document["payload_hex"]) == (None, "ff004142")
    tombstone = rows.bury(rows.enqueue(payload=None))
    assert "payload: null, a tombstone" in shell.ok("dead", "show", str(tombstone)).out


@pytest.mark.parametrize("command", ["dead list --json", "dead show 1 --json", "dead export", "dead export --json"])
def test_json_that_is_shown_drives_no_terminal_and_tells_the_same(shell: Shell, rows: Letters, command: str) -> None:
    key = "\\\x9b2J\x7f\u202e\u2066\u2028"
    rows.bury(rows.enqueue(key=key, payload=key.encode()))
    said = shell.ok(*command.split()).out
    assert not set(key[1:]) & set(said) - {"2", "J"}
    document = json.loads(said)
    told = document if isinstance(document, dict) else document[0]
    assert (told["dead_letters"][0] if command == "dead list --json" else told)["key"] == key


def test_an_empty_key_is_not_shown_as_one_that_is_missing(shell: Shell, rows: Letters) -> None:
    empty, missing = rows.bury(rows.enqueue(key="")), rows.bury(rows.enqueue(key=None))
    shown = [shell.ok("dead", "show", str(letter)).out.splitlines() for letter in (empty, missing)]
    assert 'key             ""' in shown[0]
    assert "key             none" in shown[1]
    by_id = {line.split()[0]: line for line in shell.ok("dead", "list").out.splitlines()}
    assert '  ""  ' in by_id[str(empty)]
    assert "  -  " in by_id[str(missing)].replace("   ", "  ")
    (only,) = shell.ok("dead", "list", "--key", "", "--json").document["dead_letters"]
    assert only["id"] == empty


def test_no_text_of_a_dead_letter_forges_a_line(shell: Shell, rows: Letters) -> None:
    forged = "x\nsafe to replay  yes\rsafe\u2028to"
    letter = rows.bury(rows.enqueue(topic=forged, key=forged))
    rows.connection.execute(
        "UPDATE outboxd.dead_letter SET error_message = %s, headers = jsonb_build_object(%s::text, %s::text)",
        (forged, forged, forged),
    )
    shell.ok("dead", "discard", str(letter), "--yes", "--note", f"why\x1b[2J\n{forged}")
    out = shell.ok("dead", "show", str(letter)).out
    assert "\x1b" not in out
    assert [line for line in out.splitlines() if line.startswith("safe")] == ["safe to replay  it is discarded already"]
    assert "note            why\\x1b[2J\n                x\n                safe to replay  yes" in out
    rows.bury(rows.enqueue(topic=forged))
    summary = shell.ok("dead", "summary").out
    assert [line for line in summary.splitlines() if line.startswith("safe")] == [
        "safe to replay?  outboxd dead replay --topic $'x\\u000asafe to replay  yes\\u000dsafe\\u2028to' --dry-run"
    ]


def test_show_cuts_a_large_payload_unless_told_otherwise(shell: Shell, rows: Letters) -> None:
    letter = rows.bury(rows.enqueue(payload="é".encode() * 5000))
    cut = shell.ok("dead", "show", str(letter)).out
    assert "é" * 4096 + "\n" in cut
    assert "and more: --full shows all" in cut
    assert "é" * 5000 + "\n" in shell.ok("dead", "show", str(letter), "--full").out


@pytest.mark.parametrize(
    ("stored", "shown", "read"),
    [
        ("infinity", "infinity", "infinity"),
        ("-infinity", "-infinity", "-infinity"),
        ("0044-03-15 12:00:00+00 BC", "0044-03-15T12:00:00.000000+00:00 BC", "0044-03-15 12:00:00 UTC BC"),
        ("0001-01-01 00:00:00+00", "0001-01-01T00:00:00.000000+00:00", "0001-01-01 00:00:00 UTC"),
        ("294276-12-31 23:59:59+00", "294276-12-31T23:59:59.000000+00:00", "294276-12-31 23:59:59 UTC"),
        ("2026-01-31 12:00:00.5+02", "2026-01-31T10:00:00.500000+00:00", "2026-01-31 10:00:00 UTC"),
    ],
)
def test_a_time_that_python_cannot_hold_is_shown_as_it_is_stored(
    shell: Shell, rows: Letters, stored: str, shown: str, read: str
) -> None:
    letter = rows.bury(rows.enqueue())
    rows.connection.execute("UPDATE outboxd.dead_letter SET created_at = %s", (stored,))
    rows.connection.execute(f"ALTER DATABASE {rows.connection.info.dbname} SET timezone = 'America/New_York'")
    (listed,) = shell.ok("dead", "list", "--json").document["dead_letters"]
    assert listed["created_at"] == shown
    assert shell.ok("dead", "show", str(letter), "--json").document["created_at"] == shown
    assert json.loads(shell.ok("dead", "export").out)["created_at"] == shown
    assert f"written {read}\n" in shell.ok("dead", "show", str(letter)).out
    shell.ok("dead", "list")


@pytest.mark.parametrize(
    "stored",
    [
        '{"n": 1' + 400 * "0" + "}",
        '{"n": 123456789012345678901234567890}',
        '{"n": 1.10}',
        "[" * 2000 + "]" * 2000,
        "[1, null]",
        '"text"',
    ],
    ids=lambda stored: stored[:12],
)
def test_headers_are_shown_as_they_are_stored_whatever_parsers_make_of_them(
    shell: Shell, rows: Letters, stored: str
) -> None:
    letter = rows.bury(rows.enqueue())
    rows.connection.execute("UPDATE outboxd.dead_letter SET headers = %s::jsonb", (stored,))
    for command in (["list", "--json"], ["show", str(letter), "--json"], ["export"], ["export", "--json"]):
        assert f'"headers":{stored},' in shell.ok("dead", *command).out
    assert f"\n  {stored}\n" in shell.ok("dead", "show", str(letter)).out


def test_a_row_from_before_1970_is_to_be_discarded_and_not_to_be_mended(shell: Shell, rows: Letters) -> None:
    letter = rows.bury(rows.enqueue(), code="INVALID_TIMESTAMP")
    document = shell.ok("dead", "show", str(letter), "--json").document
    assert list(document["sql"]) == ["look at it", "replay it", "give it up", "undo, before it was sent"]
    assert "before 1970 no topic takes it: discard it, and insert it again" in document["remedy"]
    assert own_fault("INVALID_TIMESTAMP").remedy.startswith("Discard it, and insert it again")


def test_an_id_that_is_not_there_is_a_wrong_use(shell: Shell) -> None:
    answer = shell("dead", "show", "99")
    assert (answer.code, answer.out) == (64, "")
    assert "there is no dead letter 99" in answer.err


def test_without_a_terminal_nothing_is_changed_unless_yes_is_said(
    shell: Shell, rows: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = rows.bury(rows.enqueue())
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    for verb in ("replay", "discard"):
        answer = shell("dead", verb, str(letter))
        assert (answer.code, answer.out) == (64, "")
        assert "--yes" in answer.err
    assert rows.status_of(letter) == "dead"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", [("y\n", 0, "replaying"), ("n\n", 130, "dead"), ("", 130, "dead")])
def test_on_a_terminal_it_asks_first_and_not_on_standard_output(
    shell: Shell, rows: Letters, monkeypatch: pytest.MonkeyPatch, answer: tuple[str, int, str]
) -> None:
    typed, code, status = answer
    letter = rows.bury(rows.enqueue())
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    told = shell("dead", "replay", "--topic", "orders", "--json")
    assert told.code == code
    assert "replay 1 dead letter?" in told.err
    assert rows.status_of(letter) == status
    assert code or told.document["replaying"] == 1


def test_a_replay_says_where_no_daemon_is_there_to_send_it(shell: Shell, rows: Letters) -> None:
    first, second = (rows.bury(rows.enqueue(key=None)) for _ in range(2))
    told = shell.ok("dead", "replay", str(first), "--yes").out.splitlines()[0]
    assert told == "replaying 1 dead letter: the daemon sends them now"
    rows.connection.execute("UPDATE outboxd.lease SET expires_at = now()")
    waits = "replaying 1 dead letter: no daemon relays the outbox default now, so they wait until one does"
    assert shell.ok("dead", "replay", str(second), "--yes").out.splitlines()[0] == waits


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_a_dry_run_counts_and_changes_nothing(shell: Shell, rows: Letters, verb: str) -> None:
    letters = [rows.bury(rows.enqueue(key=key)) for key in ("a", "b")]
    assert f"would {verb} 2 dead letters; nothing was changed" in shell.ok("dead", verb, "--all", "--dry-run").out
    assert [rows.status_of(letter) for letter in letters] == ["dead", "dead"]


def test_a_replay_needs_force_where_newer_rows_were_published_and_says_so(shell: Shell, rows: Letters) -> None:
    safe, blocked = rows.bury(rows.enqueue(key="safe")), rows.bury(rows.enqueue(key="newer"))
    newer = rows.enqueue(key="newer")
    rows.publish(newer)
    answer = shell("dead", "replay", "--code", "msg_size_too_large", "--yes", "--json", "--note", "limit raised")
    assert answer.code == 64
    assert (answer.document["replaying"], answer.document["refused"]) == (1, 1)
    assert answer.document["refused_sample"][0]["newer_id"] == newer
    assert (rows.status_of(safe), rows.status_of(blocked)) == ("replaying", "dead")
    assert "limit raised (asked by " in value(
        rows.connection, "SELECT note FROM outboxd.dead_letter WHERE id = %s", safe
    )
    text = shell("dead", "replay", str(blocked), "--yes").out
    assert "1 dead letter not taken; --force" in text
    assert shell.ok("dead", "replay", str(blocked), "--force", "--yes").out.startswith("replaying 1 dead letter")
    assert rows.status_of(blocked) == "replaying"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say which"),
        (["1", "--topic", "t"], "either ids or filters"),
        (["1", "--all"], "either ids or filters"),
        (["--since", "yesterday"], "give a duration"),
        (["--reason", "boredom"], "boredom"),
        (["one"], "'one' is no id: give numbers as `outboxd dead list` shows them"),
        (["99999999999999999999"], "'99999999999999999999' is no id"),
        (["7", "1,2"], "'1,2' is no id: give numbers as `outboxd dead list` shows them, with spaces between"),
        (["1-3"], "'1-3' is no id"),
        (["--since", "2999999d"], "at most 365,000 days back"),
        (["--all", "--rate", "inf"], "less than or equal to 1000000"),
        (["--all", "--rate", "nan"], "should be"),
        (["--all", "--limit", "99999999999999999999"], "less than or equal to 9223372036854775807"),
        (["1", "2", "--limit", "1"], "--limit and --rate are for filters"),
        (["1", "2", "--rate", "5"], "--limit and --rate are for filters"),
    ],
)
def test_a_wrong_choice_of_rows_is_refused_before_anything_is_opened(
    shell: Shell, arguments: list[str], words: str
) -> None:
    answer = shell("dead", "replay", "--yes", *arguments)
    assert answer.code == 64
    assert words in answer.err


def test_a_deadlock_with_another_session_is_no_bug(shell: Shell, rows: Letters, database: Database) -> None:
    first, second = rows.bury(rows.enqueue()), rows.bury(rows.enqueue())
    with database.connect(autocommit=False) as rival, ThreadPoolExecutor(1) as pool:
        # Whoever waits for longest is ended: not the rival.
        rival.execute("SET deadlock_timeout = '1min'")
        rival.execute("SELECT outboxd.discard(%s)", (second,))

        def discard_the_first_once_the_command_waits() -> None:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
            wait_for(
                lambda: value(rows.connection, waiting, database.name) == 1,
                timeout_seconds=30, what="the command to wait for the rival", poll_seconds=0.01,
            )  # fmt: skip
            rival.execute("SELECT outboxd.discard(%s)", (first,))

        crossed = pool.submit(discard_the_first_once_the_command_waits)
        answer = shell("dead", "discard", str(first), str(second), "--yes")
        assert answer.code == 69, answer.err
        crossed.result()
        rival.rollback()
    assert answer.out == ""
    assert "for the sake of another session: deadlock detected; that statement changed nothing" in answer.err
    assert {rows.status_of(first), rows.status_of(second)} == {"dead"}


def test_an_export_has_whole_rows_one_a_line_or_one_array(shell: Shell, rows: Letters) -> None:
    letters = [rows.bury(rows.enqueue(payload=payload)) for payload in (b"text", b"\xff", None)]
    lines = [json.loads(line) for line in shell.ok("dead", "export").out.splitlines()]
    assert [line["id"] for line in lines] == letters
    assert [(line["payload"], line["payload_hex"]) for line in lines] == [
        ("text", "74657874"), (None, "ff"), (None, None),
    ]  # fmt: skip
    assert shell.ok("dead", "export", "--json").document == lines
    assert shell.ok("dead", "export", "--json", "--topic", "none").document == []
    assert len(shell.ok("dead", "export", "--limit", "2").out.splitlines()) == 2


def test_an_export_that_the_database_refuses_writes_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = shell_on(database, monkeypatch, capsys, OUTBOXD_DATABASE__URL="postgresql://nobody@127.0.0.1:1/nowhere")
    answer = away("dead", "export", "--json")
    assert (answer.code, answer.out) == (69, "")
    answer = away("dead", "export", "--limit", "99999999999999999999999")
    assert (answer.code, answer.out) == (64, "")


def test_a_reader_may_look_and_is_told_that_it_may_not_replay(
    database: Database, rows: Letters, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    letter = rows.bury(rows.enqueue())
    rows.connection.execute("DROP ROLE IF EXISTS looker")
    rows.connection.execute("CREATE ROLE looker LOGIN")
    rows.connection.execute("GRANT USAGE ON SCHEMA outboxd TO looker")
    rows.connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA outboxd TO looker")
    try:
        looker = shell_on(database, monkeypatch, capsys, user="looker")
        assert looker.ok("dead", "summary", "--json").document["total"] == 1
        answer = looker("dead", "replay", str(letter), "--yes")
        assert answer.code == 77
        assert "permission denied" in answer.err
        assert "Traceback" not in answer.err
    finally:
        rows.connection.execute("DROP OWNED BY looker")
        rows.connection.execute("DROP ROLE looker")
