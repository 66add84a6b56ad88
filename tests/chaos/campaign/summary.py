"""The summary of a campaign as Markdown: what was asked, what happened, what was found."""

from __future__ import annotations

import collections
import json
from dataclasses import dataclass

from tests.chaos.campaign.checker import Stream, Verdict, shown
from tests.chaos.campaign.daemons import Pair
from tests.chaos.campaign.log import CampaignLog, spread

KILLS = ("kill-owner",)
FREEZES = ("freeze-owner-past-its-lease",)
STOPS = ("stop-owner", "stop-owner-twice", "interrupt-owner", "rolling-upgrade")
DRAIN_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the campaign was told."""

    seed: int
    minutes: float
    rows: int
    delivery: str
    revision: str
    seconds: float


def failures(log: CampaignLog, verdict: Verdict, stream: Stream, pair: Pair, asked: Asked) -> list[str]:
    """Everything that does not hold, in words; empty is what is wanted."""
    wrong = [f"{count} rows {name}" for name, count in verdict.violations.items()]
    wrong += pair.unexpected
    wrong += [f"the consumer was told: {line}" for line in stream.broken[:5]]
    wrong += [
        f"drained only after {drain.drained_after_seconds:.0f} s"
        for drain in log.drains
        if drain.drained_after_seconds > DRAIN_SECONDS_MAX
    ]
    if asked.delivery == "exactly-once" and verdict.duplicates:
        wrong.append(f"{verdict.duplicates} duplicates for a consumer of committed records")
    return wrong


def write(log: CampaignLog, verdict: Verdict, stream: Stream, pair: Pair, asked: Asked) -> str:
    """The text of the summary."""
    wrong = failures(log, verdict, stream, pair, asked)
    lines = [
        f"# Campaign: {asked.delivery}, seed {asked.seed}",
        "",
        f"Revision {asked.revision}. Faults for {asked.minutes:g} minutes, in all {asked.seconds / 60:.1f} minutes.",
        "",
        "**Nothing was violated.**" if not wrong else "**Violated:** " + "; ".join(wrong),
        "",
        "| | |",
        "|---|---|",
        f"| rows committed | {verdict.written:,} |",
        f"| rows seen by the consumer | {verdict.delivered:,} |",
        f"| records read | {verdict.records:,} |",
        f"| lost | {len(verdict.lost)} |",
        f"| ghosts (records of rows that were rolled back) | {len(verdict.ghosts)} |",
        f"| out of key order | {len(verdict.inverted)} |",
        f"| changed (payload, key, headers, event id, partition) | {len(verdict.changed)} |",
        f"| dead letters | {verdict.dead} |",
        f"| dead letters that were no poison | {len(verdict.wrongly_dead)} |",
        f"| poison that was delivered as it was | {len(verdict.poison_alive)} |",
        f"| rows of unlocked keys that were committed, and sent, after a newer one | {verdict.late_in_order:,} |",
        f"| duplicates | {verdict.duplicates:,} |",
        f"| faults with an observed effect | {len(log.observed)} of {len(log.lines)} |",
        f"| kinds of them | {len(log.kinds)} |",
        f"| faults that overlapped another | {sum(bool(line.overlapped) for line in log.observed)} |",
        "",
        "## Takeovers, in seconds",
        "",
        "The lease's ttl is 2 s. *Hindered*: PostgreSQL, the way to it, or the standby was another fault's victim at",
        "that moment (for orderly ends the brokers too, since the owner drains).",
        "",
        "| after | median | 99 % | longest | count |",
        "|---|---|---|---|---|",
    ]
    for name, kinds in (("kill -9", KILLS), ("a freeze", FREEZES), ("SIGTERM, SIGINT", STOPS)):
        lines.append(f"| {name} | {spread(log.takeovers(*kinds))} |")
        lines.append(f"| {name}, hindered | {spread(log.takeovers(*kinds, hindered=True))} |")
    lines.append(f"| the end of the drain after SIGTERM, SIGINT | {spread(log.takeovers(*STOPS, from_end=True))} |")
    lines += [
        "",
        "## Drained after everything was healed",
        "",
        "| at, s | rows waiting then | drained after, s |",
        "|---|---|---|",
    ]
    lines += [
        f"| {drain.at_seconds:.0f} | {drain.backlog_rows:,} | {drain.drained_after_seconds:.1f} |"
        for drain in log.drains
    ]
    lines += [
        "",
        "## Duplicates",
        "",
        "Blamed on the last fault before them that ended an owner, a session or a server.",
        "",
    ]
    lines += ["| after | how often | duplicates | most after one |", "|---|---|---|---|"]
    lines += [f"| {kind} | {times} | {total:,} | {most:,} |" for kind, times, total, most in _duplicates(stream)]
    lines += [
        "",
        "## The daemons",
        "",
        _usage(pair),
        "",
        f"Events logged: {json.dumps(dict(sorted(pair.counts.items())))[1:-1]}.",
        "",
        "## Faults by kind",
        "",
        "| kind | observed | not observed | the last one's effect |",
        "|---|---|---|---|",
    ]
    lines += [f"| {kind} | {seen} | {unseen} | `{sample}` |" for kind, seen, unseen, sample in log.by_kind()]
    if wrong:
        lines += ["", "## Violations, the first of each", ""]
        lines += [f"- {name}: {shown(getattr(verdict, name))}" for name in verdict.violations]
    return "\n".join(lines) + "\n"


def _duplicates(stream: Stream) -> list[tuple[str, int, int, int]]:
    total: collections.Counter[str] = collections.Counter()
    most: collections.Counter[str] = collections.Counter()
    for (kind, _), count in stream.duplicates_after.items():
        total[kind] += count
        most[kind] = max(most[kind], count)
    kinds = sorted({*stream.occasions, *total})
    return [(kind, stream.occasions[kind], total[kind], most[kind]) for kind in kinds]


def _usage(pair: Pair) -> str:
    usage = pair.usage
    codes = ", ".join(f"{code}: {times}" for code, times in sorted(pair.codes.items()))
    return (
        f"Most that one ever took: {usage.rss_mib:.0f} MiB resident, {usage.descriptors} descriptors, {usage.threads}"
        f" threads; the longest life was {usage.oldest_seconds:.0f} s. Starts:"
        f" {sum(daemon.starts for daemon in pair.daemons)}. Exit codes: {codes}."
    )
