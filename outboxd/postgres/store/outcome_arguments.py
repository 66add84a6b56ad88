"""The arguments of the settle statement: what a settlement has beside delivered rows, each kind as parallel arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outboxd.policy.blame.outcomes import DeadLetter
from outboxd.policy.exchange.requests import Settlement
from outboxd.postgres.connections.arrays import Int8Array


def exceptional(settlement: Settlement) -> dict[str, object]:
    """Return what becomes of rows and dead letters that were not simply delivered."""
    return {
        "retry_ids": [record_id for record_id, _ in settlement.retries],
        "retry_attempts": [retry.attempts for _, retry in settlement.retries],
        "retry_delays": [retry.delay_seconds for _, retry in settlement.retries],
        "retry_ages": [retry.own_age_seconds for _, retry in settlement.retries],
        "retry_codes": [retry.fault.name for _, retry in settlement.retries],
        "retry_messages": [retry.message for _, retry in settlement.retries],
        **_deaths("dead", settlement.dead),
        **_deaths("again", [entry[:2] for entry in settlement.died_again]),
        "again_contents": [entry[2] for entry in settlement.died_again],
        **_replays("replayed", settlement.replayed),
        "replayed_contents": [entry[3] for entry in settlement.replayed],
        "storm_topics": [topic for topic, _ in settlement.storms],
        "storm_notes": [note for _, note in settlement.storms],
    }


def recovered(settlement: Settlement) -> dict[str, object]:
    """Return the replays that an owner before delivered."""
    return {
        **_replays("recovered", settlement.recovered_replays),
        "recovered_pieces": [entry[3] for entry in settlement.recovered_replays],
        "recovered_contents": [entry[4] for entry in settlement.recovered_replays],
    }


def _replays(prefix: str, entries: Sequence[Sequence[Any]]) -> dict[str, object]:
    return {
        f"{prefix}_ids": Int8Array([entry[0] for entry in entries]),
        f"{prefix}_partitions": Int8Array([entry[1] for entry in entries]),
        f"{prefix}_offsets": Int8Array([entry[2] for entry in entries]),
    }


def _deaths(prefix: str, deaths: Sequence[tuple[int, DeadLetter]]) -> dict[str, object]:
    return {
        f"{prefix}_ids": [record_id for record_id, _ in deaths],
        f"{prefix}_attempts": [death.attempts for _, death in deaths],
        f"{prefix}_reasons": [death.reason.value for _, death in deaths],
        f"{prefix}_codes": [death.fault.name for _, death in deaths],
        f"{prefix}_messages": [death.message for _, death in deaths],
        f"{prefix}_holds": [death.holds_key for _, death in deaths],
    }
