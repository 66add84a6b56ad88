"""Dead letters in memory, for the page's tests: the same values that the database's side gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from outboxd.errors import DatabaseUnavailableError
from outboxd.postgres.operators.dead_letter_rows import Filters, Group, Letter, Obstacle, Taken, WholeLetter

DIED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def letter(letter_id: int, *, topic: str = "orders", key: str | None = "k", payload: bytes | None = b"{}") -> Letter:
    return Letter(
        id=letter_id, outbox_id=letter_id + 100, event_id=UUID(int=letter_id), topic=topic, key=key,
        payload_bytes=None if payload is None else len(payload), headers='{"traceparent": "00-ab"}', partition=None,
        created_at="2026-01-02T02:04:05.000000+00:00", attempts=1, reason="fatal", error_code="MSG_SIZE_TOO_LARGE",
        error_message="10 MSG_SIZE_TOO_LARGE at orders: too large.", first_failed_at=DIED_AT, died_at=DIED_AT,
        daemon="here:1", holds_key=False, status="dead", resolved_at=None, resolved_by=None, note=None,
    )  # fmt: skip


class MemoryLetters:
    """A few dead letters. Those in `needs_force` are replayed by force only."""

    def __init__(self, payloads: dict[int, bytes | None], *, needs_force: frozenset[int] = frozenset()) -> None:
        self._payloads = payloads
        self._letters = {each: letter(each, payload=payload) for each, payload in payloads.items()}
        self._needs_force = needs_force
        self.is_down = False
        self.asked: list[tuple[object, ...]] = []

    def summary(self, filters: Filters | None = None, /) -> Sequence[Group]:
        self._up()
        self.asked.append(("summary",))
        dead = [each for each in self._letters.values() if each.status == "dead"]
        if not dead:
            return []
        sample = max(each.id for each in dead)
        return [Group("orders", "fatal", "MSG_SIZE_TOO_LARGE", len(dead), DIED_AT, DIED_AT, 1, sample, 0)]

    def list(self, filters: Filters | None = None, limit: int = 50) -> Sequence[Letter]:
        self._up()
        filters = filters or Filters()
        self.asked.append(("list", filters, limit))
        found = [
            each for each in self._letters.values() if each.status == "dead" and filters.topic in (None, each.topic)
        ]
        return found[:limit]

    def show(self, letter_id: int, /) -> WholeLetter | None:
        self._up()
        found = self._letters.get(letter_id)
        if found is None:
            return None
        obstacle = Obstacle(letter_id, found.outbox_id, found.topic, 999, "published")
        return WholeLetter(found, self._payloads[letter_id], obstacle if letter_id in self._needs_force else None)

    def replay(self, ids: Sequence[int], *, force: bool = False, note: str | None = None, who: str = "") -> Taken:
        self.asked.append(("replay", tuple(ids), force, note, who))
        refused = tuple(
            Obstacle(each, each + 100, "orders", 999, "published")
            for each in ids
            if each in self._needs_force and not force
        )
        return self._resolve([each for each in ids if each not in {one.id for one in refused}], "replaying", refused)

    def discard(self, ids: Sequence[int], *, note: str | None = None, who: str = "") -> Taken:
        self.asked.append(("discard", tuple(ids), note, who))
        return self._resolve(ids, "discarded", ())

    def _resolve(self, ids: Sequence[int], status: str, refused: tuple[Obstacle, ...]) -> Taken:
        self._up()
        chosen = [each for each in ids if each in self._letters and self._letters[each].status == "dead"]
        for each in chosen:
            self._letters[each] = replace(self._letters[each], status=status)
        return Taken(len(chosen), refused, len(ids) - len(chosen) - len(refused))

    def _up(self) -> None:
        if self.is_down:
            raise DatabaseUnavailableError("PostgreSQL is not available: refused")
