"""Answers of the admin client, taken without raising the refusals that its futures hold.

A raised exception knows the frames that it passed. Where the future that holds it is known there too, all of that is a
cycle, with the client in it: only the garbage collector frees it, which a quiet daemon has no reason to run. Clients
that were asked in vain would pile up, with four threads and their connections each.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaException

T = TypeVar("T")


def answer_of(future: Future[T], timeout_seconds: float) -> T | KafkaException:
    """Return what the cluster answered, or with what it refused.

    Raises:
        TimeoutError: neither came in time.
    """
    failure = future.exception(timeout_seconds)
    if failure is None:
        return future.result()
    if isinstance(failure, KafkaException):
        return failure
    raise failure
