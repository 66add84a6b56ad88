"""Durations and sizes are read exactly, written shortest, and refused with what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.config.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("1ms", 0.001), ("250ms", 0.25), ("1.5s", 1.5), ("5s", 5.0), ("5m", 300.0), ("24h", 86_400.0),
        ("90d", 7_776_000.0), (" 3 s ", 3.0),
    ],
)  # fmt: skip
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5S", "5 sec", "-5s", "1e3s", "0.5ms", "1.2.3s", "٣s", "5s5s", "nan", "infs"]
)
def test_what_is_no_duration_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: a number with a unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0), ("1B", 1), ("1kB", 1000), ("1KB", 1000), ("1KiB", 1024), ("1MB", 10**6), ("64MiB", 64 << 20),
        ("64mib", 64 << 20), ("1.5GiB", 3 << 29), ("2GB", 2 * 10**9),
    ],
)  # fmt: skip
def test_a_size_is_read_in_bytes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "5", "MiB", "5M", "-5MB", "0.5B", "1TB", "1 e3 B"])
def test_what_is_no_size_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: a number with a unit"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=4_000 * 86_400_000))
def test_every_duration_is_read_back_as_it_was_written(amount_ms: int) -> None:
    assert parse_duration(format_duration(amount_ms / 1000)) == amount_ms / 1000


@given(st.integers(min_value=0, max_value=1 << 50))
def test_every_size_is_read_back_as_it_was_written(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.text(max_size=20))
def test_no_text_makes_the_readers_fail_otherwise_than_by_refusing(text: str) -> None:
    for read in (parse_duration, parse_size):
        try:
            assert read(text) >= 0
        except ValueError as error:
            assert "allowed" in str(error)
