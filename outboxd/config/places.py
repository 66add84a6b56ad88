"""Where values come from: which source, and in a file on which line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

SourceKind = Literal["default", "file", "credential", "environment", "flag"]
_LOWEST_FIRST = get_args(SourceKind)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an effective value came from.

    Attributes:
        source: which of the layers.
        name: the file's path, the variable's, credential's or flag's name; empty for a default.
        line: the line in the file, where it is known.
        read_from: the file that holds the value itself, for a setting given as `…_file`.
    """

    source: SourceKind
    name: str = ""
    line: int | None = None
    read_from: str = ""

    @property
    def rank(self) -> int:
        """Of two sources, the one with the higher rank wins."""
        return _LOWEST_FIRST.index(self.source)

    def __str__(self) -> str:
        if self.source == "file":
            place = self.name if self.line is None else f"{self.name}:{self.line}"
        else:
            place = f"{self.source} {self.name}".rstrip()
        return f"{place} (read from {self.read_from})" if self.read_from else place


DEFAULT = Origin("default")

_PART = r'(?:[A-Za-z0-9_-]+|"[^"]*"|\'[^\']*\')'
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")


def lines_by_key(text: str) -> dict[str, int]:
    """Where each key and table stands in the TOML `text`: dotted name → line.

    Names are such as `relay.batch_rows`, `route[0].retry.max_attempts`, and `relay` for the table itself. A scan by
    line, for messages only: keys within inline tables and multi-line strings are not told apart.
    """
    found: dict[str, int] = {}
    tables: dict[str, int] = {}
    prefix = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if table := _TABLE.match(line):
            name = _dotted(table[2])
            if table[1] == "[[":
                tables[name] = tables.get(name, -1) + 1
            prefix = _within_last(name, tables)
            found.setdefault(prefix, number)
        elif key := _KEY.match(line):
            found.setdefault(f"{prefix}.{_dotted(key[1])}".lstrip("."), number)
    return found


def _dotted(name: str) -> str:
    return ".".join(part.strip("\"'") for part in re.findall(_PART, name))


def _within_last(name: str, tables: dict[str, int]) -> str:
    first, dot, rest = name.partition(".")
    return f"{first}[{tables[first]}]{dot}{rest}" if first in tables else name
