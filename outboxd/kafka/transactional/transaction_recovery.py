"""The recovery that comes before the first transaction: fence the owner before, and read what it committed.

Once it is fenced the progress topic moves no more: what is there above the last settled transaction was committed,
what is not never will be.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from confluent_kafka import KafkaException

from outboxd.kafka.client.codes import in_words
from outboxd.kafka.transactional.progress import ProgressRecord
from outboxd.kafka.transactional.progress_log import ProgressMissingError
from outboxd.kafka.transactional.shard_clients import ShardClients
from outboxd.kafka.transactional.transaction_client import TransactionClient
from outboxd.policy.exchange.messages import Recovered

NEW_TOPIC_SECONDS = 5.0
NEW_TOPIC_PAUSE_SECONDS = 0.1


class Recovery:
    """Runs on the worker's thread, where it may wait."""

    def __init__(self, client: TransactionClient, clients: ShardClients, gone: threading.Event) -> None:
        """Recover `client` by the progress topic that `clients` reads; `gone` is set when nobody wants it any more."""
        self._client = client
        self._clients = clients
        self._gone = gone

    def recover(self, settled: int, lineage: str) -> Recovered:
        """Return what was committed above the transaction `settled`; the client goes on after that."""
        self._client.fence()
        try:
            records = self._clients.read_above(settled, lineage)
        except ProgressMissingError:
            if settled:
                raise
            self._make_topic()
            records = self._read_new(settled, lineage)
        number = records[-1].number if records else settled
        self._client.begin(lineage, number)
        # Later records may state rows of earlier ones again.
        return Recovered(number, list(dict.fromkeys(row for record in records for row in record.rows)))

    def _make_topic(self) -> None:
        try:
            self._clients.ensure_topic()
        except KafkaException as refused:
            raise ProgressMissingError(
                f"the progress topic {self._clients.topic} is not there, and cannot be made "
                f"({in_words(refused.args[0])}); create it with one partition, compacted"
            ) from refused

    def _read_new(self, settled: int, lineage: str) -> Sequence[ProgressRecord]:
        """Read a topic that was just made: not every broker may know it yet."""
        deadline = time.monotonic() + NEW_TOPIC_SECONDS
        while True:
            try:
                return self._clients.read_above(settled, lineage)
            except ProgressMissingError:
                if self._gone.wait(NEW_TOPIC_PAUSE_SECONDS) or time.monotonic() > deadline:
                    raise
