"""Health: is the loop alive, and can the daemon do its work?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from outboxd.observability.contact import Contact
from outboxd.observability.status import StatusBoard

LOOP_SECONDS_MAX: Final = 15.0
"""The loop turns four times a second at least, whatever the servers do; one that rests for longer is stuck."""
START_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Health:
    """A verdict: `ok`, why not, and what else is worth saying."""

    ok: bool
    why: tuple[str, ...]
    role: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"ok": self.ok, "role": self.role, "why": list(self.why)}


def liveness(board: StatusBoard) -> Health:
    """Say whether the relay's loop advances. Never depends on the database or on Kafka."""
    now = board.monotonic()
    if board.relay is None or board.advanced_at is None:
        waited = now - board.began_at
        ok = waited <= START_SECONDS_MAX
        return Health(ok, () if ok else (f"the relay's loop did not begin in {waited:.0f} s",), "starting")
    rested = now - board.advanced_at
    ok = rested <= LOOP_SECONDS_MAX
    return Health(ok, () if ok else (f"the relay's loop has not advanced for {rested:.0f} s",), board.relay.role)


def readiness(board: StatusBoard, *, shows_rows: bool = True) -> Health:
    """Say whether this daemon can relay, or take over at once: loop, database, broker, and not on its way out.

    Without `shows_rows`, nothing that PostgreSQL says where it refuses some, since it may quote them.
    """
    alive = liveness(board)
    why = [*alive.why]
    if board.relay is None:
        why.append("the daemon is starting")
    elif board.relay.role == "draining" or board.relay.ended is not None:
        why.append("the daemon is stopping")
    why += _silence("the database", board.database, shows_rows=shows_rows) + _silence("Kafka", board.kafka)
    return Health(not why, tuple(why), alive.role)


def _silence(name: str, contact: Contact, *, shows_rows: bool = True) -> list[str]:
    if contact.is_up:
        return []
    if contact.answers is None:
        return [f"{name} was not reached yet"]
    cause = contact.cause if shows_rows or not contact.refuses else ""
    return [f"{name} {contact.trouble}" + (f": {cause}" if cause else "")]
