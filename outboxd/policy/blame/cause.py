"""The real cause of a failure in one line of plain text, for the log and for the column `error_message`."""

from __future__ import annotations

import re
from typing import Final

from outboxd.policy.faults import Fault
from outboxd.policy.rows import control_characters

CAUSE_CHARS_MAX: Final = 2000
_TEXT_CHARS_MAX: Final = 600
_TOPIC_CHARS_MAX: Final = 249
_ELLIPSIS: Final = "…"
_EMPTY: Final = '""'

# Control characters would break the one line, drive a terminal or turn its direction round; PostgreSQL takes neither
# NUL nor lone surrogates.
_CONTROLS: Final = re.compile(f"[{control_characters.ALL}]+")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def cause(fault: Fault, text: str, topic: str | None = None, partition: int | None = None) -> str:
    """Return number, name, the error's own text, meaning, remedy and the place, in one line that PostgreSQL can store.

    `text` is what the client or Python said; it and `topic` may hold anything and be of any length, since they may
    come from the row. The place is the topic, with the partition where it is known; None: it is no topic's. At most
    `CAUSE_CHARS_MAX` characters.

    Example: `10 MSG_SIZE_TOO_LARGE at orders-3: Broker: Message size too large. The record, or … Raise the topic's …`
    """
    place = "" if topic is None else f" at {plain(topic, _TOPIC_CHARS_MAX) or _EMPTY}"
    if topic is not None and partition is not None:
        place += f"-{partition}"
    said = plain(text, _TEXT_CHARS_MAX)
    if said and not said.endswith((".", "!", "?", _ELLIPSIS)):
        said += "."
    # An unlisted fault already quotes the client in its meaning.
    sentences = (
        [fault.meaning, fault.remedy] if said.rstrip(".") in fault.meaning else [said, fault.meaning, fault.remedy]
    )
    return plain(f"{fault.code} {fault.name}{place}: {' '.join(sentences)}", CAUSE_CHARS_MAX)


def plain(text: str, chars_max: int) -> str:
    """Return `text` in one line of at most `chars_max` characters that PostgreSQL can store and a terminal can show.

    Runs of control characters become a space, a lone surrogate becomes U+FFFD, and what is cut off ends in an ellipsis.
    """
    # Cut before cleaning, so that a text of megabytes costs nothing; cleaning never lengthens it.
    head = text[: chars_max + 1]
    cleaned = _SURROGATES.sub("\ufffd", _CONTROLS.sub(" ", head)).strip()
    if len(text) > chars_max:
        return cleaned[: chars_max - 1] + _ELLIPSIS
    return cleaned
