"""`outboxd bench`: how fast it goes on one's own database and broker, and what bounds it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outboxd.cli.context import load_settings
from outboxd.cli.output import console, print_json, print_line, stderr_console
from outboxd.errors import UsageError

if TYPE_CHECKING:
    from outboxd.bench.run import Report, Watch
    from outboxd.config import Settings

app = typer.Typer(add_completion=False)

ROWS = 100_000
SECONDS = 15.0
LATENCY_ROWS_PER_SECOND = 200.0


@app.command()
def bench(
    *,
    rows: Annotated[
        int, typer.Option("--rows", min=1_000, max=10_000_000, help="Rows of each drain, 512 bytes each.")
    ] = ROWS,
    seconds: Annotated[
        float, typer.Option("--seconds", min=2.0, max=600.0, help="The longest that each part of a measurement takes.")
    ] = SECONDS,
    rate: Annotated[
        float, typer.Option("--rate", min=1.0, max=10_000.0, help="Rows a second while the latency is measured.")
    ] = LATENCY_ROWS_PER_SECOND,
    exactly_once: Annotated[bool, typer.Option("--exactly-once", help="Measure exactly-once delivery too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document; needs --yes.")] = False,
) -> None:
    """Measure drains and latency on the configured database and broker, and say what bounds them.

    Works on a schema and topics of its own, named outboxd_bench_… and outboxd-bench-…, which are removed at the end,
    also after Ctrl+C. Both servers are busy meanwhile: it asks before it runs.
    """
    from outboxd.bench.measuring import Bounds
    from outboxd.bench.run import run
    from outboxd.kafka.client.client_config import check_client

    settings = load_settings(needs_brokers=True)
    check_client(settings.kafka.properties)
    if as_json and not yes:
        raise UsageError("--json needs --yes: there is nobody to ask")
    if not yes:
        _ask(settings, rows, seconds, exactly_once=exactly_once)
    errors = stderr_console()
    bounds = Bounds(rows, seconds, rate)
    with _Bars(exactly_once=exactly_once) as watch:
        report = run(
            settings, bounds, exactly_once=exactly_once, watch=watch,
            remark=lambda text: errors.print(text, markup=False, soft_wrap=True),
        )  # fmt: skip
    if as_json:
        print_json(as_document(report))
        return
    print_report(report, bounds.rows)


def _ask(settings: Settings, rows: int, seconds: float, *, exactly_once: bool) -> None:
    import sys
    from urllib.parse import urlsplit

    from outboxd.bench.run import LONGEST_PARTS, names

    if not sys.stdin.isatty():
        raise UsageError("the benchmark keeps both servers busy and asks before it runs: give --yes")
    parts = urlsplit(settings.database.url)
    where = f"{parts.hostname or 'the local PostgreSQL'}{parts.path}"
    minutes = len(names(exactly_once=exactly_once)) * LONGEST_PARTS * seconds / 60
    print_line(f"This writes {rows:,} rows of 512 bytes a drain to the database {where} and to Kafka at")
    print_line(f"{settings.kafka.bootstrap_servers}, on a schema and topics of its own that it removes afterwards.")
    print_line(f"Both servers are busy meanwhile, for at most about {minutes:.0f} minutes.")
    typer.confirm("Go on?", abort=True)


class _Bars:
    """A bar for each measurement, on a terminal's standard error; a line for each elsewhere would only be noise."""

    def __init__(self, *, exactly_once: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        from outboxd.bench.run import names

        screen = stderr_console()
        columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
        self._bars = Progress(
            *columns, TimeElapsedColumn(), console=screen, transient=True, disable=not screen.is_terminal
        )
        self._tasks = {
            name: self._bars.add_task(name, total=1.0, start=False) for name in names(exactly_once=exactly_once)
        }
        self._started: set[str] = set()

    def __enter__(self) -> Watch:
        self._bars.start()
        return self._watch

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def _watch(self, name: str, part: float) -> None:
        if name not in self._started:
            self._started.add(name)
            self._bars.start_task(self._tasks[name])
        self._bars.update(self._tasks[name], completed=part)


def as_document(report: Report) -> dict[str, Any]:
    """The report for scripts; times in seconds."""
    return {
        "drains": [
            {
                **asdict(drain),
                "rows_per_second": drain.rows_per_second,
                "ratio": drain.ratio,
                "daemon_cores": drain.daemon_cores,
                "verdict": asdict(verdict),
            }
            for drain, verdict in zip(report.drains, report.verdicts, strict=True)
        ],
        "latency": {**asdict(report.latency), "verdict": report.latency_verdict},
    }


def print_report(report: Report, rows: int) -> None:
    """Print it for people; `rows` is how many a drain was asked to have."""
    from rich import box
    from rich.table import Table

    screen = console()

    def say(text: str) -> None:
        screen.print(text, markup=False)

    table = Table("measured", "rows/s", "bare loop", "ratio", "daemon", "memory", "bound by", box=box.SIMPLE_HEAD)
    for column in table.columns[1:6]:
        column.justify = "right"
    for drain, verdict in zip(report.drains, report.verdicts, strict=True):
        table.add_row(
            drain.name,
            f"{drain.rows_per_second:,.0f}",
            f"{drain.bare_rows_per_second:,.0f}",
            f"{drain.ratio:.2f}",
            f"{drain.daemon_cores:.2f} cores",
            f"{drain.daemon_memory_bytes / 2**20:.0f} MiB",
            verdict.bound,
        )
    screen.print(table)
    latency = report.latency
    say(
        f"latency at {latency.rows_per_second:,.0f} rows/s, commit to consumer: p50 {_ms(latency.p50_seconds)}, "
        f"p90 {_ms(latency.p90_seconds)}, p99 {_ms(latency.p99_seconds)}, max {_ms(latency.max_seconds)}; "
        f"the daemon took {latency.daemon_cores:.0%} of a core"
    )
    say(f"  {report.latency_verdict}")
    for drain, verdict in zip(report.drains, report.verdicts, strict=True):
        say(f"{drain.name}: bound by {verdict.bound}: {verdict.why}")
        say(f"  {verdict.advice}")
        if not drain.is_whole:
            say(f"  the time was up after {drain.rows:,} of {rows:,} rows; give more --seconds or fewer --rows")
    if all(drain.is_whole for drain in report.drains):
        say("every row was read back: each once, in the order of its key")
    say("the scratch schema and topics are removed")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
