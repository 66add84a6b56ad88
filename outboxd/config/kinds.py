"""The kinds of values that settings have: whole numbers, durations, sizes, choices, flags and texts.

Each refuses with a ValueError of a few words, which `Kind` makes into the sentence that people read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from outboxd.config.kind import Kind
from outboxd.config.units import DURATION_FORM, SIZE_FORM, format_duration, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number from `low` to `high` of `things`."""

    low: int
    high: int
    things: str

    @property
    def allowed(self) -> str:
        """Bounds and unit."""
        return f"a whole number of {self.things}, {self.low} to {self.high}"

    @property
    def unit(self) -> str:
        """Unit and bounds."""
        return f"{self.things}, {self.low} to {self.high}"

    def from_toml(self, value: object) -> int:
        """An integer of TOML; true and false are none."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("not a whole number")
        return value

    def from_text(self, text: str) -> int:
        """Decimal digits, with a sign at most."""
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text, re.ASCII):
            raise ValueError("not a whole number")
        return int(text)

    def check(self, value: int) -> int:
        """Within `low` and `high`."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("not a whole number")
        return _bounded(value, self.low, self.high)


@dataclass(frozen=True)
class Duration(Kind):
    """A duration; its typed value is seconds as a float. `zero` says what "0" means where it is allowed."""

    low: str
    high: str
    zero: str = ""

    @property
    def allowed(self) -> str:
        """Form and bounds."""
        zero = f', or "0" ({self.zero})' if self.zero else ""
        return f"{DURATION_FORM}, {self.low} to {self.high}{zero}"

    @property
    def unit(self) -> str:
        """Bounds and the meaning of nought."""
        return f"{self.low} to {self.high}" + (f', or "0": {self.zero}' if self.zero else "")

    def from_toml(self, value: object) -> float:
        """A string; a number alone has no unit, except 0."""
        if value == 0 and not isinstance(value, bool):
            return 0.0
        if not isinstance(value, str):
            raise ValueError("without a unit")
        try:
            return parse_duration(value)
        except ValueError:
            raise ValueError("not a duration") from None

    def check(self, value: float) -> float:
        """Within the bounds, or 0 where that has a meaning."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError("not a number of seconds")
        if value == 0 and self.zero:
            return 0.0
        return _bounded(float(value), parse_duration(self.low), parse_duration(self.high))

    def plain(self, value: float) -> str:
        """As people write it."""
        return format_duration(value)


@dataclass(frozen=True)
class Size(Kind):
    """A size; its typed value is bytes as an int."""

    low: str
    high: str

    @property
    def allowed(self) -> str:
        """Form and bounds."""
        return f"{SIZE_FORM}, {self.low} to {self.high}"

    @property
    def unit(self) -> str:
        """Bounds."""
        return f"{self.low} to {self.high}"

    def from_toml(self, value: object) -> int:
        """A string; a number alone has no unit."""
        if not isinstance(value, str):
            raise ValueError("without a unit")
        try:
            return parse_size(value)
        except ValueError:
            raise ValueError("not a size") from None

    def check(self, value: int) -> int:
        """Within the bounds."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("not a whole number of bytes")
        return _bounded(value, parse_size(self.low), parse_size(self.high))

    def plain(self, value: int) -> str:
        """As people write it."""
        return format_size(value)


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """The words."""
        return ", ".join(json.dumps(word) for word in self.words)

    @property
    def unit(self) -> str:
        """The words."""
        return " | ".join(self.words)

    def from_toml(self, value: object) -> str:
        """A string."""
        return _text(value)

    def check(self, value: str) -> str:
        """One of the words."""
        if value not in self.words:
            raise ValueError("not one of the choices")
        return value


@dataclass(frozen=True)
class Flag(Kind):
    """True or false."""

    @property
    def allowed(self) -> str:
        """The two values."""
        return "true or false"

    def from_toml(self, value: object) -> bool:
        """A boolean of TOML."""
        return self.check(value)

    def from_text(self, text: str) -> bool:
        """The two words, in any case."""
        if text.strip().lower() not in ("true", "false"):
            raise ValueError("neither true nor false")
        return text.strip().lower() == "true"

    def check(self, value: object) -> bool:
        """A boolean."""
        if not isinstance(value, bool):
            raise ValueError("neither true nor false")
        return value


@dataclass(frozen=True)
class Text(Kind):
    """A text that a regular expression matches whole; `form` says in words what that is.

    `limit_bytes` bounds its length in UTF-8. `secret` keeps it out of error messages, as `may_hold_secret` does where
    it is none itself. `problem` says what else is wrong with a text of that form.
    """

    form: str
    pattern: str = r"[^\0]*"
    limit_bytes: int = 10_000
    secret: bool = False
    may_hold_secret: bool = False
    problem: Callable[[str], str | None] | None = None

    @property
    def allowed(self) -> str:
        """The form in words."""
        return self.form

    def from_toml(self, value: object) -> str:
        """A string."""
        return _text(value)

    def check(self, value: str) -> str:
        """Of the form, and not too long."""
        if not re.fullmatch(self.pattern, _text(value), re.DOTALL):
            raise ValueError("not of the right form")
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError:
            # The environment and arguments may hold any bytes; PostgreSQL, Kafka and JSON take text only.
            raise ValueError("not text in UTF-8") from None
        if size_bytes > self.limit_bytes:
            raise ValueError(f"longer than {self.limit_bytes} bytes")
        problem = None if self.problem is None else self.problem(value)
        if problem is not None:
            raise ValueError(problem)
        return value

    def show(self, value: object) -> str:
        """Quoted, unless it is or may hold a secret."""
        return "the value" if self.secret or self.may_hold_secret else super().show(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value


def _bounded(value: Number, low: Number, high: Number) -> Number:
    if value < low:
        raise ValueError("too small")
    if value > high:
        raise ValueError("too large")
    return value
