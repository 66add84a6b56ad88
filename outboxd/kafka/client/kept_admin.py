"""A client for questions to the cluster, kept while there are any.

Making one takes threads, and a connection to each broker that is asked: dear where an application has new topics all
the time. One that nobody asks any more has both for nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka.admin import AdminClient

from outboxd.kafka.client.client_config import silent
from outboxd.kafka.client.former_producers import destroy

KEPT_SECONDS: Final = 15.0
"""It is let go of once nothing was asked for so long."""


class KeptAdmin:
    """Holds one client at a time, or none. May be used on any thread."""

    def __init__(
        self,
        properties: Callable[[], Mapping[str, str]],
        name: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make nothing yet; `client` does.

        Args:
            properties: returns the user's present ones, the same object while they are the same.
            name: is appended to the `client.id`, by which the brokers' logs and quotas know it.
            monotonic: the clock.
        """
        self._properties = properties
        self._name = name
        self._monotonic = monotonic
        self._kept: AdminClient | None = None
        self._made_with: Mapping[str, str] = {}
        self._asked_at = 0.0
        self._lock = threading.Lock()

    def client(self) -> AdminClient:
        """Return the client, another one where the properties are others by now.

        Raises:
            KafkaException: none can be made with these properties, or now.
        """
        with self._lock:
            properties = self._properties()
            if self._kept is None or self._made_with is not properties:
                self._let_go()
                client_id = f"{properties.get('client.id', 'outboxd')}-{self._name}"
                # Else a question for a topic would have brokers create it that do so by themselves, and one that was
                # deleted would come back with each question. It holds for every client, not for consumers only.
                own = {"client.id": client_id, "allow.auto.create.topics": "false"}
                self._kept = AdminClient({**silent(properties), **own})
                self._made_with = properties
            self._asked_at = self._monotonic()
            return self._kept

    def drop(self) -> None:
        """Let go of it: what it knows may be of another cluster, or its questions have no answers."""
        with self._lock:
            self._let_go()

    def rest(self) -> None:
        """Let go of it where nothing was asked for a while."""
        with self._lock:
            if self._kept is not None and self._monotonic() - self._asked_at >= KEPT_SECONDS:
                self._let_go()

    def _let_go(self) -> None:
        if self._kept is not None:
            former, self._kept = [self._kept], None
            destroy(former)
