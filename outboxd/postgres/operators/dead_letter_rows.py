"""Dead letters as values: what is asked for, and what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

Status = Literal["dead", "replaying", "replayed", "discarded"]
Reason = Literal["fatal", "exhausted", "expired", "invalid"]
#: Why a replay may put an older row after a newer one of its key; as `replay_obstacles` in SQL says it.
ObstacleKind = Literal["published", "too many", "deleted"]

#: A group with deaths this recent is called growing.
RECENT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Filters:
    """Which dead letters are meant; what is None does not filter.

    Attributes:
        topic, error_code, key, reason: equal to these.
        since: died at this time or later; a timedelta counts back from the database's now.
        status: as a rule only the `dead` ones; None is every status.
    """

    topic: str | None = None
    error_code: str | None = None
    key: str | None = None
    reason: str | None = None
    since: datetime | timedelta | None = None
    status: Status | None = "dead"

    def clauses(self) -> tuple[str, dict[str, object]]:
        """The condition in SQL on the table `d`, and its parameters."""
        conditions, values = ["d.outbox = :outbox"], dict[str, object]()
        for name, condition in _CONDITIONS.items():
            if (value := getattr(self, name)) is not None:
                conditions.append(condition)
                values[name] = value
        if self.key is not None and self.topic is not None:
            conditions.append(_KEY_INDEX)
        if self.since is not None:
            conditions.append(
                "d.died_at >= now() - :since" if isinstance(self.since, timedelta) else "d.died_at >= :since"
            )
            values["since"] = self.since
        return " AND ".join(conditions), values


# The hashes are what the indexes hold: topics and keys of any length find room in them. The planner takes a comparison
# of hashes and that of the texts for independent, and would expect next to no rows: CASE hides one from it.
_CONDITIONS: Mapping[str, str] = {
    "topic": (
        "hashtextextended(d.topic, 0) = hashtextextended(:topic, 0)"
        " AND CASE WHEN d.topic = :topic THEN true ELSE false END"
    ),
    "error_code": "d.error_code = :error_code",
    "key": "d.key = :key",
    "reason": "d.reason = :reason",
    "status": "d.status = :status",
}
_KEY_INDEX = (
    "hashtextextended(d.key, hashtextextended(d.topic, 0)) = hashtextextended(:key, hashtextextended(:topic, 0))"
)


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters of one topic, reason and error code.

    Attributes:
        count: how many.
        first, last: when the first and the last of them died.
        keys: how many different keys.
        sample_id: the id of the newest.
        recent: how many died in the last `RECENT_SECONDS`.
    """

    topic: str
    reason: str
    error_code: str
    count: int
    first: datetime
    last: datetime
    keys: int
    sample_id: int
    recent: int


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter without its payload; `payload_bytes` is None for a tombstone.

    What the application wrote is text as PostgreSQL tells it, so that every value that it stores can be shown:
    `headers` is JSON, and `created_at` RFC 3339 in UTC, with " BC" behind it, or "infinity" or "-infinity".
    """

    id: int
    outbox_id: int
    event_id: UUID
    topic: str
    key: str | None
    payload_bytes: int | None
    headers: str
    partition: int | None
    created_at: str
    attempts: int
    reason: str
    error_code: str
    error_message: str
    first_failed_at: datetime
    died_at: datetime
    daemon: str | None
    holds_key: bool
    status: str
    resolved_at: datetime | None
    resolved_by: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a replay needs force; `newer_id` is a newer published row of the dead letter's key, where one is known."""

    id: int
    outbox_id: int
    topic: str
    newer_id: int | None
    kind: ObstacleKind

    @property
    def sentence(self) -> str:
        """What it means, for people."""
        match self.kind:
            case "published":
                return (
                    f"row {self.newer_id} of its key was published since: consumers would see this older row after it"
                )
            case "too many":
                return (
                    "more than 200,000 rows follow, and not all are looked at: a newer published one cannot be excluded"
                )
            case "deleted":
                return (
                    "published rows that followed may be deleted by now: a newer one of the same key cannot be excluded"
                )


@dataclass(frozen=True, slots=True)
class WholeLetter:
    """One dead letter with its payload, and with what stands against a replay (None: nothing does)."""

    letter: Letter
    payload: bytes | None
    obstacle: Obstacle | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a replay or a discarding did, or would do, with one batch.

    Attributes:
        taken: how many were, or would be, replayed or discarded.
        refused: those left as they are because the replay needs force.
        skipped: ids that were asked for and are not `dead`, or not of this outbox.
        ids: those taken (but for what another took in the same moment).
    """

    taken: int
    refused: tuple[Obstacle, ...] = ()
    skipped: int = 0
    ids: Sequence[int] = ()
