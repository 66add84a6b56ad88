"""The checker of the chaos campaign finds each kind of violation; one that cannot fail would prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.chaos.campaign.checker import Stream, Verdict
from tests.chaos.campaign.load import ORDERED
from tests.chaos.campaign.witness import WITNESS
from tests.support.postgres_fixtures import Database

ROWS = 300
KEYS = 20
TOPICS = ["campaign-a", "campaign-b"]


@dataclass(frozen=True)
class Message:
    """A record as the consumer's library shows it."""

    record_id: int
    event_id: str
    topic_name: str
    key_bytes: bytes | None
    payload: bytes | None
    own_headers: tuple[tuple[str, bytes | None], ...]
    at_partition: int

    def topic(self) -> str:
        return self.topic_name

    def partition(self) -> int:
        return self.at_partition

    def key(self) -> bytes | None:
        return self.key_bytes

    def value(self) -> bytes | None:
        return self.payload

    def headers(self) -> list[tuple[str, bytes | None]]:
        added = [("outbox-id", f"{self.record_id}"), ("outbox-event-id", self.event_id), ("outbox-source", "default")]
        return [*self.own_headers, *((name, value.encode()) for name, value in added)]


def written(database: Database) -> list[Message]:
    """Write rows as the campaign's writers do, and return them as a perfect relay would deliver them."""
    with database.connect() as connection:
        connection.execute(WITNESS)
        connection.execute(
            ORDERED,
            {"topics": TOPICS, "topic_count": 2, "keyed": False, "prefix": "w-", "keys": KEYS, "rows": ROWS},
        )
        rows = connection.execute(
            "SELECT id, event_id::text, topic, key, payload, headers, partition FROM outboxd.outbox ORDER BY id"
        ).fetchall()
    return [_delivered(row) for row in rows]


def _delivered(row: tuple[Any, ...]) -> Message:
    record_id, event_id, topic, key, payload, headers, partition = row
    return Message(record_id, event_id, topic, _key(key), payload, _pairs(headers), partition or 0)


def _key(key: str | None) -> bytes | None:
    return None if key is None else key.encode()


def _pairs(headers: Any) -> tuple[tuple[str, bytes | None], ...]:
    pairs = headers.items() if isinstance(headers, dict) else headers
    return tuple((name, None if value is None else value.encode()) for name, value in pairs)


def verdict(database: Database, messages: list[Message]) -> Verdict:
    stream = Stream("127.0.0.1:1", committed_only=False)
    for message in messages:
        stream._take(message)
    with database.connect() as connection:
        return stream.verdict(connection, edited=())


def test_a_perfect_relay_is_found_to_be_one(database: Database) -> None:
    found = verdict(database, written(database))
    assert found.violations == {}
    assert (found.written, found.delivered, found.duplicates) == (ROWS, ROWS, 0)


def _of_one_key(messages: list[Message]) -> tuple[int, int]:
    """The places of two rows of one key and topic."""
    seen: dict[tuple[str, bytes], int] = {}
    for place, message in enumerate(messages):
        if message.key_bytes is None:
            continue
        former = seen.setdefault((message.topic_name, message.key_bytes), place)
        if former != place:
            return former, place
    raise AssertionError("no key has two rows")


def _swapped(messages: list[Message]) -> list[Message]:
    first, second = _of_one_key(messages)
    changed = list(messages)
    changed[first], changed[second] = messages[second], messages[first]
    return changed


def _with(**changes: object) -> Callable[[list[Message]], list[Message]]:
    return lambda messages: [replace(messages[0], **changes), *messages[1:]]  # type: ignore[arg-type]


WRONGS: dict[str, tuple[str, Callable[[list[Message]], list[Message]]]] = {
    "a row is missing": ("lost", lambda messages: messages[1:]),
    "a row that was never committed": ("ghosts", lambda messages: [*messages, replace(messages[0], record_id=9_999)]),
    "two rows of a key in the wrong order": ("inverted", _swapped),
    "another payload": ("changed", _with(payload=b"other")),
    "null instead of empty, or the other way": (
        "changed",
        lambda messages: [
            replace(each, payload=b"" if each.payload is None else None if each.payload == b"" else each.payload)
            for each in messages
        ],
    ),
    "another key": ("changed", _with(key_bytes=b"other")),
    "a header more": ("changed", _with(own_headers=(("x", b"y"),))),
    "another event id": ("changed", _with(event_id="00000000-0000-0000-0000-000000000000")),
    "another topic": ("changed", _with(topic_name="campaign-c")),
    "a copy that differs": ("changed", lambda messages: [*messages, replace(messages[0], payload=b"other")]),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_what_is_wrong_is_found(database: Database, wrong: str) -> None:
    name, spoil = WRONGS[wrong]
    found = verdict(database, spoil(written(database)))
    assert set(found.violations) == {name}


def test_a_second_copy_is_a_duplicate_and_no_violation(database: Database) -> None:
    messages = written(database)
    found = verdict(database, [*messages, messages[5]])
    assert (found.duplicates, found.violations) == (1, {})


def test_a_row_that_names_its_partition_must_be_there(database: Database) -> None:
    messages = written(database)
    place = next(at for at, message in enumerate(messages) if (message.key_bytes or b"").startswith(b"part-"))
    messages[place] = replace(messages[place], at_partition=messages[place].at_partition + 1)
    assert set(verdict(database, messages).violations) == {"changed"}


def test_dead_letters_are_held_against_the_poison_that_was_written(database: Database) -> None:
    messages = written(database)
    with database.connect() as connection:
        for message, code in ((messages[0], "INVALID_TOPIC"), (messages[1], "MSG_SIZE_TOO_LARGE")):
            connection.execute(
                "INSERT INTO outboxd.dead_letter (outbox, outbox_id, event_id, topic, created_at, attempts, reason,"
                " error_code, error_message)"
                " VALUES ('default', %s, gen_random_uuid(), 't', now(), 1, 'fatal', %s, 'm')",
                (message.record_id, code),
            )
        # The first is what it died of, the second is innocent, the third is poison and was delivered.
        connection.execute(
            "INSERT INTO public.poison VALUES (%s, 'topic', 'INVALID_TOPIC'), (%s, 'size', 'MSG_SIZE_TOO_LARGE')",
            (messages[0].record_id, messages[2].record_id),
        )
    found = verdict(database, messages[2:])
    assert found.violations == {"wrongly_dead": 1, "poison_alive": 1}
    assert found.poison_alive == [messages[2].record_id]
