"""Chaining: where keys are few for what waits, records of a key go together, instead of one round trip each.

They go by a producer of their own, which stops where one fails: what was delivered of a chain is its beginning. Nobody
is blamed by that failure. What was not delivered goes again, one record a key at a time by the shared producer, which
finds who is to blame; and chains of that topic pause for a while. See docs/decisions/0038.
"""

from __future__ import annotations

from typing import Final

from outboxd.policy.blame.cause import cause
from outboxd.policy.keys.chain_pauses import ChainPauses
from outboxd.policy.keys.key_gate import WAITING_PER_KEY_MAX
from outboxd.policy.rows.records import Record, id_of
from outboxd.relay.memory.lanes import shares
from outboxd.relay.ports import ChainFailure
from outboxd.relay.state import State

CHAIN_ROWS_MAX: Final = 1_000
STAYS_SHARE: Final = 4
"""Chains go on until there is one part in so many of the records a key that they began with."""
TURN_ROWS_MAX: Final = 4_000
"""So many go in chains in one turn of the loop."""
CHAINED_WAITING_MAX: Final = 10_000
"""So many records of a key may wait in memory while chains go, since they leave it quickly; else it is
`WAITING_PER_KEY_MAX`.
"""


class Chaining:
    """One ownership's. Lives on the relay's thread."""

    def __init__(self, state: State) -> None:
        """`state` is the relay's memory of this ownership."""
        self._state = state
        self._pauses = ChainPauses(state.limits.chain_pause_seconds)
        self._goes = False

    def publish(self, ready: list[Record], now: float) -> tuple[list[Record], list[Record]]:
        """Send chains of what was let go, with what waits behind it; return what goes by itself, and what goes later,
        since this turn has sent enough.
        """
        self._goes = self._is_worth_it()
        if not self._goes:
            return ready, []
        queue_of = self._state.gate.chained.queue_of
        room = TURN_ROWS_MAX
        going: list[Record] = []
        later: list[Record] = []
        for head in ready:
            queue = queue_of(head)
            if not queue or not self._may_go(head, now):
                going.append(head)
            elif room <= 0:
                later.append(head)
            elif taken := self._send(queue[: min(CHAIN_ROWS_MAX, room)]):
                room -= taken
            else:
                going.append(head)
        if room < TURN_ROWS_MAX:
            self._state.ports.observer.chained(TURN_ROWS_MAX - room)
        return going, later

    def _is_worth_it(self) -> bool:
        """Say whether keys are few for what is in memory: all go by the producer of chains then, else none does.

        A hot key among many others fills memory with its own records while the others get through, so that keys are
        few before long.
        """
        state, queues = self._state, self._state.gate.keys.queues
        rows_min: float = state.limits.chain_rows_min
        if not rows_min or state.pipelined:
            return False
        if self._goes:
            rows_min /= STAYS_SHARE
        # Of what is in memory only that counts which has a key and is not delivered. Few keys are quickly asked for it.
        rows_needed = rows_min * len(queues.by_key)
        return 0 < rows_needed <= len(state.ledger) and rows_needed <= queues.rows

    def _may_go(self, head: Record, now: float) -> bool:
        state, topic = self._state, head.topic
        # One that failed before is watched by itself; of a held topic only a probe goes; what nobody confirms is no
        # beginning of anything.
        is_special = topic in state.topics.held or topic in state.lanes.unconfirmed_topics
        return not (is_special or head.id in state.aftermath.histories.by_id or self._pauses.is_paused(topic, now))

    def _send(self, records: list[Record]) -> int:
        """Send the first records of one key together; return how many were taken."""
        state = self._state
        taken = state.ports.publisher.publish_chain(records)
        if taken:
            state.gate.chained.begin(records[0], taken)
            state.lanes.published(records[:taken])
        return taken

    def look(self, now: float) -> list[Record]:
        """Where chains stopped, end them; return what goes by itself now, and what the last reports let go."""
        if self._state.pipelined:
            return []
        failure = self._state.ports.publisher.chain_failure()
        self._limit(now)
        return [] if failure is None else self._end(failure, now)

    def _end(self, failure: ChainFailure, now: float) -> list[Record]:
        state = self._state
        unwritten = state.ports.publisher.end_chains()
        following = state.aftermath.take(state.ports.publisher.take_reports(), now)
        back, fronts = self.cut()
        pause_seconds = self._pauses.failed(failure.topic, now)
        self._limit(now)
        fault = failure.error.fault
        in_doubt = sum(record.id not in unwritten for record in back)
        state.ports.observer.duplicates_possible(in_doubt)
        state.ports.observer.event(
            "chains_ended",
            topic=failure.topic or "",
            error_code=fault.name,
            cause=cause(fault, failure.error.text),
            rows=len(back),
            unknown_rows=in_doubt,
            pause_seconds=pause_seconds,
        )
        return following + fronts

    def cut(self) -> tuple[list[Record], list[Record]]:
        """All chains end: return what of them was not delivered, and the first ones of each key, which go by themselves
        next.
        """
        state = self._state
        back = state.gate.chained.undelivered()
        for topic, share in shares(back).items():
            state.lanes.count_in_flight(state.lanes[topic], -len(share))
        state.in_doubt.update(map(id_of, back))
        fronts = state.gate.chained.cut()
        # What was with the producer waits again, beside what did before.
        state.gate.limit_waiting(state.gate.waiting_per_key_max)
        state.ledger.forget_dropped(state.gate)
        return back, fronts

    def _limit(self, now: float) -> None:
        state = self._state
        goes = state.limits.chain_rows_min and self._pauses.are_over(now)
        rows_max = CHAINED_WAITING_MAX if goes else WAITING_PER_KEY_MAX
        if rows_max != state.gate.waiting_per_key_max:
            state.gate.limit_waiting(rows_max)
            state.ledger.forget_dropped(state.gate)
