"""How times, keys, bytes and SQL are written for people: on one line, safe for a terminal, without guessing."""

from __future__ import annotations

import re
import shlex
from datetime import datetime

from outboxd.policy.blame.cause import plain
from outboxd.policy.rows import control_characters

CELL_CHARS_MAX = 60
#: How an empty text is shown, which a missing one must not look like.
NOTHING = '""'
_BYTES_A_LINE = 16
_STORED = re.compile(r"(?P<date>\d+-\d\d-\d\d)T(?P<time>\d\d:\d\d:\d\d)[^ ]*(?P<era>(?: BC)?)")
_UNSAFE = re.compile(f"[{control_characters.ALL_BUT_TAB_AND_NEWLINE}]")
_UNSAFE_OR_LINE = re.compile(f"[{control_characters.ALL}]")


def cell(text: object, chars_max: int = CELL_CHARS_MAX) -> str:
    """`text` on one line and not too long; a dash for None, quotes around nothing."""
    if text is None:
        return "-"
    return plain(str(text), chars_max) or NOTHING


def moment(when: datetime) -> str:
    """A time to the second in UTC."""
    from datetime import UTC

    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def stored_moment(text: str) -> str:
    """A time as the database tells it (`Letter.created_at`), to the second; what is no date stays as it is."""
    found = _STORED.fullmatch(text)
    return text if found is None else f"{found['date']} {found['time']} UTC{found['era']}"


def lapse(seconds: float) -> str:
    """A time span in the largest fitting unit: `12 s`, `3 min`, `5 h`, `9 d`."""
    for unit_seconds, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_seconds:
            return f"{seconds / unit_seconds:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def ago(when: datetime, now: datetime) -> str:
    """How long before `now`."""
    return f"{lapse((now - when).total_seconds())} ago"


def moment_and_lapse(when: datetime, now: datetime) -> str:
    """A time, and how long ago that is, or how long it is to it."""
    return f"{moment(when)} ({f'in {lapse((when - now).total_seconds())}' if when > now else ago(when, now)})"


def as_text(content: bytes) -> str | None:
    """`content` as text, or None when it is not UTF-8 or full of control characters."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text or len(_UNSAFE.findall(text)) * 10 > len(text) else text


def safe(text: str) -> str:
    """`text` with its lines, and with whatever else would drive a terminal written in hexadecimal."""
    return _UNSAFE.sub(_in_hexadecimal, text)


def one_line(text: str) -> str:
    """`text` with its lines and tabs written in hexadecimal too: whoever wrote it adds no line to what is told."""
    return _UNSAFE_OR_LINE.sub(_in_hexadecimal, text)


def _in_hexadecimal(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def shell_word(text: str) -> str:
    """`text` as one argument of a shell, on one line and safe to print: what would drive a terminal is escaped."""
    if one_line(text) == text:
        return shlex.quote(text)
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    escaped = _UNSAFE_OR_LINE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
    return f"$'{escaped}'"


def hex_dump(content: bytes) -> list[str]:
    """Offset, sixteen bytes in hexadecimal, and the same as ASCII, on each line."""
    lines = []
    for offset in range(0, len(content), _BYTES_A_LINE):
        part = content[offset : offset + _BYTES_A_LINE]
        ascii_part = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{offset:08x}  {part.hex(' '):<{3 * _BYTES_A_LINE}} {ascii_part}")
    return lines


def about(number: int) -> str:
    """An estimate, no finer than it is: `about 1,200,000`."""
    return f"about {round(number, min(0, 2 - len(str(number)))):,}"


def count_of(number: int, one: str, many: str | None = None) -> str:
    """`1 dead letter`, `2 dead letters`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
