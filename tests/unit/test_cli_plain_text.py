"""How times, bytes and texts are written for people; the pace and the times that `outboxd dead` is given."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from outboxd.cli.dead.filters import parse_since
from outboxd.cli.dead.mending import pause_seconds
from outboxd.cli.plain_text import (
    about,
    ago,
    as_text,
    cell,
    count_of,
    hex_dump,
    moment_and_lapse,
    one_line,
    safe,
    shell_word,
)
from outboxd.errors import UsageError
from outboxd.postgres.operators.sql_by_hand import sql_literal

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s ago"), (-5, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (864_000, "10 d ago")],
)
def test_a_lapse_has_the_largest_fitting_unit(seconds: int, expected: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == expected


@pytest.mark.parametrize(
    ("rows", "told"), [(4, "4"), (99, "99"), (12_345, "12,000"), (12_500_001, "13,000,000"), (10**18, f"{10**18:,}")]
)
def test_an_estimate_is_told_no_finer_than_it_is(rows: int, told: str) -> None:
    assert about(rows) == f"about {told}"


def test_a_moment_to_come_is_told_with_the_time_to_it() -> None:
    assert moment_and_lapse(NOW + timedelta(minutes=5), NOW).endswith(" UTC (in 5 min)")


def test_a_moment_is_in_utc() -> None:
    assert moment_and_lapse(datetime.fromisoformat("2026-01-31T12:00:00+02:00"), NOW) == (
        "2026-01-31 10:00:00 UTC (2 h ago)"
    )


def test_a_cell_is_one_short_line() -> None:
    assert [cell(None), cell(""), cell("a\n\x1bb"), cell("x" * 100, 5)] == ["-", '""', "a b", "xxxx…"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", ""), ("größe\n".encode(), "größe\n"), (b"\xff", None), (b"a\0b", None), (b"\x01\x02\x03ab", None)],
)
def test_what_is_not_text_is_told_apart(content: bytes, expected: str | None) -> None:
    assert as_text(content) == expected


def test_what_drives_a_terminal_is_written_out() -> None:
    assert safe("a\tb\nc\x1b[31m\u202e") == "a\tb\nc\\x1b[31m\\x202e"


def test_a_text_on_one_line_adds_no_line_of_its_own() -> None:
    assert one_line("a\tb\nc\r\x1b[31m\u2028é") == "a\\x09b\\x0ac\\x0d\\x1b[31m\\x2028é"


@pytest.mark.parametrize("text", ["orders", "metrics.*", "it's", "a\nb", "\x1b[2J'\\", "\u2028é\t1", ""])
def test_a_word_for_the_shell_means_the_text_and_drives_no_terminal(text: str) -> None:
    word = shell_word(text)
    assert one_line(word) == word
    said = subprocess.run(
        ["bash", "-c", f"printf %s {word}"], env={"LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=True
    )
    assert said.stdout == text


def test_a_hex_dump_has_offsets_bytes_and_ascii() -> None:
    first, second = hex_dump(bytes(range(32, 49)))
    assert first == "00000000  20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f   !\"#$%&'()*+,-./"
    assert second.split() == ["00000010", "30", "0"]


def test_counts_agree_with_their_nouns() -> None:
    assert [count_of(1, "key"), count_of(1200, "key"), count_of(2, "retry", "retries")] == [
        "1 key", "1,200 keys", "2 retries",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"), [("a", "'a'"), ("it's", "'it''s'"), ("a\\'b", "E'a\\\\''b'"), ("\x1b\n", "E'\\u001b\\u000a'")]
)
def test_a_text_becomes_a_literal_of_sql(text: str, expected: str) -> None:
    assert sql_literal(text) == expected


def test_since_takes_durations_and_times() -> None:
    assert parse_since("90m") == timedelta(minutes=90)
    assert parse_since("2026-01-31T12:00Z") == NOW
    assert parse_since("2026-01-31T14:00:00+02:00") == NOW
    for wrong in ("yesterday", "", "2026-13-01", "99999999999d"):
        with pytest.raises(UsageError, match="--since"):
            parse_since(wrong)


def test_a_rate_is_kept_by_waiting_for_what_was_done_too_soon() -> None:
    assert pause_seconds(100, 50, 0.5) == 1.5
    assert pause_seconds(100, 50, 3.0) == 0.0
