"""The producer of chains, by a client that does as the test says: what of a failure is certainly in no log."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from outboxd.kafka.inbox import Inbox
from outboxd.kafka.plain.chain_producer import ChainProducer


class Client:
    """A producer that owes nothing."""

    def __len__(self) -> int:
        return 0

    def poll(self, timeout: float) -> int:
        return 0

    def purge(self, **_: bool) -> None: ...


def report(inbox: Inbox, record_id: int, code: int) -> None:
    record = inbox.record_type(6, record_id, "event", "orders", "k", b"x", "{}", None, 1, 1)
    cast(Any, record).in_chain(KafkaError(code), SimpleNamespace(partition=lambda: 0))


@pytest.mark.parametrize(("was_cut_off", "unwritten"), [(False, {1, 2}), (True, {1})])
def test_what_is_back_in_the_queue_is_in_no_log_unless_a_connection_was_lost(
    *, was_cut_off: bool, unwritten: set[int]
) -> None:
    inbox = Inbox()
    chains = ChainProducer(lambda: cast(Any, Client()), cast(Any, None), cast(Any, None), inbox)
    chains.needed()
    report(inbox, 1, KafkaError.MSG_SIZE_TOO_LARGE)
    report(inbox, 2, KafkaError._PURGE_QUEUE)
    report(inbox, 3, KafkaError._PURGE_INFLIGHT)
    report(inbox, 4, KafkaError.REQUEST_TIMED_OUT)
    former, found = chains.end(was_cut_off=was_cut_off)
    assert found == unwritten
    assert len(former) == 1
    assert inbox.chain_failures == []
