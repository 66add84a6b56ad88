"""`outboxd dead summary`, `list`, `show` and `export`: what changes nothing."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from outboxd.cli.dead.filters import (
    AsJson,
    Code,
    Key,
    Reason,
    Since,
    StatusName,
    Topic,
    dead_letter_id,
    dead_letters,
    filters_from,
)
from outboxd.cli.output import json_text, print_json
from outboxd.errors import UsageError
from outboxd.policy.rows.records import ID_MAX


def summary(
    *,
    topic: Topic = None,
    code: Code = None,
    key: Key = None,
    since: Since = None,
    reason: Reason = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Groups shown at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """What broke: dead letters by topic, reason and error; since when, how many, still growing, and a sample."""
    from outboxd.cli.dead.text import group_as_json, print_summary

    filters = filters_from(topic=topic, code=code, key=key, since=since, reason=reason)
    with dead_letters() as (letters, _, outbox):
        groups = letters.summary(filters)
        total = sum(group.count for group in groups)
        if as_json:
            print_json({"groups": [group_as_json(group) for group in groups[:limit]], "total": total})
            return
        print_summary(groups[:limit], total, outbox, letters.now())


def list_(
    *,
    topic: Topic = None,
    code: Code = None,
    key: Key = None,
    since: Since = None,
    reason: Reason = None,
    status: StatusName = "dead",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Rows shown at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """The rows, newest first, one line each."""
    from outboxd.cli.dead.text import letter_in_list_as_json, print_list

    filters = filters_from(topic=topic, code=code, key=key, since=since, reason=reason, status=status)
    with dead_letters() as (letters, _, _):
        found = letters.list(filters, limit + 1)
        more = len(found) > limit
        if as_json:
            print_json({"dead_letters": [letter_in_list_as_json(each) for each in found[:limit]], "more": more})
            return
        print_list(found[:limit], letters.now(), more=more)


def show(
    dead_letter: Annotated[
        int, typer.Argument(metavar="ID", parser=dead_letter_id, help="Its id, as `dead list` shows it.")
    ],
    full: Annotated[bool, typer.Option("--full", help="The payload whole, however large.")] = False,
    as_json: AsJson = False,
) -> None:
    """One in full: payload, headers, error, meaning, remedy, whether a replay is safe, and the SQL for it."""
    from outboxd.cli.dead.text import print_letter, whole_as_json
    from outboxd.postgres.operators.dead_letter_rows import Filters

    with dead_letters() as (letters, schema, outbox):
        whole = letters.show(dead_letter)
        if whole is None:
            raise UsageError(
                f"there is no dead letter {dead_letter} in outbox {outbox}; `outboxd dead list` shows them"
            )
        if as_json:
            print_json(whole_as_json(whole, schema))
            return
        alike = letters.summary(
            Filters(topic=whole.letter.topic, error_code=whole.letter.error_code, reason=whole.letter.reason)
        )
        print_letter(whole, alike[0] if alike else None, letters.now(), schema, full=full)


def export(
    *,
    topic: Topic = None,
    code: Code = None,
    key: Key = None,
    since: Since = None,
    reason: Reason = None,
    status: StatusName = "dead",
    limit: Annotated[int | None, typer.Option("--limit", min=1, max=ID_MAX, help="Rows at most.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of one document a line.")] = False,
) -> None:
    """Write whole dead letters to standard output, one JSON document a line, oldest first."""
    from itertools import islice

    from outboxd.cli.dead.text import letter_as_json

    filters = filters_from(topic=topic, code=code, key=key, since=since, reason=reason, status=status)
    with dead_letters() as (letters, _, _):
        opening = "["
        for whole in islice(letters.export(filters), limit):
            line = json_text(letter_as_json(whole))
            # The bracket with the first row, since before it the database may refuse.
            sys.stdout.write(opening + line if as_json else line + "\n")
            opening = ",\n"
        if as_json:
            sys.stdout.write("[]\n" if opening == "[" else "]\n")
