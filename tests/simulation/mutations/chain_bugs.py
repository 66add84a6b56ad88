"""Deliberate bugs of records that go together."""

from __future__ import annotations

from outboxd.policy.keys.key_chains import KeyChains
from outboxd.policy.keys.key_queues import KeyQueues
from outboxd.relay.publish.chaining import Chaining
from tests.simulation.mutations.patching import Mutation
from tests.simulation.scenario import Scenario


def _chained(scenario: Scenario) -> bool:
    return scenario.limits.chain_rows_min > 0


CHAIN_BUGS = [
    Mutation(
        "a key goes on with the first delivered record of a chain",
        KeyChains,
        "delivered",
        "if not chain.records:",
        "if self.by_key.get(chain.gate_key) is chain:",
        where=_chained,
    ),
    Mutation(
        "all that is left of a chain that is cut is let go at once",
        Chaining,
        "cut",
        "fronts = state.gate.chained.cut()",
        "fronts = (state.gate.chained.cut(), back)[1]",
        where=_chained,
    ),
    Mutation(
        "what is left of a chain that is cut is turned round",
        KeyQueues,
        "chain_cut",
        "self.chains.cut(gate_key)",
        "self.chains.cut(gate_key)[::-1]",
        where=_chained,
    ),
    Mutation(
        "what goes in a chain waits behind it too",
        KeyQueues,
        "chain_begins",
        "del queue[: rows - 1]",
        "pass",
        where=_chained,
    ),
]
