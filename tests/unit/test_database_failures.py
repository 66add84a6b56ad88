"""What PostgreSQL and its client library say, in a line for people: the cause, and what to look at."""

from __future__ import annotations

import psycopg
import pytest

from outboxd.errors import DatabaseUnavailableError
from outboxd.postgres.connections.failures import explain

LOOK = "look at database.url, and at the server"


REFUSED = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: Connection refused'
CLOSED = "server closed the connection unexpectedly"


@pytest.mark.parametrize(
    ("told", "advice"),
    [
        (REFUSED, "\n\tIs the server running on that host and accepting TCP/IP connections?"),
        (
            CLOSED,
            "\n\tThis probably means the server terminated abnormally\n\tbefore or while processing the request.\n",
        ),
    ],
)
def test_the_advice_of_the_client_library_does_not_run_into_the_remedy(told: str, advice: str) -> None:
    assert str(explain(psycopg.OperationalError(told + advice))) == f"PostgreSQL is not available: {told}; {LOOK}"


def test_a_url_without_a_role_in_a_process_of_a_user_without_a_name_is_told_with_what_to_name() -> None:
    said = "connection is bad: local user with ID 12345 does not exist"
    assert str(explain(psycopg.OperationalError(said))) == (
        f"PostgreSQL is not available: {said}; name the role in database.url, as in postgresql://USER@HOST/DATABASE"
    )


def test_each_server_of_several_that_could_not_be_reached_is_told() -> None:
    said = (
        "connection failed: A\n\tIs it running?\nAll failures were:\n- host: 'a': A\n\tIs it running?\n- host: 'b': B"
    )
    words = "connection failed: A All failures were: - host: 'a': A - host: 'b': B"
    assert str(explain(psycopg.OperationalError(said))) == f"PostgreSQL is not available: {words}; {LOOK}"


def test_a_session_that_the_server_ended_within_its_transaction_is_no_bug() -> None:
    error = psycopg.errors.IdleInTransactionSessionTimeout("terminating connection")
    told = explain(error)
    assert isinstance(told, DatabaseUnavailableError)
    assert "idle_in_transaction_session_timeout" in str(told)
