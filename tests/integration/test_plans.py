"""How PostgreSQL goes about all that the daemon asks of it: no statement's cost grows with what waits or was published.

On 200,000 rows, so that every run has it; `OUTBOXD_TEST_LARGE=full` takes 1,000,000. The bounds are the same.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import closing

import pytest

from outboxd.postgres.connections.engine import make_engine
from tests.support import daemon_statements
from tests.support.daemon_statements import Pieces
from tests.support.large_outbox import PROFILES, ROWS, LargeOutbox, Profile, Statistics, build, copied, drop
from tests.support.plans import Bound, Plan, faults, watch
from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import Database
from tests.support.repeated_statements import REPEATED, Repeated

STATISTICS: tuple[Statistics, ...] = ("fresh", "stale", "none")
NOTHING_PENDING = {
    "fetch: 100 keys again",
    "fetch: delayed rows whose time came",
    "fetch: everything at once",
    "view: status",
}
"""What may walk all that is pending while the statistics say that next to nothing is, until the next ANALYZE: by them,
any index of pending rows is one page long. Autovacuum comes within about a minute. Published rows are not read even
then.
"""
PREPARED = [name for name in REPEATED if name.startswith(("fetch: ", "settle: "))]
"""Only these are ever prepared, so that PostgreSQL may plan them once for all values."""


@pytest.fixture(scope="module", params=PROFILES, ids=lambda profile: profile.name)
def base(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, migrated_template: str
) -> Iterator[tuple[Database, Profile]]:
    if not postgres_server.installation.has_module("auto_explain"):
        pytest.skip("this PostgreSQL has no auto_explain (it is in postgresql-contrib)")
    made = build(postgres_server, migrated_template, request.param)
    yield made, request.param
    drop(made)


@pytest.fixture(scope="module", params=STATISTICS, ids=lambda statistics: f"statistics-{statistics}")
def outbox(request: pytest.FixtureRequest, base: tuple[Database, Profile]) -> Iterator[LargeOutbox]:
    with copied(*base, request.param) as made:
        yield made


@pytest.fixture(scope="module")
def pieces(outbox: LargeOutbox) -> Iterator[Pieces]:
    with closing(Pieces(outbox)) as made:
        yield made


def bound_of(name: str, outbox: LargeOutbox) -> Bound:
    if outbox.says_nothing_is_pending and name in NOTHING_PENDING:
        return Bound(rows_max=100 * ROWS, buffers_max=100 * ROWS)
    return REPEATED[name].bound


@pytest.mark.parametrize("name", REPEATED)
def test_a_statement_reads_what_it_is_asked_for_and_not_the_outbox(
    pieces: Pieces, outbox: LargeOutbox, name: str
) -> None:
    pieces.plan("force_custom_plan")
    assert_bounded(pieces, REPEATED[name], bound_of(name, outbox))


@pytest.mark.parametrize("name", PREPARED)
def test_a_statement_that_is_planned_once_for_all_values_does_so_too(
    pieces: Pieces, outbox: LargeOutbox, name: str
) -> None:
    pieces.plan("force_generic_plan")
    assert_bounded(pieces, REPEATED[name], bound_of(name, outbox))


def assert_bounded(pieces: Pieces, repeated: Repeated, bound: Bound) -> None:
    plans = pieces.plans_of(repeated.do)
    assert plans
    found = {str(plan): wrong for plan in plans if (wrong := faults(plan, bound))}
    assert not found, "\n".join(f"{'; '.join(wrong)}\n{shown}" for shown, wrong in found.items())


# --- The judge can say no

BAD = {
    "the whole of outbox is read": "SELECT count(*) FROM outboxd.outbox WHERE payload = 'y'",
    "rows go through Sort": "SELECT id FROM outboxd.outbox WHERE published_at IS NULL ORDER BY md5(event_id::text)",
    "rows go through Index Scan of outbox_pending_idx": (
        "SELECT id FROM outboxd.outbox WHERE published_at IS NULL AND id > 0 AND length(topic) > 9 ORDER BY id LIMIT 5"
    ),
    "pages are looked at": "SELECT id, topic FROM outboxd.outbox WHERE published_at IS NULL ORDER BY id LIMIT 10000",
}


@pytest.fixture
def scratch(base: tuple[Database, Profile]) -> Iterator[LargeOutbox]:
    with copied(*base, "fresh") as made:
        yield made


def test_a_statement_that_reads_or_sorts_the_backlog_is_noticed(scratch: LargeOutbox) -> None:
    engine = make_engine(scratch.database.url)
    plans: list[Plan] = []
    watch(engine, plans)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET max_parallel_workers_per_gather = 0")
            for wrong, statement in BAD.items():
                connection.exec_driver_sql(statement).all()
                found = faults(plans[-1], Bound(rows_max=10_000, buffers_max=100))
                assert any(wrong in fault for fault in found), (wrong, found, str(plans[-1]))
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("index", "name"),
    [
        ("outbox_pending_idx", "fetch: forward from the beginning"),
        ("outbox_pending_idx", "sweep"),
        ("outbox_pending_key_idx", "fetch: 100 keys again"),
        ("outbox_delayed_idx", "fetch: delayed rows whose time came"),
        ("outbox_pkey", "settle: mark a batch"),
    ],
)
def test_a_missing_index_is_noticed(scratch: LargeOutbox, index: str, name: str) -> None:
    is_key = index.endswith("_pkey")
    dropped = f"ALTER TABLE outboxd.outbox DROP CONSTRAINT {index}" if is_key else f"DROP INDEX outboxd.{index}"
    with scratch.database.connect() as connection:
        connection.execute(dropped.encode())
    with closing(Pieces(scratch)) as pieces:
        plans = pieces.plans_of(REPEATED[name].do)
    assert any(faults(plan, REPEATED[name].bound) for plan in plans)


def test_an_answer_that_came_too_late_for_one_test_is_not_taken_for_that_of_the_next(
    scratch: LargeOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Pieces(scratch)) as pieces, scratch.database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE outboxd.outbox IN ACCESS EXCLUSIVE MODE")
        with monkeypatch.context() as impatient:
            impatient.setattr(daemon_statements, "ANSWER_SECONDS_MAX", 0.2)
            with pytest.raises(queue.Empty):
                pieces.plans_of(REPEATED["load"].do)
        other.rollback()
        for name in ("fetch: forward", "settle: mark a batch"):
            assert pieces.plans_of(REPEATED[name].do)
