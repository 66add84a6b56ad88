"""`outboxd status`: how things stand, from the database, and from the daemon where it answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outboxd.cli.daemon_page import DaemonPage, troubles
from outboxd.cli.database import opened
from outboxd.cli.output import print_json, print_line

if TYPE_CHECKING:
    from outboxd.postgres.operators.overview import Overview

app = typer.Typer(add_completion=False)

LABEL_COLUMNS = 12
TOPICS_SHOWN_MAX = 10


@app.command()
def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Show the backlog, its age, retries, dead letters, held keys, who relays and what is paused."""
    with opened() as (settings, engine):
        from outboxd.postgres.operators.overview import look

        schema, outbox = settings.database.schema_, settings.outbox.name
        overview = look(engine, schema, settings.outbox.table, outbox)
    daemon = DaemonPage(settings.http.address).status()
    if daemon is not None and daemon["outbox"] != outbox:
        # Of two daemons on one machine one may have the address that both were given.
        daemon = None
    if as_json:
        print_json({"outbox": outbox, "schema": schema, **as_document(overview), "daemon": daemon})
        return
    _print(overview, outbox, daemon)


def as_document(overview: Overview) -> dict[str, Any]:
    """The overview for scripts. A count with `_is_lower_bound` true means "at least";
    `pending_estimate` is then about how many.
    """
    from outboxd.postgres.operators.overview import COUNTED_MAX

    counts: dict[str, Any] = {}
    for name in ("pending", "in_retry", "replaying", "held_keys"):
        count = getattr(overview, name)
        counts[name] = min(count, COUNTED_MAX)
        counts[f"{name}_is_lower_bound"] = count > COUNTED_MAX
    return {
        "now": overview.now,
        **counts,
        "pending_estimate": overview.pending_estimate,
        "oldest_pending_age_seconds": overview.oldest_pending_age_seconds,
        "next_retry_at": overview.next_retry_at,
        "dead": overview.dead,
        "dead_by_topic": dict(overview.dead_by_topic),
        "held": [asdict(held) for held in overview.held_keys_listed],
        "lease": None if overview.lease is None else asdict(overview.lease),
        "paused": [asdict(paused) for paused in overview.paused],
    }


def _print(overview: Overview, outbox: str, daemon: dict[str, Any] | None) -> None:
    from outboxd.cli.plain_text import ago, cell, moment_and_lapse, one_line

    def line(label: str, text: str) -> None:
        print_line(f"{label:<{LABEL_COLUMNS}} {text}")

    line("outbox", outbox)
    lease = overview.lease
    if lease is None:
        line("relayed by", "no daemon yet: `outboxd run`")
    elif lease.alive:
        line("relayed by", f"{cell(lease.daemon)} since {moment_and_lapse(lease.acquired_at, overview.now)}")
    else:
        line("relayed by", f"nobody: the lease of {cell(lease.daemon)} ended {ago(lease.expires_at, overview.now)}")
    for label, told in _said(daemon):
        line(label, told)
    line("pending", _pending(overview) + _since_when(overview))
    due = "" if overview.next_retry_at is None else f", next {moment_and_lapse(overview.next_retry_at, overview.now)}"
    line("in retry", _at_most(overview.in_retry) + due)
    by_topic = sorted(overview.dead_by_topic.items(), key=lambda item: (-item[1], item[0]))
    line("dead", f"{overview.dead:,}" + "".join(f", {cell(topic)}: {count:,}" for topic, count in by_topic[:10]))
    if overview.replaying:
        line("replaying", _at_most(overview.replaying))
    line("held keys", _at_most(overview.held_keys))
    for held in overview.held_keys_listed[:10]:
        line("", f"{cell(held.topic)} {cell(held.key)}: {held.why} {held.error_code}, {ago(held.since, overview.now)}")
    for paused in overview.paused:
        why = "" if paused.note is None else f": {one_line(paused.note)}"
        line(
            "paused", f"{one_line(paused.topic_pattern)} by {cell(paused.who)}, {ago(paused.since, overview.now)}{why}"
        )
    if not overview.paused:
        line("paused", "nothing")


def _said(daemon: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What the daemon says of itself, line by line: its state, what does not answer it, and what is on hold."""
    from outboxd.cli.plain_text import one_line

    if daemon is None or not isinstance(daemon.get("state"), str):
        return []
    said = [("it says", one_line(daemon["state"]))]
    try:
        holds = [("" if place else "on hold", told) for place, told in enumerate(on_hold(daemon))]
        return [*said, *(("trouble", one_line(told)) for told in troubles(daemon)), *holds]
    except (AttributeError, KeyError, TypeError, ValueError):
        # Of another version; or while the daemon is down, whoever on this machine has taken its port.
        return [*said, ("", "the rest of what it says cannot be read: its page is of another form than this version's")]


def _pending(overview: Overview) -> str:
    from outboxd.cli.plain_text import about
    from outboxd.postgres.operators.overview import COUNTED_MAX

    return f"{overview.pending:,}" if overview.pending <= COUNTED_MAX else about(overview.pending_estimate)


def _since_when(overview: Overview) -> str:
    from outboxd.cli.plain_text import lapse
    from outboxd.postgres.operators.overview import COUNTED_MAX

    if not overview.pending:
        return ""
    if overview.oldest_pending_at is not None:
        return f", the oldest for {lapse(overview.oldest_pending_age_seconds)}"
    return ", none due yet" if overview.pending <= COUNTED_MAX else f", none of the first {COUNTED_MAX:,} due yet"


def on_hold(daemon: dict[str, Any] | None) -> list[str]:
    """Each topic on hold, for how long and why, as the daemon's page tells it; what is paused has lines of its own."""
    from outboxd.cli.plain_text import cell, lapse, one_line

    relay = (daemon or {}).get("relay") or {}
    breakers = {breaker["topic"]: breaker for breaker in relay.get("breakers", ())}
    lines = []
    for held in relay.get("held_topics", ()):
        breaker = breakers.get(held["topic"])
        if breaker is not None:
            next_probe = breaker["next_probe_in_seconds"]
            probe = "a probe is under way" if next_probe is None else f"next probe in {lapse(next_probe)}"
            lines.append(
                f"{cell(held['topic'])}: {one_line(breaker['cause'] or breaker['error_code'])} "
                f"(for {lapse(breaker['open_seconds'])}; {probe})"
            )
        elif "storm" in held["reasons"]:
            lines.append(
                f"{cell(held['topic'])}: many keys in a row failed for good; `outboxd resume` once it is mended"
            )
    return lines[:TOPICS_SHOWN_MAX]


def _at_most(count: int) -> str:
    from outboxd.postgres.operators.overview import COUNTED_MAX

    return f"{count:,}" if count <= COUNTED_MAX else f"more than {COUNTED_MAX:,}"
