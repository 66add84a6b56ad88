"""Every code that a broker can answer a Produce request with, one by one, through the whole daemon.

What is expected is derived here from the measured facts about each code, never from the table in `outboxd.policy`.
Most of the time a held topic waits for its next probe: several daemons, each with a broker of its own, share the codes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess
from tests.support.mock_broker import MockCluster
from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import Database, fresh_database
from tests.support.rows import value

FACTS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "unit/data/kafka-error-facts.json").read_text())
BROKER_CODES = {fact["code"]: fact for fact in FACTS if fact["code"] >= -1}
DAEMONS = 4

DIES_ALONE = {"dead_letter", "isolate_then_dead_letter"}
CLOCK = "INVALID_TIMESTAMP"
"""A wrong clock looks the same from here: without a neighbour that passes, the topic is held and nothing dies."""
COUNTS_TRIES = {"not_for_producer", "retry_then_halt", "ok"}
"""Codes that mean nothing to a producer are tried a few times before their topic is held: these alone may count."""


def dies(fact: dict[str, Any]) -> bool:
    """Whether a row dies of this code when it fails with it in a batch of its own."""
    return fact["proposed_class"] in DIES_ALONE and fact["name"] != CLOCK


class Bench:
    """One daemon on one mock broker; codes are tried one after the other, each on a topic of its own."""

    def __init__(self, database: Database, mock: MockCluster, daemon: DaemonProcess) -> None:
        self.sql = database.connect()
        self.mock, self.daemon = mock, daemon
        self.sql.execute(
            "CREATE TABLE public.tries (outbox_id bigint, code text);"
            "CREATE FUNCTION public.note_tries() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO public.tries VALUES (NEW.outbox_id, NEW.error_code); RETURN NEW; END $$;"
            "CREATE TRIGGER note_tries AFTER INSERT OR UPDATE ON outboxd.retry FOR EACH ROW"
            " EXECUTE FUNCTION public.note_tries()"
        )

    def send(self, topic: str, keys: list[str], codes: list[int]) -> list[int]:
        """Let the next requests fail with these codes, commit rows of these keys, wait until they are settled."""
        self.mock.create_topic(topic, partitions=1)
        self.mock.push_produce_errors(codes)
        ids = [
            int(str(row[0]))
            for row in self.sql.execute(
                "INSERT INTO outboxd.outbox (topic, key, payload) SELECT %s, k, 'x'"
                " FROM unnest(%s::text[]) WITH ORDINALITY AS u(k, i) ORDER BY i RETURNING id",
                (topic, keys),
            ).fetchall()
        ]
        wait_for(
            lambda: value(
                self.sql, "SELECT count(*) = 0 FROM outboxd.outbox WHERE topic = %s AND published_at IS NULL", topic
            ),
            timeout_seconds=20,
            poll_seconds=0.005,
            what=f"rows of {topic} are settled after {codes}; the daemon said {self.daemon.log_text[-2000:]}",
        )
        self.mock.clear_produce_errors()
        return ids

    def outcome(self, ids: list[int]) -> dict[str, Any]:
        """What became of these rows."""
        dead = self.sql.execute(
            "SELECT outbox_id, error_code, reason, attempts FROM outboxd.dead_letter WHERE outbox_id = ANY(%s)", (ids,)
        ).fetchall()
        offsets = {
            row[0]: row[1]
            for row in self.sql.execute("SELECT id, published_offset FROM outboxd.outbox WHERE id = ANY(%s)", (ids,))
        }
        tries = value(self.sql, "SELECT count(*) FROM public.tries WHERE outbox_id = ANY(%s)", ids)
        return {"dead": dead, "offsets": offsets, "tries": tries}


@contextmanager
def started(database: Database, directory: Path) -> Iterator[Bench]:
    with MockCluster() as mock:
        daemon = DaemonProcess(
            directory,
            {
                "database": {"url": database.url},
                "kafka": {"bootstrap.servers": mock.bootstrap, "linger.ms": "20", "retry.backoff.ms": "10"},
                "retry": {"backoff_initial": "10ms", "backoff_max": "20ms"},
                "relay": {"poll_interval_max": "10ms"},
            },
            name=database.name,
        )
        made = Bench(database, mock, daemon)
        daemon.start()
        try:
            daemon.wait_for_event("owner")
            yield made
        finally:
            daemon.kill()
            made.sql.close()


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Iterator[Bench]:
    with started(database, tmp_path) as made:
        yield made


@pytest.fixture
def benches(postgres_server: PostgresServer, migrated_template: str, tmp_path: Path) -> Iterator[list[Bench]]:
    with ExitStack() as stack:
        databases = [stack.enter_context(fresh_database(postgres_server, migrated_template)) for _ in range(DAEMONS)]
        yield [stack.enter_context(started(database, tmp_path)) for database in databases]


def wrong_by_name(benches: list[Bench], tried: Callable[[Bench, int, dict[str, Any]], object]) -> dict[str, object]:
    """Try every code, each on one of the benches; return what was wrong, by the code's name."""
    codes = list(BROKER_CODES.items())

    def share(place: int) -> dict[str, object]:
        return {fact["name"]: tried(benches[place], code, fact) for code, fact in codes[place :: len(benches)]}

    with ThreadPoolExecutor(len(benches)) as pool:
        found = {name: wrong for shared in pool.map(share, range(len(benches))) for name, wrong in shared.items()}
    assert len(found) == len(codes)
    return {name: wrong for name, wrong in found.items() if wrong}


