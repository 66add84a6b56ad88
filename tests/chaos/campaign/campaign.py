"""One campaign from its servers' start to its verdict."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from outboxd.postgres.migrate import upgrade
from tests.chaos.campaign import summary
from tests.chaos.campaign.checker import Stream, Verdict
from tests.chaos.campaign.daemons import Pair
from tests.chaos.campaign.faults import MENU
from tests.chaos.campaign.faults.kind import Kind
from tests.chaos.campaign.load import KEYS_A_WRITER, Load
from tests.chaos.campaign.log import CampaignLog, Drain
from tests.chaos.campaign.schedule import Schedule
from tests.chaos.campaign.servers import Brokers, Postgres
from tests.chaos.campaign.stage import COMPACTED, LIMITED, PLAIN, STRICT, TOPIC_LIMIT_BYTES, WIDE, Stage
from tests.chaos.campaign.witness import WITNESS
from tests.support.daemon import ROOT, Section

CALM_EVERY_SECONDS = 600.0
PROGRESS_SECONDS = 10.0
DRAIN_SECONDS_MAX = 180.0
FINISHING_SECONDS_MAX = 600.0
OLD_SECONDS = 5.0
"""While the load goes on, a backlog is gone when no row older than this is pending."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign is told."""

    minutes: float
    seed: int
    rows: int
    delivery: str
    every_seconds: float
    directory: Path
    menu: Sequence[Kind] = MENU
    with_standby: bool = True
    keys: int = KEYS_A_WRITER


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    verdict: Verdict
    log: CampaignLog
    failures: list[str]
    text: str


def run(plan: Plan, ending: threading.Event | None = None) -> Result:
    """Run it all; servers and daemons are gone afterwards, the log stays. `ending` ends it early, with its verdict."""
    ending = ending or threading.Event()
    log = CampaignLog(plan.directory)
    with contextlib.closing(log), _stage(plan, log) as stage:
        schedule = Schedule(stage, log, plan.menu, seed=plan.seed, every_seconds=plan.every_seconds)
        watch = threading.Thread(target=_tell, args=(stage, log, schedule, plan), daemon=True)
        stage.load.start()
        watch.start()
        until = time.monotonic() + 60 * plan.minutes
        while time.monotonic() < until and not ending.is_set():
            schedule.run(min(until, time.monotonic() + CALM_EVERY_SECONDS), ending.is_set)
            if time.monotonic() < until - 60 and not ending.is_set():
                _drain(stage, log, schedule.calm(), with_load=True)
        log.say("no more faults; the writers finish")
        schedule.calm()
        deadline = time.monotonic() + FINISHING_SECONDS_MAX
        while not (stage.load.is_done or ending.is_set()) and time.monotonic() < deadline:
            time.sleep(0.2)
        stage.load.stop()
        _drain(stage, log, time.time(), with_load=False)
        return _judge(stage, log, plan)


