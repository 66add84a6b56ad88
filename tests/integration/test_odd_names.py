"""Names with percent signs, colons, quotes and what our own SQL puts names for: a whole life of rows under them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.operators.dead_letter_copies import DeadLetterCopyRows
from outboxd.postgres.schema.names import quoted
from outboxd.postgres.upkeep.housekeeping import Housekeeping
from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import MakeTopic
from tests.support.postgres_fixtures import Database
from tests.support.rows import Connection, value
from tests.support.shell import Shell, shell_on

SCHEMA = 'a%sb@schema@:c"d%(x)s@outbox@'
TABLE = '50%off@schema@:x"%'
OUTBOX = f"{quoted(SCHEMA)}.{quoted(TABLE)}"
DEAD = f"{quoted(SCHEMA)}.dead_letter"


@pytest.fixture
def shell(
    empty_database: Database, kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """A shell on an outbox of odd names that is migrated."""
    made = shell_on(
        empty_database, monkeypatch, capsys,
        OUTBOXD_DATABASE__SCHEMA=SCHEMA, OUTBOXD_OUTBOX__TABLE=TABLE, OUTBOXD_KAFKA__BOOTSTRAP_SERVERS=kafka.bootstrap,
    )  # fmt: skip
    made.ok("migrate")
    with empty_database.connect() as connection:
        connection.execute(f"CREATE TABLE {OUTBOX} (LIKE {quoted(SCHEMA)}.outbox INCLUDING ALL)")
    return made


@pytest.fixture(params=["mark", "delete"])
def daemon(
    request: pytest.FixtureRequest, empty_database: Database, kafka: KafkaCluster, tmp_path: Path
) -> Iterator[DaemonProcess]:
    """A daemon on that outbox, whose broker fails as a row's payload says."""
    sections = {
        "database": {"url": empty_database.url, "schema": SCHEMA},
        "outbox": {"table": TABLE},
        "kafka": {"bootstrap.servers": kafka.bootstrap},
        "relay": {"after_publish": request.param, "listen": True, "sweep_interval": "100ms"},
        "retry": {"max_attempts": 2, "backoff_initial": "1ms", "backoff_max": "2ms"},
    }
    made = DaemonProcess(tmp_path, sections, [{"topic": "*", "on_dead_letter": "hold-key"}])
    made.module = "tests.support.faulty_daemon"
    yield made
    made.kill()


@pytest.fixture
def sql(empty_database: Database) -> Iterator[Connection]:
    with empty_database.connect() as connection:
        yield connection


def pending(sql: Connection) -> Any:
    return value(sql, f"SELECT count(*) FROM {OUTBOX} WHERE published_at IS NULL")


def test_odd_names_of_schema_and_table_are_relayed_retried_buried_replayed_and_looked_at(
    shell: Shell, daemon: DaemonProcess, sql: Connection, topic: MakeTopic
) -> None:
    name = topic(partitions=1)
    shell.ok("send", name, "--key", "good")
    shell.ok("send", name, "--key", "bad", "--payload", "FAILS 7")
    shell.ok("send", name, "--key", "bad", "--payload", "held behind it")
    daemon.start()

    def is_buried() -> bool:
        # What is delivered meanwhile shows that the fault is the row's own.
        sql.execute(f"INSERT INTO {OUTBOX} (topic, key) VALUES ('{name}', gen_random_uuid()::text)")
        return bool(value(sql, f"SELECT count(*) = 1 FROM {DEAD}"))

    wait_for(is_buried, timeout_seconds=30, what="the row is out of attempts", poll_seconds=0.02)
    wait_for(lambda: pending(sql) == 1, timeout_seconds=30, what=f"one row is held: {daemon.log_text[-2000:]}")
    assert daemon.stop().code == 0

    ended = daemon.run("--until-empty")

    assert ended.code == 0, ended.err
    assert f"still pending: 1 row of topic {name!r}, held or committed late, from id 3" in ended.err
    assert value(sql, f"SELECT (attempts, reason, holds_key)::text FROM {DEAD}") == "(2,exhausted,t)"
    assert shell.ok("status", "--json").document["pending"] == 1
    shell.ok("pause", "*")
    shell.ok("resume", "*")
    shell.ok("check")
    shell.ok("audit")
    shell.ok("dead", "show", "1")

    sql.execute(f"UPDATE {DEAD} SET payload = 'mended'")
    shell.ok("dead", "replay", "1", "--yes", "--force")
    ended = daemon.run("--until-empty")

    assert (ended.code, pending(sql)) == (0, 0), ended.err
    assert value(sql, f"SELECT status FROM {DEAD}") == "replayed"
    assert value(sql, f"SELECT count(*) = 3 AND bool_and(clean) FROM {quoted(SCHEMA)}.start")


def test_housekeeping_and_copies_of_dead_letters_work_under_odd_names(
    shell: Shell, empty_database: Database, sql: Connection
) -> None:
    for status in ("replayed", "dead"):
        sql.execute(
            f"INSERT INTO {DEAD} (outbox, outbox_id, event_id, topic, payload, headers, created_at, attempts, reason,"
            " error_code, error_message, daemon, holds_key, status, resolved_at)"
            " VALUES ('default', 1, gen_random_uuid(), 't', 'x', '{}', now(), 1, 'fatal', 'X', 'x', 'here:1', false,"
            f" '{status}', now() - interval '1 day')"
        )
    shell.ok("send", "t")
    sql.execute(f"UPDATE {OUTBOX} SET published_at = now() - interval '1 hour', created_at = now() - interval '1 day'")
    engine = make_engine(empty_database.url)
    try:
        housekeeping = Housekeeping(engine, SCHEMA, TABLE, "default")
        assert housekeeping.measure().kinds[0].rows == 1
        assert housekeeping.remove_published(0, 100, 1.0).removed == 1
        assert housekeeping.remove_resolved(100, 1.0) == 1
        assert housekeeping.remove_orphaned_retries(100) == housekeeping.remove_old_starts(100) == 0
        copies = DeadLetterCopyRows(engine, SCHEMA, "default")
        copies.copied(copies.waiting())
        assert copies.waiting() == []
    finally:
        engine.dispose()
