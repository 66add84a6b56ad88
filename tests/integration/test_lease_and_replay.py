"""The lease tells a replay whether published rows may have been deleted."""

from __future__ import annotations

import pytest

from tests.support.lease_keepers import keeper_of
from tests.support.postgres_fixtures import Database
from tests.support.rows import value


def hold_once(database: Database, *, deletes_published: bool) -> None:
    """Acquire the lease and release it."""
    with keeper_of(database, deletes_published=deletes_published) as kept:
        kept.granted()


@pytest.mark.parametrize(
    ("history", "purged", "expected"),
    [
        ([False], 0, 0),
        ([True], 0, None),
        ([False, True], 0, None),
        ([True, False], 0, None),
        ([False, False], 77, 77),
    ],
)
def test_the_lease_keeps_what_may_have_been_deleted(
    database: Database, history: list[bool], purged: int, expected: int | None
) -> None:
    for deletes_published in history:
        hold_once(database, deletes_published=deletes_published)
        with database.connect() as connection:
            connection.execute("UPDATE outboxd.lease SET deleted_through = deleted_through + %s", (purged,))
            purged = 0
    with database.connect() as connection:
        assert value(connection, "SELECT deleted_through FROM outboxd.lease") == expected
