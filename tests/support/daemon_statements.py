"""The daemon's own pieces on a database, each ready to do what it does again and again, with the plans of it all."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Callable, Iterator
from typing import TypeVar

from sqlalchemy import Engine

from outboxd.policy.exchange.messages import Event, LeaseGranted, Settled
from outboxd.policy.exchange.reads import Arrived, Fetched
from outboxd.policy.exchange.requests import FetchRequest, Settlement
from outboxd.policy.fetch.limits import RelayLimits
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.lease.leases import LeaseKeeper
from outboxd.postgres.lease.ownership import Owner
from outboxd.postgres.lease.starts import StartLog
from outboxd.postgres.operators.dead_letter_copies import DeadLetterCopyRows
from outboxd.postgres.store.store import PostgresStore
from outboxd.postgres.upkeep.housekeeping import Housekeeping
from tests.support.children import wait_for
from tests.support.large_outbox import LargeOutbox
from tests.support.plans import Plan, PlanMode, watch

ANSWER_SECONDS_MAX = 90.0
LATE_SECONDS_MAX = 60.0
"""So long an answer that nobody waited for any longer may take to come all the same."""
TTL_SECONDS = 3.0
MODES: tuple[PlanMode, ...] = ("force_custom_plan", "force_generic_plan")

Answer = TypeVar("Answer", bound=Event)


class Pieces:
    """What the daemon is made of towards the database, and an outbox that it owns. `close` ends it."""

    def __init__(self, outbox: LargeOutbox) -> None:
        """Acquire the lease."""
        self.outbox = outbox
        self.plans: list[Plan] = []
        self._engines = {mode: make_engine(outbox.database.url, pool_size=12) for mode in MODES}
        for mode, engine in self._engines.items():
            watch(engine, self.plans, mode)
        self.engine = self._engines["force_custom_plan"]
        self._answers: queue.Queue[Event] = queue.Queue()
        self._late = 0
        """How many answers came to nobody in time: they are still to come, and of no other question."""
        self._owner: Owner | None = None
        self._token = 0
        self._stores = {
            mode: (self._store(engine, deletes=False), self._store(engine, deletes=True))
            for mode, engine in self._engines.items()
        }
        self.plan("force_custom_plan")
        self.housekeeping = Housekeeping(self.engine, "outboxd", "outbox", "default")
        self.copies = DeadLetterCopyRows(self.engine, "outboxd", "default")
        self.starts = StartLog(self.engine, "outboxd", "default", "here:1")
        self.lease = LeaseKeeper(
            self.engine,
            self._lease_told,
            self._owned,
            schema="outboxd",
            outbox="default",
            daemon="here:1",
            ttl_seconds=TTL_SECONDS,
        )
        self.lease.start()
        wait_for(lambda: self._token > 0, timeout_seconds=ANSWER_SECONDS_MAX, what="the lease is granted")

    def close(self) -> None:
        """Give the lease up and end all threads."""
        self.lease.close()
        self.starts.close()
        for store in self._all_stores():
            store.close()
        for engine in self._engines.values():
            engine.dispose()

    def plan(self, mode: PlanMode) -> None:
        """Have what follows planned so."""
        self.marking, self.deleting = self._stores[mode]

    def plans_of(self, do: Callable[[Pieces], object]) -> list[Plan]:
        """The plans of all that is executed meanwhile; a renewal of the lease may be among them. What was asked before
        and had no answer in time ends first.
        """
        while self._late:
            self._answers.get(timeout=LATE_SECONDS_MAX)
            self._late -= 1
        before = len(self.plans)
        do(self)
        return self.plans[before:]

    # --- What the relay asks for

    def fetch(self, **request: object) -> Fetched:
        """Fetch a batch, with nothing but what is asked for."""
        self.marking.begin_fetch(FetchRequest(**{**NOTHING, **request}))  # type: ignore[arg-type]  # named by the caller
        return self.answer(Fetched)

    def settle(self, store: PostgresStore, settlement: Settlement) -> None:
        """Write outcomes, all of which must be new."""
        store.begin_settle(settlement, self._token)
        settled = self.answer(Settled)
        assert not settled.fenced
        assert settled.matched_rows == settlement.rows

    def renewed(self) -> None:
        """Wait for the next renewal of the lease."""
        before = len(self.plans)
        wait_for(
            lambda: any("UPDATE" in plan.statement and ".lease" in plan.statement for plan in self.plans[before:]),
            timeout_seconds=ANSWER_SECONDS_MAX,
            what="the lease is renewed",
        )

    def started(self) -> None:
        """Write the row of a start, and what is in the air."""
        assert self._owner is not None
        self.starts.owned(self._owner.holder)
        self.starts.write([1, 2, 3])
        wait_for(self.starts.is_written, timeout_seconds=ANSWER_SECONDS_MAX, what="the start is written")

    def answer(self, kind: type[Answer]) -> Answer:
        """Wait for the answer to what was asked, which must be of this kind."""
        try:
            event = self._answers.get(timeout=ANSWER_SECONDS_MAX)
        except queue.Empty:
            self._late += 1
            raise
        answer = event.read() if isinstance(event, Arrived) else event
        assert isinstance(answer, kind), answer
        return answer

    def _store(self, engine: Engine, *, deletes: bool) -> PostgresStore:
        return PostgresStore(
            engine,
            self._answers.put,
            schema="outboxd",
            table="outbox",
            outbox="default",
            daemon="here:1",
            deletes=deletes,
            record_bytes_max=1 << 20,
        )

    def _lease_told(self, event: Event) -> None:
        # A lease that is lost is no answer to anything: who settles without it is told so.
        if isinstance(event, LeaseGranted):
            self._token = event.token

    def _owned(self, owner: Owner) -> None:
        self._owner = owner
        for store in self._all_stores():
            store.set_owner(owner)

    def _all_stores(self) -> Iterator[PostgresStore]:
        return itertools.chain.from_iterable(self._stores.values())


BATCH_ROWS = RelayLimits().batch_rows
NOTHING = {"position": 0, "rows_max": BATCH_ROWS, "bytes_max": RelayLimits().batch_bytes, "forward": False}
