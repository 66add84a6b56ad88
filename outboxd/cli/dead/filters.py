"""Which dead letters are meant: the options that every command of `outboxd dead` shares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from outboxd.errors import UsageError
from outboxd.policy.rows.records import ID_MAX

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from outboxd.postgres.operators.dead_letter_rows import Filters
    from outboxd.postgres.operators.dead_letters import DeadLetters

Topic = Annotated[str | None, typer.Option("--topic", help="Only of this topic.")]
Code = Annotated[str | None, typer.Option("--code", help="Only with this error code, such as MSG_SIZE_TOO_LARGE.")]
Key = Annotated[str | None, typer.Option("--key", help="Only with this key.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help='Only died since: "30m", "2h", "7d", or 2026-01-31T12:00Z.'),
]
Reason = Annotated[
    Literal["fatal", "exhausted", "expired", "invalid"] | None,
    typer.Option("--reason", help="Only for this reason."),
]
StatusName = Annotated[
    Literal["dead", "replaying", "replayed", "discarded", "all"], typer.Option("--status", help="Only in this status.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]


def dead_letter_id(text: str) -> int:
    """The id that an argument names; no range or list within one, where a slip of the pen takes too many."""
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or int(text) > ID_MAX:
        raise typer.BadParameter(
            f"{text!r} is no id: give numbers as `outboxd dead list` shows them, with spaces between, such as 17 18"
        )
    return int(text)


#: Beyond it are times that PostgreSQL or Python cannot tell.
DAYS_BACK_MAX = 365_000


@contextmanager
def dead_letters() -> Iterator[tuple[DeadLetters, str, str]]:
    """The dead letters of the configured outbox, the name of the schema, and that of the outbox."""
    from outboxd.cli.database import opened
    from outboxd.postgres.operators.dead_letters import DeadLetters

    with opened() as (settings, engine):
        schema, outbox = settings.database.schema_, settings.outbox.name
        yield DeadLetters(engine, schema, outbox), schema, outbox


def filters_from(
    *,
    topic: str | None,
    code: str | None,
    key: str | None,
    since: str | None,
    reason: str | None,
    status: str = "dead",
) -> Filters:
    """What the options say, as the database takes it."""
    from outboxd.postgres.operators.dead_letter_rows import Filters

    return Filters(
        topic=topic,
        error_code=None if code is None else code.upper(),
        key=key,
        reason=reason,
        since=None if since is None else parse_since(since),
        status=None if status == "all" else status,  # type: ignore[arg-type] # the parser lets no other through
    )


def parse_since(text: str) -> datetime | timedelta:
    """A time in ISO 8601 (local time where it names no zone), or a duration that counts back from now.

    Raises:
        UsageError: it is neither.
    """
    from datetime import datetime, timedelta

    from outboxd.config.units import parse_duration

    try:
        back = timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        pass
    else:
        if back.days >= DAYS_BACK_MAX:
            raise UsageError(f"--since {text!r}: at most {DAYS_BACK_MAX:,} days back; without it all are meant")
        return back
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise UsageError(
            f'--since {text!r}: give a duration such as "2h" or a time such as 2026-01-31T12:00Z'
        ) from None
