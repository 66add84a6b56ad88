"""Writers that go on writing whatever happens, so that every fault meets records on their way."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import psycopg

from tests.support.children import wait_for
from tests.support.rig import Rig

PAUSE_SECONDS = 0.02


class Load:
    """Some writers, each with keys of its own, a few rows a transaction. A lost connection is made anew.

    with Load(rig, [topic]):
        ...the fault...
    """

    def __init__(
        self, rig: Rig, topics: Sequence[str], *, writers: int = 2, keys: int = 40, keyless: bool = False
    ) -> None:
        self._rig = rig
        self._topics = list(topics)
        self._keys = keys
        self._keyless = keyless
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(writers)]
        self._rows = [0] * writers

    @property
    def rows(self) -> int:
        """How many rows were committed for sure."""
        return sum(self._rows)

    def wait_for_rows(self, count: int, timeout_seconds: float = 30.0) -> None:
        """Wait until so many more rows were committed."""
        target = self.rows + count
        wait_for(lambda: self.rows >= target, timeout_seconds=timeout_seconds, what=f"{count} rows more were written")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)

    def _write(self, number: int) -> None:
        dice = random.Random(number)
        while not self._stopping.is_set():
            with contextlib.suppress(psycopg.Error), self._rig.database.connect() as connection:
                while not self._stopping.is_set():
                    self._rows[number] += self._commit_some(connection, number, dice)
                    # A pace, not a wait: the load shall be there for the whole of the fault, not for its beginning.
                    self._stopping.wait(PAUSE_SECONDS)
            self._stopping.wait(PAUSE_SECONDS)

    def _commit_some(self, connection: psycopg.Connection[Any], number: int, dice: random.Random) -> int:
        rows = dice.randint(1, 30)
        keys = [None if self._keyless else f"key-{number}-{dice.randrange(self._keys)}" for _ in range(rows)]
        connection.execute(
            "INSERT INTO outboxd.outbox (topic, key, payload)"
            " SELECT (%s::text[])[1 + (i %% %s)], k, convert_to(repeat('x', 200), 'UTF8')"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS u(k, i)",
            (self._topics, len(self._topics), keys),
        )
        return rows
