"""`outboxd check`: every problem at once, each with what to do, and the exit code of the worst."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from outboxd.cli.daemon_page import DaemonPage
from outboxd.policy.exchange.findings import Weight
from outboxd.postgres.checks.inspection import inspect
from outboxd.postgres.checks.sql_interface import FUNCTIONS, VIEWS, missing_objects
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.migrate import upgrade
from outboxd.postgres.schema.names import quoted
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import MakeTopic, fresh_name, started
from tests.support.postgres_fixtures import Database
from tests.support.rows import Letters
from tests.support.shell import Shell, shell_on

RunCheck = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def shell_with(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Shell]:
    def make(bootstrap: str, user: str = "postgres", **settings: str) -> Shell:
        return shell_on(
            database, monkeypatch, capsys, user=user, OUTBOXD_KAFKA__BOOTSTRAP_SERVERS=bootstrap, **settings
        )

    return make


def problems(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (finding["area"], finding["weight"])
        for finding in document["findings"]
        if finding["weight"] not in {"ok", "warning"}
    ]


def test_an_empty_migrated_outbox_and_a_broker_are_all_that_is_needed(
    kafka: KafkaCluster, shell_with: Callable[..., Shell]
) -> None:
    answer = shell_with(kafka.bootstrap).ok("check", "--json")
    assert problems(answer.document) == []
    assert (answer.document["exit_code"], answer.document["problems"], answer.document["warnings"]) == (0, 0, 0)
    text = shell_with(kafka.bootstrap).ok("check").out
    assert text.splitlines()[-1] == "0 problems, 0 warnings"
    assert "1 broker" in text


def test_topics_of_pending_rows_are_told_apart_missing_illegal_unsafe(
    kafka: KafkaCluster, topic: MakeTopic, shell_with: Callable[..., Shell], database: Database
) -> None:
    with database.connect() as connection:
        rows = Letters(connection)
        there, compacted = topic(prefix="there"), topic(config={"cleanup.policy": "compact"}, prefix="compacted")
        missing = fresh_name("missing")
        for name in (there, compacted, missing, "not legal"):
            rows.enqueue(name)
        rows.publish(rows.enqueue("published-long-ago"))
    answer = shell_with(kafka.bootstrap)("check", "--json")
    by_message = {finding["message"]: finding["weight"] for finding in answer.document["findings"]}
    assert answer.code == answer.document["exit_code"] == 69
    assert by_message[f"{missing} is not there, or may not be seen: 1 pending row waits"] == "unavailable"
    assert by_message[f"{there}: one replica: a lost broker loses acknowledged records"] == "warning"
    assert by_message[f"{compacted}: it is compacted: rows without a key are refused"] == "warning"
    assert any("INVALID_TOPIC" in message and weight == "warning" for message, weight in by_message.items())
    assert not any("published-long-ago" in message for message in by_message)


def test_a_missing_topic_for_copies_is_told_as_one(
    kafka: KafkaCluster, shell_with: Callable[..., Shell], database: Database
) -> None:
    missing = fresh_name("copies")
    answer = shell_with(kafka.bootstrap, OUTBOXD_ALERTS__DEAD_LETTER_TOPIC=missing)("check")
    assert answer.code == 69
    assert f"{missing} is not there, or may not be seen: copies of dead letters wait for it" in answer.out
    assert "pending row" not in answer.out


def test_warnings_do_not_change_the_exit_code(
    kafka: KafkaCluster, topic: MakeTopic, shell_with: Callable[..., Shell], database: Database
) -> None:
    with database.connect() as connection:
        Letters(connection).enqueue(topic(config={"max.message.bytes": "5000"}))
    document = shell_with(kafka.bootstrap).ok("check", "--json").document
    assert document["warnings"] == 2
    assert any('"batch.size" = 5000' in finding["remedy"] for finding in document["findings"])


def test_listening_where_transactions_can_be_prepared_is_warned_of(
    kafka: KafkaCluster, shell_with: Callable[..., Shell]
) -> None:
    document = shell_with(kafka.bootstrap, OUTBOXD_RELAY__LISTEN="true").ok("check", "--json").document

    (warning,) = [finding for finding in document["findings"] if finding["weight"] == "warning"]
    assert "max_prepared_transactions" in warning["message"]


def test_a_page_whose_address_is_not_there_is_warned_of(
    kafka: KafkaCluster, shell_with: Callable[..., Shell], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    (tmp_path / "token").chmod(0o600)
    shell = shell_with(
        kafka.bootstrap, OUTBOXD_HTTP__LISTEN="192.0.2.1:9464", OUTBOXD_HTTP__TOKEN_FILE=str(tmp_path / "token")
    )
    (warning,) = [each for each in shell.ok("check", "--json").document["findings"] if each["weight"] == "warning"]
    assert "http.listen: this machine has no address 192.0.2.1 at present" in warning["message"]


def test_every_missing_right_is_named_at_once(
    kafka: KafkaCluster, shell_with: Callable[..., Shell], database: Database
) -> None:
    with database.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS halfway")
        connection.execute("CREATE ROLE halfway LOGIN")
        try:
            answer = shell_with(kafka.bootstrap, user="halfway")("check", "--json")
            assert answer.code == 77
            assert [finding["message"] for finding in answer.document["findings"] if finding["area"] == "grants"] == [
                "the role may not use the schema 'outboxd'"
            ]
            connection.execute("GRANT USAGE ON SCHEMA outboxd TO halfway")
            connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA outboxd TO halfway")
            connection.execute("GRANT INSERT, UPDATE, DELETE ON outboxd.retry, outboxd.start TO halfway")
            answer = shell_with(kafka.bootstrap, user="halfway")("check", "--json")
            messages = [finding["message"] for finding in answer.document["findings"] if finding["area"] == "grants"]
            assert messages == [
                'the role may not UPDATE, DELETE on "outboxd"."outbox"',
                'the role may not INSERT, UPDATE, DELETE on "outboxd"."dead_letter"',
                'the role may not INSERT, UPDATE on "outboxd"."lease"',
                'the role may not INSERT on "outboxd"."control"',
                'the role may not INSERT, UPDATE on "outboxd"."progress"',
            ]
        finally:
            connection.execute("DROP OWNED BY halfway")
            connection.execute("DROP ROLE halfway")


def test_the_relays_role_of_the_documentation_passes(
    kafka: KafkaCluster, shell_with: Callable[..., Shell], database: Database
) -> None:
    from tests.integration.test_roles import make_roles

    make_roles(database, "prefix=checked")
    with database.connect() as connection:
        try:
            connection.execute("DROP ROLE IF EXISTS checked_login")
            connection.execute("CREATE ROLE checked_login LOGIN IN ROLE checked_relay")
            assert problems(shell_with(kafka.bootstrap, user="checked_login").ok("check", "--json").document) == []
        finally:
            roles = "checked_writer, checked_relay, checked_operator, checked_reader"
            connection.execute(f"DROP OWNED BY {roles}")
            connection.execute(f"DROP ROLE IF EXISTS checked_login, {roles}")


def test_both_servers_away_are_two_problems_and_69(shell_with: Callable[..., Shell]) -> None:
    shell = shell_with("127.0.0.1:1", OUTBOXD_DATABASE__URL="postgresql://u:hush@127.0.0.1:1/d")
    answer = shell("check", "--json")
    assert answer.code == 69
    assert problems(answer.document) == [("database", "unavailable"), ("broker", "unavailable")]
    assert "hush" not in answer.out + answer.err


def test_a_parameter_of_the_url_that_cannot_be_used_is_misconfigured_for_every_command(
    shell_with: Callable[..., Shell],
) -> None:
    shell = shell_with("127.0.0.1:1", OUTBOXD_DATABASE__URL="postgresql://u@127.0.0.1:1/d?connect_timeout=abc")
    for arguments in (["check", "--json"], ["check", "--offline", "--json"], ["status"], ["migrate"], ["run"]):
        answer = shell(*arguments)
        assert answer.code == 78
        assert "connect_timeout is no number of seconds" in answer.out + answer.err
        assert "--json" not in arguments or problems(answer.document) == [("configuration", "misconfigured")]


def test_the_worst_problem_decides(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = shell_on(empty_database, monkeypatch, capsys, OUTBOXD_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    answer = shell("check", "--json")
    assert answer.code == 78
    assert problems(answer.document) == [("schema", "misconfigured"), ("broker", "unavailable")]
    assert "run `outboxd migrate`" in answer.out


def test_a_table_that_is_not_an_outbox_is_found(
    kafka: KafkaCluster, shell_with: Callable[..., Shell], database: Database
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE outboxd.legacy (id bigint, topic text)")
    answer = shell_with(kafka.bootstrap, OUTBOXD_OUTBOX__TABLE="legacy")("check", "--json")
    assert answer.code == 78
    assert any('"legacy" lacks event_id, key, payload' in finding["message"] for finding in answer.document["findings"])
    answer = shell_with(kafka.bootstrap, OUTBOXD_OUTBOX__TABLE="absent")("check", "--json")
    assert any("there is no table" in finding["message"] for finding in answer.document["findings"])


@pytest.fixture(scope="module")
def guarded() -> Iterator[KafkaCluster]:
    yield from started(lambda: KafkaCluster(sasl=True, plain_users={"relay": "relay-secret"}))


def sasl(user: str, password: str) -> dict[str, str]:
    return {
        "OUTBOXD_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "OUTBOXD_KAFKA__SASL_MECHANISM": "PLAIN",
        "OUTBOXD_KAFKA__SASL_USERNAME": user,
        "OUTBOXD_KAFKA__SASL_PASSWORD": password,
    }


def test_a_wrong_password_and_a_missing_acl_are_rights(
    guarded: KafkaCluster, shell_with: Callable[..., Shell], database: Database
) -> None:
    name = guarded.create_topic(fresh_name(), partitions=1)
    with database.connect() as connection:
        Letters(connection).enqueue(name)
    answer = shell_with(guarded.bootstrap, **sasl("relay", "wrong-secret"))("check", "--json")
    assert (answer.code, problems(answer.document)) == (77, [("broker", "forbidden")])
    assert "wrong-secret" not in answer.out + answer.err
    answer = shell_with(guarded.bootstrap, **sasl("relay", "relay-secret"))("check", "--json")
    assert (answer.code, problems(answer.document)) == (77, [("topics", "forbidden")])
    guarded.grant("relay", name)
    assert problems(shell_with(guarded.bootstrap, **sasl("relay", "relay-secret")).ok("check", "--json").document) == []


def test_nothing_but_the_configuration_is_looked_at_offline(shell_with: Callable[..., Shell]) -> None:
    shell = shell_with("127.0.0.1:1", OUTBOXD_DATABASE__URL="postgresql://u@127.0.0.1:1/d")
    assert {finding["area"] for finding in shell.ok("check", "--offline", "--json").document["findings"]} == {
        "configuration", "installation",
    }  # fmt: skip


def test_a_broken_configuration_is_listed_whole_as_one_document(
    tmp_path: Path, shell_with: Callable[..., Shell]
) -> None:
    file = tmp_path / "outboxd.toml"
    file.write_text("[relay]\nbatch_rows = 0\n[relax]\n[kafka]\nacks = 1\n")
    answer = shell_with("127.0.0.1:1")("check", "--json", "-c", str(file))
    assert answer.code == 78
    assert problems(answer.document) == [("configuration", "misconfigured")] * 3
    file.write_text("[relay]\nbatch_rows = 0\n")
    answer = shell_with("127.0.0.1:1")("check", "--offline", "-c", str(file))
    assert answer.code == 78
    assert f"problem  configuration  {file}:2: relay.batch_rows" in answer.out
    assert "1 problem, 0 warnings" in answer.out


def test_files_are_looked_at_without_a_connection(tmp_path: Path, shell_with: Callable[..., Shell]) -> None:
    file = tmp_path / "outboxd.toml"
    file.write_text('[database]\npassword = "hush"\n')
    file.chmod(0o644)
    shell = shell_with("h:1", OUTBOXD_KAFKA__SSL_KEY_LOCATION=str(tmp_path / "absent.pem"))
    answer = shell("check", "--offline", "--json", "-c", str(file))
    assert (answer.code, problems(answer.document)) == (78, [("configuration", "misconfigured")])
    assert answer.document["warnings"] == 1
    file.chmod(0o640)
    assert shell("check", "--offline", "--json", "-c", str(file)).document["warnings"] == 0


@pytest.mark.parametrize(("command", "warnings"), [("/absent/page --all", 1), ("sh -c true", 0), ("", 0)])
def test_an_alert_program_that_is_not_there_is_warned_of(
    command: str, warnings: int, shell_with: Callable[..., Shell]
) -> None:
    answer = shell_with("h:1", OUTBOXD_ALERTS__COMMAND=command).ok("check", "--offline", "--json")
    assert answer.document["warnings"] == warnings
    assert ("/absent/page" in answer.out) == bool(warnings)


def test_sasl_without_a_mechanism_is_told_with_what_to_set(shell_with: Callable[..., Shell]) -> None:
    shell = shell_with("127.0.0.1:1", OUTBOXD_KAFKA__SECURITY_PROTOCOL="sasl_plaintext")
    answer = shell("check")
    assert answer.code == 78
    assert "→ set sasl.mechanism of [kafka]" in answer.out


def test_without_brokers_configured_it_says_how_to_name_them(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OUTBOXD_KAFKA__BOOTSTRAP_SERVERS", raising=False)
    answer = shell_on(database, monkeypatch, capsys)("check", "--json")
    assert answer.code == 78
    assert problems(answer.document) == [("configuration", "misconfigured")]
    assert any(finding["area"] == "database" for finding in answer.document["findings"])
    assert "default: kafka.bootstrap.servers: is not set" in answer.out


def test_rows_in_doubt_are_a_problem_for_exactly_once_delivery(
    kafka: KafkaCluster, shell_with: Callable[..., Shell], database: Database
) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO outboxd.lease (outbox, shard, holder, daemon, token, expires_at, undrained)"
            " VALUES ('default', 0, gen_random_uuid(), 'there:1', 1, now() - interval '1 min', true)"
        )
    assert shell_with(kafka.bootstrap)("check").code == 0
    answer = shell_with(kafka.bootstrap, OUTBOXD_RELAY__DELIVERY="exactly-once")("check", "--json")
    assert answer.code == 78
    assert ("database", "misconfigured") in problems(answer.document)
    assert any("did not drain it" in finding["message"] for finding in answer.document["findings"])


def test_a_progress_topic_that_is_gone_after_a_transaction_was_settled_is_a_problem(
    kafka: KafkaCluster, shell_with: Callable[..., Shell], database: Database
) -> None:
    shell = shell_with(kafka.bootstrap, OUTBOXD_RELAY__DELIVERY="exactly-once")
    shell.ok("check")
    with database.connect() as connection:
        connection.execute("INSERT INTO outboxd.progress (outbox, shard, settled_transaction) VALUES ('default', 0, 5)")
    answer = shell("check", "--json")
    assert answer.code == 78
    assert problems(answer.document) == [("exactly-once", "misconfigured")]
    assert any("transaction 5 was settled: nothing is sent" in each["message"] for each in answer.document["findings"])


def test_a_table_that_an_outbox_of_another_name_relays_is_a_problem(
    kafka: KafkaCluster, shell_with: Callable[..., Shell], database: Database
) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO outboxd.lease (outbox, shard, holder, daemon, token, expires_at, relayed_table)"
            " VALUES ('orders', 0, gen_random_uuid(), 'there:1', 1, now() + interval '1 min', 'outbox')"
        )
    answer = shell_with(kafka.bootstrap)("check", "--json")
    assert answer.code == 78
    assert problems(answer.document) == [("database", "misconfigured")]
    assert any(
        "relayed by there:1 as the outbox orders" in finding["message"] for finding in answer.document["findings"]
    )
    assert shell_with(kafka.bootstrap, OUTBOXD_OUTBOX__NAME="orders").ok("check").code == 0


@pytest.mark.parametrize("schema", ["outboxd", 'odd "name'])
def test_views_and_functions_that_were_dropped_are_named(empty_database: Database, schema: str) -> None:
    engine = make_engine(empty_database.url)
    try:
        upgrade(engine, schema)
        with engine.connect() as connection:
            assert list(missing_objects(connection, schema)) == []
            name = quoted(schema)
            connection.execute(text(f"DROP VIEW {name}.held_keys CASCADE"))
            connection.execute(text(f"DROP FUNCTION {name}.replay(bigint[], boolean, text)"))
            connection.execute(text(f"DROP FUNCTION {name}.past_note({name}.dead_letter)"))
        found = [each for each in inspect(engine, schema, "outbox", "default").findings if "missing" in each.message]
        assert [(each.weight, each.message.partition("made: ")[2]) for each in found] == [
            (Weight.MISCONFIGURED, "past_note(dead_letter)"),
            (Weight.WARNING, "held_keys, replay(bigint[], boolean, text), status"),
        ]
        assert "pg_dump" in found[0].remedy
        with engine.connect() as connection:
            connection.execute(text(f"DROP TABLE {name}.dead_letter CASCADE"))
            told = " ".join(each.message for each in missing_objects(connection, schema))
            assert "past_note(dead_letter)" in told
            assert "dead_letter_recent" in told
    finally:
        engine.dispose()


def test_every_view_and_function_that_the_migrations_make_is_looked_for(database: Database) -> None:
    with database.connect() as sql:
        views = sql.execute("SELECT viewname FROM pg_views WHERE schemaname = 'outboxd'").fetchall()
        functions = sql.execute(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace('outboxd')"
        ).fetchone()
    assert {row[0] for row in views} == set(VIEWS)
    assert functions == (len(FUNCTIONS),)


def test_what_a_daemon_on_this_machine_is_troubled_by_is_told_though_the_servers_look_well(
    kafka: KafkaCluster, shell_with: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    page: dict[str, Any] = {"outbox": "default", "daemon": "here:7", "state": "relaying, idle", "relay": {}}
    monkeypatch.setattr(DaemonPage, "status", lambda _: page)

    def told() -> list[tuple[str, str]]:
        found = shell_with(kafka.bootstrap).ok("check", "--json").document["findings"]
        return [(each["weight"], each["message"]) for each in found if each["area"] == "daemon"]

    assert told() == [("ok", "here:7: relaying, idle")]
    page["relay"] = {"stalled_topics": {"orders": "refused"}}
    assert told() == [("warning", "here:7: the oldest record of topic orders gets no answer: refused")]
    page["outbox"] = "another"
    assert told() == []
