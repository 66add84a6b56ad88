"""The SQL with which a person does in psql what the command line and the page do: shown, never run here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from outboxd.policy.rows import control_characters
from outboxd.postgres.schema.names import quoted

if TYPE_CHECKING:
    from outboxd.postgres.operators.dead_letter_rows import Filters, Letter, WholeLetter

_UNSAFE = re.compile(f"[{control_characters.ALL}]")


def sql_by_hand(whole: WholeLetter, schema: str) -> dict[str, str]:
    """Purpose → statement, for this dead letter in its present status."""
    letter, name = whole.letter, quoted(schema)
    number = letter.id
    statements = {"look at it": f"SELECT * FROM {name}.dead_letter WHERE id = {number};"}
    if letter.status == "dead":
        force = ", force => true" if whole.obstacle is not None else ""
        if letter.error_code != "INVALID_TIMESTAMP":  # What is at fault is none of the columns that can be mended.
            statements["mend it first, where its content is the fault (topic, key, payload, headers, partition)"] = (
                f"UPDATE {name}.dead_letter SET {_mended(letter)} WHERE id = {number};"
            )
        statements |= {
            "replay it": f"SELECT {name}.replay({number}{force}, note => 'why');",
            "give it up": f"SELECT {name}.discard({number}, note => 'why');",
        }
    undo = undo_sql(letter.status, schema, f"id = {number}")
    return statements | ({"undo, before it was sent" if letter.status != "discarded" else "undo": undo} if undo else {})


def _mended(letter: Letter) -> str:
    """An assignment to the column that most probably is at fault."""
    topic = f"topic = {sql_literal(letter.topic)}"
    return {
        "INVALID_HEADERS": """headers = '{"name": "value"}'""",
        "RESERVED_HEADER": """headers = '{"name": "value"}'""",
        "MSG_SIZE_TOO_LARGE": "payload = convert_to('…', 'UTF8')",
        "INVALID_PAYLOAD": "payload = convert_to('…', 'UTF8')",
        "UNKNOWN_PARTITION": "partition = NULL",
        "MISSING_KEY": "key = '…'",
        "INVALID_KEY": "key = '…'",
    }.get(letter.error_code, topic)


def undo_sql(status: str, schema: str, condition: str) -> str:
    """What takes a replay (while it was not sent) or a discarding back; empty where nothing can."""
    undone = {"dead": "replaying", "replaying": "replaying", "discarded": "discarded"}.get(status)
    if undone is None:
        return ""
    return (
        f"UPDATE {quoted(schema)}.dead_letter SET status = 'dead', resolved_at = NULL, resolved_by = NULL"
        f" WHERE status = '{undone}' AND {condition};"
    )


def chosen_by(filters: Filters, outbox: str) -> str:
    """The condition on the dead letters of this outbox that these filters mean, whatever their status is by now."""
    wanted = {"outbox": outbox, **{name: getattr(filters, name) for name in ("topic", "error_code", "key", "reason")}}
    return " AND ".join(f"{name} = {sql_literal(text)}" for name, text in wanted.items() if text is not None)


def sql_literal(text: str) -> str:
    """`text` as a string in SQL, on one line and safe to print: what would drive a terminal is escaped."""
    quoted_text = text.replace("'", "''")
    escaped = _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted_text.replace("\\", "\\\\"))
    return f"'{quoted_text}'" if escaped == quoted_text else f"E'{escaped}'"