def fault_alone(bench: Bench, code: int, fact: dict[str, Any]) -> object:
    """What is wrong with what became of a row that fails with this code once in its batch, and once more alone."""
    # More requests than these do not fail.
    (row,) = bench.send(f"alone-{code}", ["k"], [code, code])
    found = bench.outcome([row])
    expected = [(row, fact["name"], "fatal", 1)] if dies(fact) else []
    if found["dead"] != expected:
        return f"dead {found['dead']}, expected {expected}"
    if found["tries"] and fact["proposed_class"] not in COUNTS_TRIES | {"retry"}:
        return f"{found['tries']} attempts counted against the row"
    return None


@pytest.mark.timeout(300)
def test_a_row_dies_of_its_own_permanent_faults_alone_and_of_nothing_that_is_the_clusters(benches: list[Bench]) -> None:
    assert wrong_by_name(benches, fault_alone) == {}
    assert [bench.daemon.stop().code for bench in benches] == [0] * DAEMONS


def fault_together(bench: Bench, code: int, fact: dict[str, Any]) -> object:
    """What is wrong with what became of many rows of a few keys, whose batch fails with this code once."""
    keys = [f"key-{number % 7}" for number in range(21)]
    ids = bench.send(f"batch-{code}", keys, [code])
    found = bench.outcome(ids)
    if found["dead"] and fact["proposed_class"] != "dead_letter":
        return found["dead"]
    offsets = [found["offsets"].get(row_id) for row_id in ids]
    for key in set(keys):
        of_key = [offset for offset, own in zip(offsets, keys, strict=True) if own == key and offset is not None]
        if of_key != sorted(of_key):
            return f"{key} is at {of_key}"
    return None


@pytest.mark.timeout(300)
def test_a_batch_that_fails_once_costs_none_of_its_rows_whatever_the_code_and_keeps_each_keys_order(
    benches: list[Bench],
) -> None:
    assert wrong_by_name(benches, fault_together) == {}
    assert [bench.daemon.stop().code for bench in benches] == [0] * DAEMONS


def test_of_twenty_one_rows_in_one_batch_the_one_that_fails_alone_dies_and_the_others_are_delivered(
    bench: Bench,
) -> None:
    keys = [f"key-{number}" for number in range(21)]
    for code, fact in BROKER_CODES.items():
        if fact["proposed_class"] != "isolate_then_dead_letter" or not dies(fact):
            continue
        ids = bench.send(f"one-{code}", keys, [code, code])
        found = bench.outcome(ids)
        assert [dead[1:] for dead in found["dead"]] == [(fact["name"], "fatal", 1)]
        assert len(found["offsets"]) == 20
