"""Two outboxes of different names on one table would publish each row twice: the second one is kept from it, and says
why.
"""

from __future__ import annotations

import logging

import pytest

from outboxd.policy.exchange.messages import LeaseLost
from tests.support.children import wait_for
from tests.support.lease_keepers import keeper_of
from tests.support.postgres_fixtures import Database

REFUSED = "the table outbox is relayed by first:1 as the outbox one, and this daemon's outbox.name is two"


def test_a_table_is_relayed_by_one_outbox_and_a_second_name_stands_by_and_says_why(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "outboxd.lease")
    with keeper_of(database, "one", "first:1") as first:
        token = first.granted()
        with keeper_of(database, "two", "second:1") as second:
            wait_for(lambda: REFUSED in caplog.text, timeout_seconds=20, what="the second one says why it waits")
            assert second.events.empty()
            first.keeper.give_up(token)
            first.keeper.close()
            second.granted()
    assert caplog.text.count("both would publish each row") == 1


def test_outboxes_on_tables_of_their_own_are_relayed_side_by_side(database: Database) -> None:
    with (
        keeper_of(database, "one", "first:1") as first,
        keeper_of(database, "two", "second:1", table="other") as second,
    ):
        first.granted()
        second.granted()


def test_of_two_that_acquired_at_the_same_moment_the_later_one_stands_down(database: Database) -> None:
    with keeper_of(database, "two", "second:1", ttl_seconds=1.5) as second:
        second.granted()
        with database.connect() as connection:
            connection.execute(
                "INSERT INTO outboxd.lease"
                " (outbox, shard, holder, daemon, token, acquired_at, expires_at, relayed_table)"
                " SELECT 'one', 0, gen_random_uuid(), 'first:1', 1, acquired_at - interval '1 ms',"
                " clock_timestamp() + interval '1 min', 'outbox' FROM outboxd.lease"
            )
        assert isinstance(second.events.get(timeout=20), LeaseLost)
        with database.connect() as connection:
            connection.execute("UPDATE outboxd.lease SET expires_at = clock_timestamp() WHERE outbox = 'one'")
        second.granted()
