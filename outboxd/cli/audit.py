"""`outboxd audit`: is what was published still in the log?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from outboxd.cli.output import print_json, print_line, stderr_console
from outboxd.errors import EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from outboxd.config import Settings
    from outboxd.policy.exchange.auditing import LostRow, Tally
    from outboxd.postgres.operators.published import PublishedRows

app = typer.Typer(add_completion=False)

ROWS_SHOWN = 20


@app.command()
def audit(
    *,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help='Only published since: "1h", "7d", or 2026-01-31T12:00Z.'),
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", help="Only of this topic.")] = None,
    again: Annotated[
        bool, typer.Option("--republish", help="Send lost rows again, in id order; their marks stay as they are.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --republish: also where the log has newer records of the key.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> int:
    """Hold each published row against the record at its partition and offset; name the rows that are lost.

    An acknowledged record is lost when an out-of-date replica is elected as leader. Rows beyond the topic's retention
    are told apart; rows published without waiting (confirm = "none") cannot be judged.

    Exits 0 when nothing is lost (any more); 69 when rows are lost; with --republish 64 when rows were left because the
    log has newer records of their keys.
    """
    from outboxd.cli.database import opened
    from outboxd.cli.dead.filters import parse_since
    from outboxd.kafka.client.client_config import check_client
    from outboxd.kafka.cluster.log_reader import LogReader
    from outboxd.kafka.cluster.topic_limits import is_compacted
    from outboxd.maintenance.audit import audit as hold_against
    from outboxd.postgres.operators.published import PublishedRows

    if force and not again:
        raise UsageError("--force belongs to --republish")
    with opened() as (settings, engine):
        if settings.relay.after_publish == "delete":
            raise UsageError('nothing can be audited: with relay.after_publish = "delete" published rows are not kept')
        rows = PublishedRows(engine, settings.database.schema_, settings.outbox.table)
        properties = settings.kafka.properties
        settings.kafka.bootstrap_servers  # noqa: B018 - refuses to go on without brokers
        check_client(properties)
        reader = LogReader(properties, settings.outbox.name)
        try:
            low, high = rows.span()
            with _progress("reading", high - low + 1) as advance:
                tally = hold_against(
                    rows,
                    reader,
                    cache(lambda name: is_compacted(properties, name)),
                    topic=topic,
                    since=None if since is None else parse_since(since),
                    on_progress=lambda last_id: advance(last_id - low + 1),
                )
        finally:
            reader.close()
        left = [each for each in tally.lost if each.newer_id is not None and not force]
        going = [each.row.id for each in tally.lost if each.newer_id is None or force] if again else []
        sent = _send_again(settings, rows, going) if going else 0
    code = _exit_code(tally, left, sent, again=again)
    _tell(tally, left, sent, again=again, as_json=as_json)
    return code


def _exit_code(tally: Tally, left: Sequence[LostRow], sent: int, *, again: bool) -> int:
    if len(tally.lost) == sent:
        return EXIT_UNAVAILABLE if tally.unreadable else EXIT_OK
    return EXIT_USAGE if again and len(tally.lost) == sent + len(left) else EXIT_UNAVAILABLE


def _send_again(settings: Settings, rows: PublishedRows, record_ids: Sequence[int]) -> int:
    from outboxd.kafka.plain.publisher import KafkaPublisher
    from outboxd.maintenance.audit import republish

    publisher = KafkaPublisher(
        settings.kafka.properties,
        source=settings.outbox.name,
        in_flight_rows_max=settings.relay.max_in_flight_rows,
        in_flight_bytes_max=settings.relay.max_in_flight_bytes,
    )
    try:
        with _progress("sending", len(record_ids)) as advance:
            own = publisher.inbox.record_type
            records = (own(*record) for record in rows.records(record_ids))
            return republish(records, publisher, time.monotonic, advance)
    finally:
        publisher.close()


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal; silence elsewhere."""
    console = stderr_console()
    if not console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _tell(tally: Tally, left: Sequence[LostRow], sent: int, *, again: bool, as_json: bool) -> None:
    from outboxd.cli.plain_text import cell

    if as_json:
        print_json(
            {
                "checked": tally.checked,
                "fine": tally.fine,
                "elsewhere": tally.elsewhere,
                "beyond_retention": tally.beyond_retention,
                "unreadable": tally.unreadable,
                "unconfirmed": tally.unconfirmed,
                "lost": len(tally.lost),
                "lost_rows": [_as_json(each) for each in tally.lost],
                "republished": sent,
                "refused": len(left) if again else 0,
            }
        )
        return
    print_line(f"{tally.checked:,} published rows held against the log: {tally.fine:,} are at their place")
    for count, what in (
        (tally.elsewhere, "are in their topic at another place: they were sent more than once"),
        (tally.beyond_retention, "are beyond their topic's retention, or compacted away"),
        (
            tally.unreadable,
            "cannot be told yet: a transaction, whoever's, is open in their partition; audit again then",
        ),
        (tally.unconfirmed, 'more have no place, published with confirm = "none"'),
        (len(tally.lost), "are lost: the log does not hold them any more"),
    ):
        if count:
            print_line(f"{count:,} {what}")
    _tell_lost(tally.lost)
    if again and tally.lost:
        print_line(f"{sent:,} sent again, in id order")
    if left:
        keys = sorted({(each.row.topic, each.row.key is not None, each.row.key or "") for each in left})
        shown = ", ".join(
            f"{cell(topic)}/{cell(key if has_key else None)}" for topic, has_key, key in keys[:ROWS_SHOWN]
        )
        more = f" and {len(keys) - ROWS_SHOWN:,} more" if len(keys) > ROWS_SHOWN else ""
        what = "were left" if again else "would be left by --republish"
        print_line(
            f"{len(left):,} lost rows {what}, since the log has newer records of their keys; consumers would see the "
            f"older row after the newer one, which --force accepts. Keys: {shown}{more}"
        )


def _tell_lost(lost: Sequence[LostRow]) -> None:
    from outboxd.cli.plain_text import cell

    for each in lost[:ROWS_SHOWN]:
        row = each.row
        newer = "" if each.newer_id is None else f"; row {each.newer_id} of its key is in the log"
        place = f"{cell(row.topic)}-{row.partition}@{row.offset}"
        print_line(f"  row {row.id}, key {cell(row.key)}: {place}: {each.place.value}{newer}")
    if len(lost) > ROWS_SHOWN:
        print_line(f"  and {len(lost) - ROWS_SHOWN:,} more; --json names all")


def _as_json(each: LostRow) -> dict[str, object]:
    row = each.row
    return {
        "id": row.id,
        "event_id": row.event_id,
        "topic": row.topic,
        "key": row.key,
        "partition": row.partition,
        "offset": row.offset,
        "found": each.place.value,
        "newer_id": each.newer_id,
    }
