"""Durations and sizes as people write them: "250ms", "24h", "64MiB"; exact to a millisecond and to a byte."""

from __future__ import annotations

import re
from decimal import Decimal

#: Milliseconds a unit, longest first.
DURATION_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
#: Bytes a unit, largest first; the decimal ones are what disks are sold in, the binary ones what memory is.
SIZE_UNITS_BYTES = {
    "GiB": 1 << 30,
    "GB": 1_000_000_000,
    "MiB": 1 << 20,
    "MB": 1_000_000,
    "KiB": 1 << 10,
    "kB": 1_000,
    "B": 1,
}
_SIZE_SPELLINGS = {unit.lower(): size_bytes for unit, size_bytes in SIZE_UNITS_BYTES.items()}
# No more digits than a float has room for, in any unit.
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]{1,300}(?:\.[0-9]{1,300})?)\s*([A-Za-z]+)\s*", re.ASCII)

DURATION_FORM = 'a number with a unit (ms, s, m, h, d) such as "250ms"'
SIZE_FORM = 'a number with a unit (B, kB, KiB, MB, MiB, GB, GiB) such as "64MiB"'


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "250ms", "1.5s", "24h", "90d" or "0".

    Raises:
        ValueError: not of that form, or finer than a millisecond; the message says what is allowed.
    """
    amount_ms = _parse(text, DURATION_UNITS_MS, DURATION_FORM)
    if amount_ms is None:
        raise ValueError(f"finer than a millisecond; allowed: {DURATION_FORM}")
    return amount_ms / 1000


def format_duration(seconds: float) -> str:
    """The shortest whole number with a unit that `parse_duration` reads back as `seconds`, to a millisecond."""
    return _format(round(seconds * 1000), DURATION_UNITS_MS)


def parse_size(text: str) -> int:
    """Bytes of a size such as "64MiB", "1.5GB" or "0"; the unit's case does not matter.

    Raises:
        ValueError: not of that form, or not a whole number of bytes; the message says what is allowed.
    """
    amount_bytes = _parse(text, _SIZE_SPELLINGS, SIZE_FORM, fold=True)
    if amount_bytes is None:
        raise ValueError(f"not a whole number of bytes; allowed: {SIZE_FORM}")
    return amount_bytes


def format_size(size_bytes: int) -> str:
    """The shortest whole number with a unit that `parse_size` reads back as `size_bytes`."""
    return _format(size_bytes, SIZE_UNITS_BYTES)


def _parse(text: str, units: dict[str, int], form: str, *, fold: bool = False) -> int | None:
    if text.strip() == "0":
        return 0
    match = _NUMBER_AND_UNIT.fullmatch(text)
    unit = "" if match is None else match[2].lower() if fold else match[2]
    if match is None or unit not in units:
        raise ValueError(f'allowed: {form}, or "0"')
    amount = Decimal(match[1]) * units[unit]
    return int(amount) if amount == amount.to_integral_value() else None


def _format(amount: int, units: dict[str, int]) -> str:
    if amount == 0:
        return "0"
    whole = [(amount // size, unit) for unit, size in units.items() if amount % size == 0]
    count, unit = min(whole)
    return "24h" if (count, unit) == (1, "d") else f"{count}{unit}"
