"""`outboxd send`, `pause`, `resume` and `status` on a real PostgreSQL."""

from __future__ import annotations

import http.server
import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from outboxd.postgres.migrate import upgrade
from outboxd.postgres.operators import overview
from tests.integration.test_roles import make_roles
from tests.support.postgres_fixtures import Database
from tests.support.rows import Letters, value
from tests.support.shell import Shell, shell_on


@pytest.fixture
def rows(database: Database) -> Iterator[Letters]:
    with database.connect() as connection:
        yield Letters(connection)


@pytest.fixture
def shell(database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return shell_on(database, monkeypatch, capsys)


def test_send_commits_one_row_and_prints_its_ids(shell: Shell, rows: Letters) -> None:
    document = shell.ok(
        "send", "orders", "--key", "k", "--header", "a=1", "--header", "b=x=y", "--payload", "größe", "--json"
    ).document
    assert rows.connection.execute(
        "SELECT id, event_id::text, topic, key, convert_from(payload, 'UTF8'), headers FROM outboxd.outbox"
    ).fetchall() == [(document["id"], document["event_id"], "orders", "k", "größe", {"a": "1", "b": "x=y"})]
    assert shell.ok("send", "orders").out.startswith("id 2\nevent_id ")


def test_send_takes_a_payload_from_standard_input_or_none_at_all(
    shell: Shell, rows: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\x00\n")))
    shell.ok("send", "orders", "--payload", "-")
    shell.ok("send", "orders", "--payload", "")
    shell.ok("send", "orders")
    stored = [bytes(row[0]) if isinstance(row[0], bytes) else row[0] for row in rows.connection.execute(
        "SELECT payload FROM outboxd.outbox ORDER BY id"
    )]  # fmt: skip
    assert stored == [b"\xff\x00\n", b"", None]


def test_an_input_without_an_end_is_not_read_for_ever(
    shell: Shell, rows: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outboxd.cli.send.PAYLOAD_BYTES_LIMIT", 3_000_000)
    with Path("/dev/zero").open() as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        answer = shell("send", "orders", "--payload", "-")
    assert (answer.code, answer.out) == (64, "")
    assert "standard input has 3,000,000 bytes or more" in answer.err
    assert value(rows.connection, "SELECT count(*) FROM outboxd.outbox") == 0


def test_headers_keep_order_and_repeats_where_they_matter(shell: Shell, rows: Letters) -> None:
    shell.ok("send", "orders", "--header", "a=1", "--header", "b=2", "--header", "a=3")
    assert value(rows.connection, "SELECT headers FROM outboxd.outbox") == [["a", "1"], ["b", "2"], ["a", "3"]]
    answer = shell("send", "orders", "--header", "oops")
    assert answer.code == 64
    assert "NAME=VALUE" in answer.err


@pytest.mark.parametrize(
    "command",
    [
        "send orders --key BYTES", "send orders --header a=BYTES", "send orders --header BYTES=1", "send BYTES",
        "pause BYTES", "pause orders --note BYTES", "resume BYTES", "dead list --topic BYTES", "dead list --key BYTES",
        "dead list --code BYTES", "dead summary --topic BYTES", "dead summary --key BYTES", "dead summary --code BYTES",
        "dead export --topic BYTES", "dead replay --topic BYTES --yes", "dead discard 1 --yes --note BYTES",
        "audit --topic BYTES",
    ],
)  # fmt: skip
def test_text_that_postgresql_cannot_store_is_a_wrong_use(shell: Shell, rows: Letters, command: str) -> None:
    rows.bury(rows.enqueue())
    rows.enqueue()
    shell.monkeypatch.setenv("OUTBOXD_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    answer = shell(*command.replace("BYTES", "\udcff").split())
    assert (answer.code, answer.out) == (64, "")
    assert "UTF-8" in answer.err


def test_a_role_that_may_only_write_can_send(
    database: Database, rows: Letters, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows.connection.execute("DROP ROLE IF EXISTS scribe")
    rows.connection.execute("CREATE ROLE scribe LOGIN")
    rows.connection.execute("GRANT USAGE ON SCHEMA outboxd TO scribe")
    rows.connection.execute(
        "GRANT INSERT (topic, key, payload, headers, event_id), SELECT (id) ON outboxd.outbox TO scribe"
    )
    try:
        assert shell_on(database, monkeypatch, capsys, user="scribe").ok("send", "orders").out.startswith("id 1\n")
        answer = shell_on(database, monkeypatch, capsys, user="scribe")("status")
        assert (answer.code, answer.out) == (77, "")
        assert "permission denied" in answer.err
    finally:
        rows.connection.execute("DROP OWNED BY scribe")
        rows.connection.execute("DROP ROLE scribe")


@pytest.mark.parametrize("command", [["send", "t"], ["status"], ["pause", "t"], ["resume", "t"], ["dead", "summary"]])
def test_without_tables_every_command_says_to_migrate(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    answer = shell_on(empty_database, monkeypatch, capsys)(*command)
    assert (answer.code, answer.out) == (78, "")
    assert "run `outboxd migrate`" in answer.err


def test_pausing_and_resuming_by_the_same_pattern(shell: Shell, rows: Letters) -> None:
    assert shell.ok("pause", "metrics.*", "--note", "the sink is down").out == (
        "paused metrics.*\nundo: outboxd resume 'metrics.*'\n"
    )
    assert shell.ok("pause", "metrics.*", "--json").document == {"paused": "metrics.*", "changed": False}
    paused = shell.ok("status", "--json").document["paused"]
    assert [(each["topic_pattern"], each["note"]) for each in paused] == [("metrics.*", "the sink is down")]
    assert "the sink is down" in shell.ok("status").out
    shell.ok("pause", "evil\x1b[2J")
    answer = shell("resume", "metrics")
    assert answer.code == 64
    assert "paused are: evil\\x1b[2J, metrics.*" in answer.err
    # Who sees a topic on hold may take that for a pause.
    assert "on hold for a fault goes on by itself once that is mended" in " ".join(answer.err.split())
    assert "\x1b" not in answer.err
    assert shell.ok("resume", "evil\x1b[2J").out == "resumed evil\\x1b[2J\n"
    assert shell.ok("resume", "metrics.*", "--json").document == {"resumed": "metrics.*"}
    assert value(rows.connection, "SELECT count(*) FROM outboxd.control") == 0
    assert shell("pause", "").code == 64


def test_no_note_of_a_pause_forges_a_line_or_drives_a_terminal(shell: Shell, rows: Letters) -> None:
    forged = "x\npaused       nothing\x1b[2J"
    said = shell.ok("pause", forged, "--note", forged).out.splitlines()
    assert said == [
        r"paused x\x0apaused       nothing\x1b[2J", r"undo: outboxd resume $'x\u000apaused       nothing\u001b[2J'",
    ]  # fmt: skip
    out = shell.ok("status").out
    assert "\x1b" not in out
    (line,) = (line for line in out.splitlines() if line.startswith("paused"))
    assert line.startswith(r"paused       x\x0apaused       nothing\x1b[2J by postgres, ")
    assert line.endswith(r": x\x0apaused       nothing\x1b[2J")


def test_a_pause_of_an_outbox_that_nobody_relays_says_so_beside_its_result(shell: Shell, rows: Letters) -> None:
    rows.acquire()
    assert shell.ok("pause", "orders").err == ""
    answer = shell.ok("pause", "orders", "--set", "outbox.name=typo", "--json")
    assert answer.document == {"paused": "orders", "changed": True}
    assert answer.err == (
        "schema 'outboxd': no daemon has relayed an outbox \"typo\" from this schema yet, so nothing waits until one "
        "does; relayed are: default\n"
    )


def test_what_postgresql_remarks_on_a_pause_is_told_though_the_role_asks_for_no_notices(
    shell: Shell, rows: Letters, database: Database
) -> None:
    rows.connection.execute(f"ALTER DATABASE {database.name} SET client_min_messages = 'error'")
    assert "no daemon has relayed an outbox" in shell.ok("pause", "orders").err


def test_what_a_trigger_or_a_constraint_refuses_is_no_bug(shell: Shell, rows: Letters) -> None:
    rows.connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'orders are closed'; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON outboxd.control FOR EACH ROW EXECUTE FUNCTION refuse();"
        " ALTER TABLE outboxd.outbox ADD CONSTRAINT short CHECK (length(topic) < 5)"
    )
    paused = shell("pause", "orders")
    assert (paused.code, paused.out) == (64, "")
    assert paused.err.startswith("outboxd: PostgreSQL refuses: orders are closed (PL/pgSQL function public.refuse() ")
    sent = shell("send", "orders")
    assert (sent.code, sent.out) == (64, "")
    assert 'violates check constraint "short"; look at' in sent.err


def test_what_the_server_says_drives_no_terminal(shell: Shell, rows: Letters) -> None:
    rows.connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no %', NEW.topic; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON outboxd.outbox FOR EACH ROW EXECUTE FUNCTION refuse();"
    )
    sent = shell("send", "\x1b[2J\u202eevil")
    assert sent.code == 64
    assert sent.err.startswith(r"outboxd: PostgreSQL refuses: no \x1b[2J\x202eevil (PL/pgSQL function ")


def test_status_of_an_outbox_that_nobody_used(shell: Shell) -> None:
    document = shell.ok("status", "--json").document
    assert (document["outbox"], document["pending"], document["dead"], document["lease"]) == ("default", 0, 0, None)
    assert document["daemon"] is None
    assert "no daemon yet" in shell.ok("status").out


def test_status_tells_backlog_retries_dead_held_keys_and_who_relays(shell: Shell, rows: Letters) -> None:
    rows.acquire()
    rows.enqueue(key="waits")
    retried = rows.enqueue(key="tried")
    rows.connection.execute(
        "INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, error_code, error_message)"
        " VALUES ('default', %s, 1, now() + interval '1 minute', 'REQUEST_TIMED_OUT', 'slow')",
        (retried,),
    )
    rows.bury(rows.enqueue(key="holds"), holds_key=True)
    rows.bury(rows.enqueue("bills"))
    rows.connection.execute("UPDATE outboxd.outbox SET created_at = now() - interval '1 h' WHERE key = 'waits'")
    document = shell.ok("status", "--json").document
    assert (document["pending"], document["in_retry"], document["dead"]) == (2, 1, 2)
    assert document["pending_is_lower_bound"] is False
    assert 3600 <= document["oldest_pending_age_seconds"] < 3700
    assert document["dead_by_topic"] == {"orders": 1, "bills": 1}
    assert document["held_keys"] == 2
    assert {(held["key"], held["why"]) for held in document["held"]} == {("tried", "retry"), ("holds", "dead letter")}
    assert (document["lease"]["daemon"], document["lease"]["alive"]) == ("here:1", True)
    out = shell.ok("status").out
    for part in (
        "relayed by   here:1",
        "pending      2, the oldest for 60 min",
        "orders: 1",
        "orders holds: dead letter",
    ):
        assert part in out, part
    rows.connection.execute("UPDATE outboxd.lease SET expires_at = now() - interval '1 minute'")
    assert "nobody: the lease of here:1 ended" in shell.ok("status").out


@pytest.mark.parametrize(
    ("created_at", "age"), [("infinity", 0), ("-infinity", 0), ("4713-01-01 BC", 739e3), ("0001-01-01", 739e3)]
)
def test_status_tells_of_a_row_that_an_application_created_at_any_time(
    shell: Shell, rows: Letters, created_at: str, age: float
) -> None:
    shell.ok("pause", "*")
    rows.enqueue()
    rows.connection.execute("UPDATE outboxd.outbox SET created_at = %s", (created_at,))
    document = shell.ok("status", "--json").document
    assert (document["pending"], document["oldest_pending_age_seconds"] >= age * 86_400) == (1, True)
    assert (document["oldest_pending_age_seconds"] < 1) == (age == 0)
    assert "pending      1, the oldest for " in shell.ok("status").out
    told = rows.connection.execute("SELECT pending, oldest_pending_age IS NULL FROM outboxd.status").fetchone()
    assert told == (1, age == 0)


def test_rows_that_wait_for_their_time_are_no_old_backlog(shell: Shell, rows: Letters) -> None:
    rows.connection.execute(
        "INSERT INTO outboxd.outbox (topic, created_at, available_at)"
        " SELECT 'later', now() - interval '1 day', now() + interval '1 day' FROM generate_series(1, 12000)"
    )
    assert "pending      12,000, none due yet" in shell.ok("status").out
    assert shell.ok("status", "--json").document["oldest_pending_age_seconds"] == 0
    assert value(rows.connection, "SELECT oldest_pending_at FROM outboxd.status") is None
    rows.enqueue()
    rows.connection.execute("UPDATE outboxd.outbox SET created_at = now() - interval '2 h' WHERE topic = 'orders'")
    assert "pending      12,001, the oldest for 2 h" in shell.ok("status").out
    assert 7_200 <= shell.ok("status", "--json").document["oldest_pending_age_seconds"] < 7_300
    age = value(rows.connection, "SELECT extract(epoch FROM oldest_pending_age)::float8 FROM outboxd.status")
    assert 7_200 <= age < 7_300


def test_status_counts_no_further_than_it_has_to(shell: Shell, rows: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "COUNTED_MAX", 2)
    for _ in range(4):
        rows.enqueue()
    document = shell.ok("status", "--json").document
    assert (document["pending"], document["pending_is_lower_bound"], document["pending_estimate"]) == (2, True, 4)
    assert "pending      about 4, the oldest for " in shell.ok("status").out


class _Page(http.server.BaseHTTPRequestHandler):
    told: ClassVar[bytes]

    def do_GET(self) -> None:
        body = self.told
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


OURS = {"outbox": "default", "daemon": "here:1", "version": "1", "state": "relaying 12 rows a second", "relay": None}


@pytest.mark.parametrize(
    ("told", "understood"),
    [
        (json.dumps(OURS), OURS),
        (json.dumps({**OURS, "outbox": "another"}), None),
        ('{"state": "green", "relay": "on"}', None),
        ('{"relay": {"breakers": [1], "held_topics": [{}]}}', None),
        ("[" * 100_000, None),
        ("[]", None),
        ("<html>", None),
    ],
    ids=["ours", "of another outbox", "other words", "alike", "deep", "a list", "no JSON"],
)
def test_status_asks_the_daemon_where_it_listens_and_takes_nothing_else_for_one(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    told: str,
    understood: object,
) -> None:
    monkeypatch.setattr(_Page, "told", told.encode(), raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            listen = f"127.0.0.1:{server.server_address[1]}"
            shell = shell_on(database, monkeypatch, capsys, OUTBOXD_HTTP__LISTEN=listen)
            document = shell.ok("status", "--json").document["daemon"]
            assert document == understood
            assert ("it says      relaying 12 rows a second" in shell.ok("status").out) == (understood is not None)
        finally:
            server.shutdown()
            thread.join()
    assert shell.ok("status", "--json").document["daemon"] is None


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_what_only_looks_at_the_page_tells_the_token_to_nobody(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    """Whoever is quick may have the port while the daemon is down, and answer as it would."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(_Page, "told", json.dumps(OURS).encode(), raising=False)
    monkeypatch.setattr(
        _Page, "log_message", lambda page, *_: asked.append((page.path, str(page.headers))), raising=False
    )
    with http.server.ThreadingHTTPServer((host, 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            listen = f"{host}:{server.server_address[1]}"
            shell = shell_on(
                database, monkeypatch, capsys, OUTBOXD_HTTP__LISTEN=listen, OUTBOXD_HTTP__TOKEN="correct horse"
            )
            shell.ok("status", "--json")
            shell("top", "--once")
        finally:
            server.shutdown()
            thread.join()
    assert {path for path, _ in asked} >= {"/status", "/metrics"}
    assert not [headers for _, headers in asked if "correct horse" in headers or "authorization" in headers.lower()]


def test_another_table_and_schema_serve_as_well(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upgrade(empty_database.url, 'My "Schema:s')
    with empty_database.connect() as connection:
        connection.execute('ALTER TABLE "My ""Schema:s".outbox RENAME TO "Box :x"')
    shell = shell_on(
        empty_database, monkeypatch, capsys,
        OUTBOXD_DATABASE__SCHEMA='My "Schema:s', OUTBOXD_OUTBOX__TABLE="Box :x", OUTBOXD_OUTBOX__NAME="second",
    )  # fmt: skip
    shell.ok("send", "orders")
    shell.ok("pause", "*")
    document = shell.ok("status", "--json").document
    assert (document["pending"], document["outbox"], len(document["paused"])) == (1, "second", 1)
    shell.ok("resume", "*")


def test_the_operators_role_of_the_documentation_is_enough_for_all_that_operators_do(
    database: Database, rows: Letters, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_roles(database, "prefix=desk")
    rows.acquire()
    letters = [rows.bury(rows.enqueue(key=key)) for key in ("a", "b")]
    rows.connection.execute("DROP ROLE IF EXISTS desk_login")
    rows.connection.execute("CREATE ROLE desk_login LOGIN IN ROLE desk_operator")
    try:
        shell = shell_on(database, monkeypatch, capsys, user="desk_login")
        for command in (
            "status", "pause t", "resume t", "dead summary", "dead list", f"dead show {letters[0]}", "dead export",
            "dead replay --all --dry-run", f"dead replay {letters[0]} --yes", f"dead discard {letters[1]} --yes",
        ):  # fmt: skip
            shell.ok(*command.split())
        assert [rows.status_of(letter) for letter in letters] == ["replaying", "discarded"]
    finally:
        roles = "desk_writer, desk_relay, desk_operator, desk_reader"
        rows.connection.execute(f"DROP OWNED BY {roles}")
        rows.connection.execute(f"DROP ROLE desk_login, {roles}")
