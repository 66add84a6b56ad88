"""Key chains: records of one key that are with the producer together, in order. Pure state.

A key of which many records wait would else go one round trip a record. Its records go as a *chain* then, by a producer
that stops at the first one that fails: what was delivered of a chain is always its beginning. The key stays busy until
the last one of the chain is delivered; where the chain ends before, the rest goes one record at a time again.
"""

from __future__ import annotations

from collections.abc import Sequence

from outboxd.policy.rows.records import GateKey, Record, id_of


class Chain:
    """Records of one key that went together, by id and in order. What was delivered is kept no longer."""

    __slots__ = ("gate_key", "records")

    def __init__(self, gate_key: GateKey, records: Sequence[Record]) -> None:
        """All of these go now."""
        self.gate_key = gate_key
        self.records = dict(zip(map(id_of, records), records, strict=True))


class KeyChains:
    """Invariant: `by_id` holds the chains of `by_key`, each under the id of every record that is not delivered."""

    def __init__(self) -> None:
        """Start with no chain."""
        self.by_key: dict[GateKey, Chain] = {}
        self.by_id: dict[int, Chain] = {}

    def begin(self, gate_key: GateKey, records: Sequence[Record]) -> None:
        """These records of one key go together."""
        chain = self.by_key[gate_key] = Chain(gate_key, records)
        self.by_id.update(dict.fromkeys(chain.records, chain))

    def delivered(self, records: Sequence[Record]) -> tuple[list[Record], list[GateKey]]:
        """Return those of delivered records that are of no chain, and the keys whose chains are through."""
        others: list[Record] = []
        done: list[GateKey] = []
        take = self.by_id.pop
        for record in records:
            chain = take(record[1], None)
            if chain is None:
                others.append(record)
                continue
            del chain.records[record[1]]
            if not chain.records:
                del self.by_key[chain.gate_key]
                done.append(chain.gate_key)
        return others, done

    def cut(self, gate_key: GateKey) -> list[Record]:
        """The key's chain ends: return its records that are not delivered, in order."""
        left = self.by_key.pop(gate_key).records
        for record_id in left:
            del self.by_id[record_id]
        return list(left.values())

    def undelivered(self) -> list[Record]:
        """Return the records of all chains that are not delivered, of each in order."""
        return [record for chain in self.by_key.values() for record in chain.records.values()]
