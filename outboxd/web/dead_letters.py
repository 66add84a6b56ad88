"""Dead letters as the page needs them, and as JSON for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

import orjson

from outboxd.policy.faults import fault_named
from outboxd.policy.rows.headers import readable_headers
from outboxd.postgres.operators.dead_letter_rows import Filters, Group, Letter, Taken, WholeLetter
from outboxd.postgres.operators.sql_by_hand import sql_by_hand

PAYLOAD_BYTES_SHOWN_MAX: Final = 64 * 1024


class DeadLetters(Protocol):
    """Where the page finds dead letters and has them mended. Errors are those of `outboxd.errors`."""

    def summary(self, filters: Filters = ..., /) -> Sequence[Group]:
        """The groups by topic, reason and error code, largest first."""
        ...

    def list(self, filters: Filters = ..., limit: int = ...) -> Sequence[Letter]:
        """The newest dead letters, at most `limit`."""
        ...

    def show(self, letter_id: int, /) -> WholeLetter | None:
        """One in full; None where there is none of this id."""
        ...

    def replay(self, ids: Sequence[int], *, force: bool = ..., note: str | None = ..., who: str = ...) -> Taken:
        """Send these again; those that need `force` are named and left as they are."""
        ...

    def discard(self, ids: Sequence[int], *, note: str | None = ..., who: str = ...) -> Taken:
        """Give these up."""
        ...


def whole_as_dict(whole: WholeLetter, schema: str) -> dict[str, Any]:
    """One dead letter as the page shows it: payload readable, the error's meaning and remedy, and the SQL to do the
    same. `headers` is null where only the letter's own text of them tells what is stored.
    """
    letter, payload = whole.letter, whole.payload
    fault = fault_named(letter.error_code)
    return {
        "letter": asdict(letter),
        "headers": readable_headers(letter.headers, orjson.loads),
        "payload": None if payload is None else readable(payload[:PAYLOAD_BYTES_SHOWN_MAX]),
        "payload_is_cut": payload is not None and len(payload) > PAYLOAD_BYTES_SHOWN_MAX,
        "meaning": fault.meaning if fault else "",
        "remedy": fault.remedy if fault else "",
        "obstacle": whole.obstacle.sentence if whole.obstacle else "",
        "sql": sql_by_hand(whole, schema),
    }


def readable(payload: bytes) -> str:
    """Bytes as a person reads them: text where they are UTF-8 (a cut last character is left out), else hexadecimal."""
    for end in range(len(payload), max(len(payload) - 4, -1), -1):
        try:
            text = payload[:end].decode()
        except UnicodeDecodeError:
            continue
        if end == len(payload) or len(payload) == PAYLOAD_BYTES_SHOWN_MAX:
            return text
    return "\\x" + payload.hex()


def taken_as_dict(taken: Taken) -> dict[str, Any]:
    """What was done, with a sentence for each dead letter that needs force."""
    refused = [{"id": obstacle.id, "why": obstacle.sentence} for obstacle in taken.refused]
    return {"taken": taken.taken, "skipped": taken.skipped, "refused": refused}
