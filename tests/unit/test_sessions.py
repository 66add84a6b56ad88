"""A session's thread outlives whatever a job ends with."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any, cast

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from outboxd.errors import DatabaseUnavailableError
from outboxd.postgres.connections.sessions import Session

WAIT_SECONDS = 10.0


class Engine:
    """Has no connection to give."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def raw_connection(self) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PoolTimeoutError("QueuePool limit of size 10 reached"), "TimeoutError: QueuePool limit of size 10 reached"),
        (DatabaseUnavailableError("PostgreSQL does not answer"), "PostgreSQL does not answer"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
    ],
)
def test_who_gave_a_job_hears_of_its_failure_whatever_it_is_and_the_next_job_is_tried(
    error: Exception, message: str
) -> None:
    told: SimpleQueue[str] = SimpleQueue()
    session = Session(cast(Any, Engine(error)), "tried")
    for _ in range(2):
        session.submit(lambda _: None, told.put)
        assert told.get(timeout=WAIT_SECONDS) == message
    session.close()
