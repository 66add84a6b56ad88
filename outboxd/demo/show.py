"""The demo's story: told while it happens, summed up in a table, and checked against the broker."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from outboxd.daemon.signals import ending_as_an_interrupt
from outboxd.demo.findings import Place, problems
from outboxd.demo.reader import ReadLog, read_log
from outboxd.demo.stage import Progress, Stage
from outboxd.demo.writer import CUSTOMERS, ROWS, TOPICS, WrittenRow
from outboxd.errors import BugError
from outboxd.policy.blame.cause import plain

if TYPE_CHECKING:
    from rich.console import Console

INSPECT = "SELECT id, topic, key, error_code, error_message FROM outboxd.dead_letter_recent"
_CAUSE_CHARS_MAX = 110


def run(console: Console, *, keep: bool = False, read: ReadLog = read_log) -> None:
    """Run the demo from start to end.

    Args:
        console: where the story is told.
        keep: leave it running until Ctrl+C, with the addresses printed.
        read: how the broker is read back.

    Raises:
        UnavailableError: there is no PostgreSQL to run.
        BugError: a record was dropped, swapped, repeated or altered.
    """
    with ending_as_an_interrupt():
        console.print("starting an embedded PostgreSQL and an in-process Kafka broker …")
        with Stage() as stage:
            console.print(
                f"PostgreSQL {stage.server_version()} is up, Kafka is at {stage.bootstrap}, the daemon relays"
            )
            console.print(
                f"writing {ROWS:,} rows over {CUSTOMERS} keys and {len(TOPICS)} topics: one of them can never be "
                "delivered, and one is made to fail at first"
            )
            begun = time.monotonic()
            written = _play(stage, console)
            seconds = time.monotonic() - begun
            _sum_up(stage, console, written, seconds)
            check(stage, console, written, read)
            if keep:
                _stay(stage, console)
    console.print("everything is stopped and removed")


def _play(stage: Stage, console: Console) -> list[WrittenRow]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        counts: dict[str, Callable[[Progress], int]] = {
            "written": lambda progress: progress.written,
            "delivered": lambda progress: progress.delivered,
            "in retry": lambda progress: progress.in_retry,
            "dead": lambda progress: progress.dead,
        }
        tasks = {name: bars.add_task(name, total=ROWS) for name in counts}

        def watch(progress: Progress) -> None:
            for name, count in counts.items():
                bars.update(tasks[name], completed=count(progress))

        return stage.play(watch)


def _sum_up(stage: Stage, console: Console, written: Sequence[WrittenRow], seconds: float) -> None:
    from rich import box
    from rich.table import Table

    places = stage.places()
    table = Table("outcome", "where", "rows", "what happened", box=box.SIMPLE_HEAD, title=f"after {seconds:.1f} s")
    topics = {row.id: row.topic for row in written}
    for (topic, partition), offsets in sorted(_by_partition(topics, places).items()):
        where = f"{topic}-{partition}@{min(offsets)} to @{max(offsets)}"
        table.add_row("delivered", where, f"{len(offsets):,}", "acknowledged by the broker, then marked in the outbox")
    stumbling = stage.stumbling
    if stumbling.stumbled is not None and stumbling.stumbled_id in places:
        place, fault = places[stumbling.stumbled_id], stumbling.stumbled.fault
        where = f"row {stumbling.stumbled_id} → {topics[stumbling.stumbled_id]}-{place.partition}@{place.offset}"
        what = f"{fault.name}, let fail by the demo; its key waited, delivered at attempt {stumbling.attempts}"
        table.add_row("retried", where, "1", what)
    for letter in stage.dead_letters():
        where = f"row {letter.outbox_id} → dead letter {letter.id}"
        table.add_row("dead", where, "1", plain(letter.error_message, _CAUSE_CHARS_MAX))
    console.print(table)
    console.print("the dead letter in SQL:", INSPECT, markup=False)
    for letter in stage.dead_letters():
        row = (str(letter.id), letter.topic, str(letter.key), letter.error_code, plain(letter.error_message, 60))
        console.print("  " + " | ".join(row), markup=False)


def _by_partition(topics: Mapping[int, str], places: Mapping[int, Place]) -> dict[tuple[str, int], list[int]]:
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row_id, place in places.items():
        found[topics[row_id], place.partition].append(place.offset)
    return found


def check(stage: Stage, console: Console, written: Sequence[WrittenRow], read_back: ReadLog) -> None:
    """Read the broker back and hold it against what was written.

    Raises:
        BugError: a record was dropped, swapped, repeated or altered; says which.
    """
    read = read_back(stage.bootstrap, TOPICS)
    dead = stage.dead_letters()
    found = problems(written, read, {letter.outbox_id for letter in dead}, stage.places())
    if stage.stumbling.stumbled is None or stage.stumbling.attempts < 2:
        found.append("retried: 0 (the row that the demo lets fail did not go again)")
    if found:
        raise BugError("the broker was read back, and it is not as promised: " + "; ".join(found))
    console.print(
        f"checked by reading the broker back: {len(read):,} records and {len(dead)} dead letter make {len(written):,} "
        "rows; none dropped, repeated or altered, each key in its order, each at the offset that its row names"
    )


def _stay(stage: Stage, console: Console) -> None:
    # Being told to stop is how this ends well.
    with contextlib.suppress(KeyboardInterrupt):
        _print_addresses(stage, console)
        stage.wait_for_signal()


def _print_addresses(stage: Stage, console: Console) -> None:
    lines = (
        "", f"the page: http://{stage.page_address()}/ (token for changes: {stage.token})",
        "it goes on running; Ctrl+C stops it and removes everything. In another shell:",
        f"  export OUTBOXD_DATABASE__URL='{stage.database_url}'",
        f"  export OUTBOXD_KAFKA__BOOTSTRAP_SERVERS='{stage.bootstrap}' OUTBOXD_HTTP__LISTEN={stage.page_address()}",
        "  outboxd status; outboxd dead summary; outboxd dead show 1",
        "  outboxd send orders --key customer-01 --payload hello",
        f'  psql "$OUTBOXD_DATABASE__URL" -c "{INSPECT}"',
    )  # fmt: skip
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
