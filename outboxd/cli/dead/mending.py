"""`outboxd dead replay` and `outboxd dead discard`: what changes dead letters, asked for and paced."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from outboxd.cli.dead.filters import AsJson, Code, Key, Reason, Since, Topic, dead_letter_id, dead_letters, filters_from
from outboxd.cli.output import print_json, print_line, stderr_console
from outboxd.errors import EXIT_OK, EXIT_USAGE, UsageError
from outboxd.policy.rows.records import ID_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from outboxd.postgres.operators.dead_letter_rows import Filters, Obstacle, Taken
    from outboxd.postgres.operators.dead_letters import DeadLetters

Verb = Literal["replay", "discard"]
_DONE: dict[Verb, str] = {"replay": "replaying", "discard": "discarded"}
BATCH_ROWS = 1000
REFUSED_SHOWN = 20

Ids = Annotated[
    list[int] | None, typer.Argument(metavar="ID", parser=dead_letter_id, help="Ids, as `dead list` shows them.")
]
All = Annotated[bool, typer.Option("--all", help="All that are dead; without ids and filters nothing is meant.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, max=ID_MAX, help="Rows taken at most, the oldest first; not with ids.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Rate = Annotated[
    float | None, typer.Option("--rate", min=0.01, max=1_000_000, help="Rows a second at most; not with ids.")
]
Note = Annotated[str | None, typer.Option("--note", help="Why; kept with the dead letter, beside who and when.")]


@dataclass(frozen=True)
class Errand:
    """What was asked for, of which outbox."""

    verb: Verb
    outbox: str
    ids: Sequence[int] | None
    filters: Filters
    limit: int | None
    dry_run: bool
    yes: bool
    rate: float | None
    note: str | None
    as_json: bool


@dataclass
class Result:
    """What was done so far."""

    taken: int = 0
    skipped: int = 0
    refused: int = 0
    shown: list[Obstacle] = field(default_factory=list)
    named: list[int] = field(default_factory=list)
    waits: bool = False
    """No daemon is there to send what is replayed."""

    def add(self, batch: Taken) -> None:
        """One batch more."""
        self.taken += batch.taken
        self.skipped += batch.skipped
        self.refused += len(batch.refused)
        self.shown.extend(batch.refused[: REFUSED_SHOWN - len(self.shown)])

    def name(self, batch: Taken) -> None:
        """Those taken of a batch that was asked for by ids; of filters they may be millions."""
        self.named.extend(batch.ids)


def replay(
    ids: Ids = None,
    *,
    topic: Topic = None,
    code: Code = None,
    key: Key = None,
    since: Since = None,
    reason: Reason = None,
    every: All = False,
    limit: Limit = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where newer rows of the same key were published since.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    rate: Rate = None,
    note: Note = None,
    as_json: AsJson = False,
) -> int:
    """Send dead letters again, in place: each with its own id and event id, before the rows that its key holds.

    Those whose key has newer published rows are left as they are and named, unless --force. Exits 64 when any was left
    for that reason.
    """
    filters = filters_from(topic=topic, code=code, key=key, since=since, reason=reason)
    _check_choice(ids, filters, every=every, limit=limit, rate=rate)
    with dead_letters() as (letters, schema, outbox):

        def batches(*, dry: bool) -> Iterator[Taken]:
            if ids:
                yield letters.replay(ids, force=force, note=note, who=_who(), dry_run=dry)
                return
            yield from letters.replay_where(
                filters, limit=limit, batch_rows=_batch_rows(rate), force=force, note=note, who=_who(), dry_run=dry
            )

        errand = Errand("replay", outbox, ids, filters, limit, dry_run, yes, rate, note, as_json)
        return _carry_out(errand, letters, schema, batches)


def discard(
    ids: Ids = None,
    *,
    topic: Topic = None,
    code: Code = None,
    key: Key = None,
    since: Since = None,
    reason: Reason = None,
    every: All = False,
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    rate: Rate = None,
    note: Note = None,
    as_json: AsJson = False,
) -> int:
    """Give dead letters up: they are never sent, and the rows that their keys hold may go; they stay to be seen."""
    filters = filters_from(topic=topic, code=code, key=key, since=since, reason=reason)
    _check_choice(ids, filters, every=every, limit=limit, rate=rate)
    with dead_letters() as (letters, schema, outbox):

        def batches(*, dry: bool) -> Iterator[Taken]:
            if ids:
                yield letters.discard(ids, note=note, who=_who(), dry_run=dry)
                return
            yield from letters.discard_where(
                filters, limit=limit, batch_rows=_batch_rows(rate), note=note, who=_who(), dry_run=dry
            )

        errand = Errand("discard", outbox, ids, filters, limit, dry_run, yes, rate, note, as_json)
        return _carry_out(errand, letters, schema, batches)


def pause_seconds(rows: int, rate: float, elapsed_seconds: float) -> float:
    """How long to wait so that `rows` since the start are no more than `rate` a second."""
    return max(0.0, rows / rate - elapsed_seconds)


def _carry_out(errand: Errand, letters: DeadLetters, schema: str, batches: Callable[..., Iterator[Taken]]) -> int:
    started = letters.now()
    result = Result()
    if not errand.dry_run and not errand.yes:
        count = len(set(errand.ids)) if errand.ids else _count(letters, errand.filters, errand.limit)
        if count == 0:
            return _tell(errand, result, "")
        _confirm(errand.verb, count)
    begun = time.monotonic()
    try:
        for batch in batches(dry=errand.dry_run):
            result.add(batch)
            if errand.ids:
                result.name(batch)
            if errand.rate is not None and not errand.dry_run:
                time.sleep(pause_seconds(result.taken, errand.rate, time.monotonic() - begun))
    except KeyboardInterrupt:
        stderr_console().print(
            f"interrupted: {result.taken:,} {_DONE[errand.verb]} so far, the others are as they were"
        )
        raise
    is_done = result.taken > 0 and not errand.dry_run
    result.waits = is_done and errand.verb == "replay" and not letters.are_relayed()
    return _tell(errand, result, _undo(errand, result, schema, started, letters.now()) if is_done else "")


def _undo(errand: Errand, result: Result, schema: str, started: datetime, ended: datetime) -> str:
    """The SQL that takes back what was done here, and nothing that others did."""
    from outboxd.postgres.operators.dead_letters import signed
    from outboxd.postgres.operators.sql_by_hand import chosen_by, sql_literal, undo_sql

    by_ids = f"id IN ({', '.join(map(str, result.named))})"
    chosen = by_ids if errand.ids else chosen_by(errand.filters, errand.outbox)
    when = f"resolved_at BETWEEN '{started.isoformat()}' AND '{ended.isoformat()}'"
    # Meanwhile others may have taken some of the same: theirs have another entry at the end of their notes.
    entry = sql_literal(signed(errand.note, _who()) or "")
    ours = f"right(note, length({entry})) = {entry}"
    return undo_sql(_DONE[errand.verb], schema, f"{chosen} AND {when} AND {ours}")


def _tell(errand: Errand, result: Result, undo: str) -> int:
    from outboxd.cli.dead.text import print_obstacles
    from outboxd.cli.plain_text import count_of, one_line

    verb = errand.verb
    code = EXIT_USAGE if result.refused else EXIT_OK
    if errand.as_json:
        print_json(
            {
                "dry_run": errand.dry_run,
                _DONE[verb]: result.taken,
                "skipped": result.skipped,
                "refused": result.refused,
                "refused_sample": [
                    {"id": each.id, "topic": each.topic, "newer_id": each.newer_id, "why": each.sentence}
                    for each in result.shown
                ],
                "undo_sql": undo or None,
            }
        )
        return code
    if errand.dry_run:
        print_line(f"would {verb} {count_of(result.taken, 'dead letter')}; nothing was changed")
    elif not result.taken:
        print_line(f"nothing to {verb}")
    elif verb == "replay":
        when = (
            f"no daemon relays the outbox {one_line(errand.outbox)} now, so they wait until one does"
            if result.waits
            else "the daemon sends them now"
        )
        print_line(f"replaying {count_of(result.taken, 'dead letter')}: {when}")
    else:
        print_line(f"discarded {count_of(result.taken, 'dead letter')}")
    if result.skipped:
        print_line(f"{result.skipped:,} skipped: not dead (any more), or not of this outbox")
    print_obstacles(result.refused, result.shown)
    if undo:
        print_line(f"undo{', before they were sent' if verb == 'replay' else ''}: {undo}")
    return code


def _check_choice(
    ids: Sequence[int] | None, filters: Filters, *, every: bool, limit: int | None, rate: float | None
) -> None:
    from outboxd.postgres.operators.dead_letter_rows import Filters

    filtered = filters != Filters()
    if ids and (filtered or every):
        raise UsageError("give either ids or filters, not both")
    if not ids and not filtered and not every:
        raise UsageError("say which: ids, filters such as --topic and --code, or --all")
    if ids and (limit is not None or rate is not None):
        raise UsageError("--limit and --rate are for filters and --all; with ids, name those that are meant now")


def _confirm(verb: Verb, count: int) -> None:
    from outboxd.cli.plain_text import count_of

    if not sys.stdin.isatty():
        raise UsageError(
            f"nobody can be asked whether to {verb} without a terminal: repeat it with --yes, or --dry-run"
        )
    typer.confirm(f"{verb} {count_of(count, 'dead letter')}?", abort=True, err=True)


def _count(letters: DeadLetters, filters: Filters, limit: int | None) -> int:
    count = sum(group.count for group in letters.summary(filters))
    return count if limit is None else min(count, limit)


def _batch_rows(rate: float | None) -> int:
    # A batch a second, so that a low rate is no burst a minute.
    return BATCH_ROWS if rate is None else max(1, min(BATCH_ROWS, int(rate)))


def _who() -> str:
    import getpass
    import socket

    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "somebody"
    return f"{name}@{socket.gethostname()}"
