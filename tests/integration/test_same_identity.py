"""Two outboxes of one database whose schemas and names make one `transactional.id`: they would fence each other."""

from __future__ import annotations

import pytest

from outboxd.kafka.transactional.progress import transactional_id
from outboxd.postgres.migrate import upgrade
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig
from tests.support.rows import Connection
from tests.support.shell import Shell, shell_on

EXACTLY_ONCE = {"delivery": "exactly-once"}
PROBLEM = (
    "the outbox c of the schema a-b, which {} relays with exactly-once delivery, and the outbox b-c of the schema a"
)


@pytest.fixture
def shell(empty_database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line of the outbox b-c of the schema a, beside the schema a-b."""
    for schema in ("a-b", "a"):
        upgrade(empty_database.url, schema)
    return shell_on(
        empty_database, monkeypatch, capsys, OUTBOXD_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        OUTBOXD_DATABASE__SCHEMA="a", OUTBOXD_OUTBOX__NAME="b-c", OUTBOXD_RELAY__DELIVERY="exactly-once",
    )  # fmt: skip


def lease(connection: Connection, outbox: str, *, undrained: bool = False, ends: str = "1 hour") -> None:
    connection.execute(
        'INSERT INTO "a-b".lease (outbox, holder, daemon, token, expires_at, undrained)'
        " VALUES (%s, gen_random_uuid(), 'here:1', 1, now() + %s::interval, %s)",
        (outbox, ends, undrained),
    )


def test_a_second_daemon_of_one_transactional_id_is_refused_and_the_first_is_not_fenced(rig: Rig) -> None:
    assert transactional_id("app", "a-b", "c") == transactional_id("app", "a", "b-c")
    for schema in ("a-b", "a"):
        upgrade(rig.database.url, schema)
    first, second = (
        rig.daemon(database={"schema": schema}, outbox={"name": outbox}, relay=EXACTLY_ONCE)
        for schema, outbox in (("a-b", "c"), ("a", "b-c"))
    )
    first.start()
    first.wait_for_event("recovered")
    ended = second.run(timeout_seconds=60)
    assert ended.code == 78
    assert PROBLEM.split("{}", maxsplit=1)[0] in ended.err
    assert ended.err.strip().endswith("Give one of the two another outbox.name")
    assert first.events("producer_rebuilt") == []
    assert first.stop().code == 0


def test_check_names_the_other_outbox(empty_database: Database, shell: Shell) -> None:
    with empty_database.connect() as connection:
        lease(connection, "c")
    answer = shell("check", "--json")
    assert answer.code == 78
    (finding,) = [each for each in answer.document["findings"] if each["weight"] == "misconfigured"]
    assert finding["message"].startswith(PROBLEM.format("here:1"))


@pytest.mark.parametrize(
    ("outbox", "undrained", "ends"),
    [("d", False, "1 hour"), ("c", True, "1 hour"), ("c", False, "-1 second")],
    ids=["another-name", "at-least-once", "ended"],
)
def test_check_says_nothing_of_an_outbox_that_takes_no_transactional_id_from_this_one(
    empty_database: Database, shell: Shell, outbox: str, undrained: bool, ends: str
) -> None:
    with empty_database.connect() as connection:
        lease(connection, outbox, undrained=undrained, ends=ends)
        # Tables of others, and of an older outboxd, are not asked what they do not know.
        connection.execute('CREATE SCHEMA "a-b-c"; CREATE TABLE "a-b-c".lease (outbox text)')
    document = shell("check", "--json").document
    assert [each["message"] for each in document["findings"] if each["weight"] == "misconfigured"] == []