@contextlib.contextmanager
def _stage(plan: Plan, log: CampaignLog) -> Iterator[Stage]:
    home = Path(tempfile.mkdtemp(prefix="outboxd-campaign-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        postgres = Postgres()
        stack.callback(postgres.close)
        postgres.start()
        upgrade(postgres.primary.url("campaign"), "outboxd")
        with postgres.connect() as connection:
            connection.execute(WITNESS)
        if plan.with_standby:
            postgres.attach_standby()
        brokers = Brokers()
        stack.callback(brokers.stop)
        brokers.begin()
        for topic, partitions, config in _topics():
            brokers.create_topic(topic, partitions=partitions, replication=3, config=config)
        stream = Stream(brokers.internal_bootstrap, committed_only=plan.delivery == "exactly-once")
        stack.callback(stream.close)
        stream.start()
        pair = Pair(home, log.directory, _sections(plan, postgres, brokers))
        stack.callback(pair.close)
        pair.start()
        load = Load(
            postgres,
            [*PLAIN, STRICT, LIMITED, WIDE],
            COMPACTED,
            rows=plan.rows,
            seconds=58 * plan.minutes,
            keys=plan.keys,
        )
        stage = Stage(postgres, brokers, pair, stream, load, plan.delivery)
        stack.callback(load.stop)
        stack.callback(stage.stopping.set)
        stage.until(lambda: all(daemon.is_ready for daemon in pair.daemons), 60, "both daemons are ready")
        log.began_at = time.time()
        log.say(f"servers and daemons are up; seed {plan.seed}, {plan.delivery}")
        yield stage


def _topics() -> list[tuple[str, int, dict[str, str]]]:
    return [
        *((topic, 6, {}) for topic in PLAIN),
        (STRICT, 3, {}),
        (LIMITED, 3, {"max.message.bytes": str(TOPIC_LIMIT_BYTES)}),
        (WIDE, 3, {}),
        (COMPACTED, 3, {"cleanup.policy": "compact"}),
    ]


def _sections(plan: Plan, postgres: Postgres, brokers: Brokers) -> dict[str, Section]:
    return {
        "database": {"url": postgres.proxied_url},
        "kafka": {
            "bootstrap.servers": brokers.bootstrap,
            "linger.ms": "5",
            # Below the smallest limit of the topics, as `outboxd check` asks for: else whole batches are refused.
            "batch.size": str(TOPIC_LIMIT_BYTES),
            # Shorter than the client's minute: what is swallowed is noticed within the fault.
            "socket.timeout.ms": "3000",
            "topic.metadata.propagation.max.ms": "2000",
            "topic.metadata.refresh.interval.ms": "2000",
        },
        "relay": {
            "delivery": plan.delivery,
            "batch_rows": 500,
            "max_in_flight_rows": 2_000,
            "poll_interval_max": "50ms",
            "sweep_interval": "2s",
            "shutdown_timeout": "10s",
        },
        "retry": {"backoff_max": "5s"},
        "cluster": {"lease_ttl": "2s"},
        "housekeeping": {"published_retention": "60s"},
    }


# --- On the way


def _drain(stage: Stage, log: CampaignLog, healed_at: float, *, with_load: bool) -> None:
    """Measure how long the backlog takes to be gone."""
    condition = "published_at IS NULL AND (available_at IS NULL OR available_at < now())"
    if with_load:
        condition += f" AND created_at < now() - interval '{OLD_SECONDS} s'"
    query = f"SELECT count(*) FROM outboxd.outbox WHERE {condition}"
    backlog = waiting = _ask(stage, query)
    while waiting and time.time() - healed_at < DRAIN_SECONDS_MAX:
        time.sleep(0.1)
        waiting = _ask(stage, query)
    took = time.time() - healed_at
    log.drains.append(Drain(healed_at - log.began_at, backlog, took))
    left = f"{waiting:,} still there" if waiting else "gone"
    log.say(f"healed; {backlog:,} rows were waiting, {left} after {took:.1f} s")


def _ask(stage: Stage, query: str) -> int:
    with stage.postgres.patient() as connection:
        row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def _tell(stage: Stage, log: CampaignLog, schedule: Schedule, plan: Plan) -> None:
    while not stage.stopping.wait(PROGRESS_SECONDS):
        stream, load = stage.stream, stage.load
        bad = len(stream.inverted) + len(stream.changed) + len(stream.broken) + len(stage.pair.unexpected)
        log.say(
            f"{load.committed:,} of {plan.rows:,} rows written, {stream.rows:,} seen, {stream.duplicates:,} duplicates,"
            f" {len(log.observed)} of {len(log.lines)} faults of {len(log.kinds)} kinds,"
            f" {stage.pair.usage.rss_mib:.0f} MiB"
            + (f", {bad} VIOLATIONS" if bad else "")
            + f" | {' '.join(schedule.running)}"
        )


# --- The end


def _judge(stage: Stage, log: CampaignLog, plan: Plan) -> Result:
    _wait_for_consumer(stage)
    codes = stage.pair.stop_in_order()
    if any(codes):
        stage.pair.unexpected.append(f"the last orderly ends had the exit codes {codes}")
    stage.stopping.set()
    log.say("holding everything against what was committed")
    with stage.postgres.connect(statement_seconds=600) as connection:
        verdict = stage.stream.verdict(connection, stage.edited)
    asked = summary.Asked(plan.seed, plan.minutes, plan.rows, plan.delivery, _revision(), time.time() - log.began_at)
    text = summary.write(log, verdict, stage.stream, stage.pair, asked)
    (plan.directory / "summary.md").write_text(text)
    wrong = summary.failures(log, verdict, stage.stream, stage.pair, asked)
    log.say("; ".join(wrong) if wrong else "nothing was violated")
    return Result(verdict, log, wrong, text)


def _wait_for_consumer(stage: Stage, quiet_seconds: float = 3.0) -> None:
    """Wait until the consumer has had nothing new for a while."""
    records, since = -1, time.monotonic()
    while time.monotonic() - since < quiet_seconds:
        time.sleep(0.2)
        if stage.stream.records != records:
            records, since = stage.stream.records, time.monotonic()


def _revision() -> str:
    """The commit that is tried; a copy of the tree without git has its own in the environment."""
    if named := os.environ.get("OUTBOXD_REVISION"):
        return named
    try:
        answer = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()
