"""The headers of an outbox row: from the JSON text that PostgreSQL stores to the pairs that Kafka takes, or why not.

The checks are stricter than the client's: confluent-kafka 2.16 cuts a header's name at a NUL, and a lone surrogate in
a name ends the whole process, so neither must reach it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

RESERVED_HEADERS: Final = frozenset({"outbox-id", "outbox-event-id", "outbox-source"})
_EMPTY: Final = frozenset({"{}", "[]"})
_NAME_CHARS_SHOWN: Final = 60

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class InvalidHeaders:
    """Why the headers cannot be sent. `reason` names the header; `fault_name` is the own fault that the row dies of."""

    reason: str
    fault_name: Literal["INVALID_HEADERS", "RESERVED_HEADER"] = "INVALID_HEADERS"


def parse_headers(text: str, loads: Callable[[str], Any] = json.loads) -> Headers | InvalidHeaders:
    """Return the headers in `text` in their order, values in UTF-8, or what is wrong with them.

    `text` is a JSON object of name to value, or an array of `[name, value]` pairs, which keeps order and repeats; a
    value is a string or null. In an object with a repeated name the last one counts, as in `jsonb`. `loads` turns
    JSON text into Python values and raises `ValueError` for what is no JSON; a faster one than the standard library's
    may be given.
    """
    if text in _EMPTY:
        return ()
    try:
        document = loads(text)
    except (ValueError, RecursionError) as error:
        # The error's own text is left out: it quotes the document, which is as long as the row's writer made it.
        return InvalidHeaders(f"the headers are no valid JSON ({type(error).__name__})")
    if isinstance(document, dict):
        return _checked(document.items())
    if isinstance(document, list):
        pairs = _pairs(document)
        return pairs if isinstance(pairs, InvalidHeaders) else _checked(pairs)
    return InvalidHeaders(f"the headers are {_kind(document)}, not an object or an array of [name, value] pairs")


def readable_headers(text: str, loads: Callable[[str], Any] = json.loads) -> list[tuple[str, str | None]] | None:
    """Return the headers in `text` for people, reserved names too; None where they are no names with a string or null.

    Then only `text` itself shows what is stored: a parser may round its numbers or refuse it.
    """
    try:
        document = loads(text)
    except (ValueError, RecursionError):
        return None
    pairs = list(document.items()) if isinstance(document, dict) else document
    if not isinstance(pairs, list):
        return None
    readable = [(pair[0], pair[1]) for pair in pairs if _is_readable(pair)]
    return readable if len(readable) == len(pairs) else None


def _is_readable(pair: Any) -> bool:
    return (
        isinstance(pair, (tuple, list))
        and len(pair) == 2
        and isinstance(pair[0], str)
        and (pair[1] is None or isinstance(pair[1], str))
    )


def _pairs(document: list[Any]) -> list[tuple[Any, Any]] | InvalidHeaders:
    pairs = []
    for position, item in enumerate(document):
        if not isinstance(item, list):
            return InvalidHeaders(f"item {position} of the headers is {_kind(item)}, not a [name, value] pair")
        if len(item) != 2:
            return InvalidHeaders(f"item {position} of the headers has {len(item)} elements, not a name and a value")
        pairs.append((item[0], item[1]))
    return pairs


def _checked(pairs: Any) -> Headers | InvalidHeaders:
    headers: list[tuple[str, bytes | None]] = []
    for name, value in pairs:
        problem = _name_problem(name)
        if problem is not None:
            return problem
        if value is None:
            headers.append((name, None))
            continue
        if not isinstance(value, str):
            return InvalidHeaders(f"the value of header {_shown(name)} is {_kind(value)}, not a string or null")
        try:
            headers.append((name, value.encode()))
        except UnicodeEncodeError:
            return InvalidHeaders(f"the value of header {_shown(name)} has a lone surrogate, which UTF-8 cannot carry")
    return tuple(headers)


def _name_problem(name: Any) -> InvalidHeaders | None:
    if not isinstance(name, str):
        return InvalidHeaders(f"a header's name is {_kind(name)}, not a string")
    if name in RESERVED_HEADERS:
        return InvalidHeaders(f"header {_shown(name)} is one that outboxd adds itself", "RESERVED_HEADER")
    if "\0" in name:
        return InvalidHeaders(f"the name of header {_shown(name)} has a NUL, where the client would cut it off")
    # Names are nearly always ASCII, which is known without encoding.
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            return InvalidHeaders(f"the name of header {_shown(name)} has a lone surrogate, which UTF-8 cannot carry")
    return None


def _shown(name: str) -> str:
    """Quote a name for a message: escaped where it is not printable, and short."""
    return repr(name if len(name) <= _NAME_CHARS_SHOWN else name[:_NAME_CHARS_SHOWN] + "…")


def _kind(value: Any) -> str:
    """Name the type of a JSON value with its article; never the value, which may be of any size."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"
