"""What a benchmark found, and what follows from it: what bounds the rate, and which option to turn. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Bound = Literal["broker", "daemon CPU", "machine CPU", "database settle", "database fetch", "round trips"]

NEAR_BARE: Final = 0.8
"""A drain that reaches so much of the bare loop is bounded by what that loop is bounded by."""
BUSY: Final = 0.85
"""So much of one core, or of all, is as good as all of it: measuring itself takes the rest."""
MOSTLY: Final = 0.7
"""A phase that takes so much of the time is what the others wait for."""
POLLING_SHARE: Final = 0.5
"""A median latency so near to `poll_interval_max` is that of the wait between two fetches."""


@dataclass(frozen=True, slots=True)
class Drain:
    """One measured drain, with the bare loop just before it. Not `is_whole`: the time was up before the rows were.

    The share of a phase is of the whole time; fetching and settling run beside each other and beside the loop.
    """

    name: str
    rows: int
    is_whole: bool
    seconds: float
    bare_rows_per_second: float
    daemon_cpu_seconds: float
    fetch_seconds: float
    settle_seconds: float
    machine_busy_share: float | None
    daemon_memory_bytes: int

    @property
    def rows_per_second(self) -> float:
        """The rate."""
        return self.rows / self.seconds

    @property
    def ratio(self) -> float:
        """To the bare loop."""
        return self.rows_per_second / self.bare_rows_per_second

    @property
    def daemon_cores(self) -> float:
        """How many cores the daemon kept busy."""
        return self.daemon_cpu_seconds / self.seconds


@dataclass(frozen=True, slots=True)
class Latency:
    """From just before INSERT and COMMIT to the consumer, in seconds."""

    rows: int
    rows_per_second: float
    wanted_rows_per_second: float
    p50_seconds: float
    p90_seconds: float
    p99_seconds: float
    max_seconds: float
    daemon_cores: float


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The least of these values that so many per cent of them do not exceed: of few values too it is one of them."""
    return ascending[max(0, -(-percent * len(ascending) // 100) - 1)]


@dataclass(frozen=True, slots=True)
class Tuning:
    """Of the relay's settings, those that the advice depends on."""

    batch_rows: int
    poll_interval_max_seconds: float
    listen: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What bounds a drain, why one thinks so, and what to do."""

    bound: Bound
    why: str
    advice: str


def judge(drain: Drain, tuning: Tuning) -> Verdict:
    """Say what bounds this drain. The nearest cause first: what is busy for the whole time keeps the rest waiting."""
    fetch, settle = drain.fetch_seconds / drain.seconds, drain.settle_seconds / drain.seconds
    busy = drain.machine_busy_share
    if drain.ratio >= NEAR_BARE:
        return Verdict(
            "broker",
            f"the bare loop, without any database, is hardly quicker ({drain.ratio:.0%} of it)",
            'more partitions, quicker disks or a nearer broker; in [kafka] "compression.type" and a larger '
            '"batch.size" where the network is the limit',
        )
    if busy is not None and busy >= BUSY:
        return Verdict(
            "machine CPU",
            f"all cores of this machine were busy ({busy:.0%}), {drain.daemon_cores:.2f} of them with the daemon",
            "give PostgreSQL and Kafka machines of their own, or this one more cores" + _delete_advice(drain),
        )
    if drain.daemon_cores >= BUSY:
        return Verdict(
            "daemon CPU",
            f"the daemon kept {drain.daemon_cores:.2f} cores busy, and one is what its loop can use",
            "a quicker core; a second outbox with a daemon of its own" + _delete_advice(drain),
        )
    if settle >= MOSTLY and settle >= fetch:
        return Verdict(
            "database settle",
            f"writing the outcomes took {settle:.0%} of the time",
            "PostgreSQL's disk and WAL are what to look at (pg_stat_wal, pg_stat_io)" + _delete_advice(drain),
        )
    if fetch >= MOSTLY:
        return Verdict(
            "database fetch",
            f"reading took {fetch:.0%} of the time",
            f"raise relay.batch_rows above {tuning.batch_rows:,} where the way to PostgreSQL is long; look at "
            "autovacuum of the outbox table where dead rows gather",
        )
    return Verdict(
        "round trips",
        f"nothing was busy all the time: reading took {fetch:.0%} of it, writing outcomes {settle:.0%}, the daemon "
        f"{drain.daemon_cores:.2f} cores; the rest is waiting for acknowledgements and for answers",
        f"raise relay.batch_rows (now {tuning.batch_rows:,}) and relay.max_in_flight_rows; look at the brokers' "
        "acknowledgement time (replicas, acks=all)",
    )


def _delete_advice(drain: Drain) -> str:
    if "mark" not in drain.name:
        return ""
    return '; relay.after_publish = "delete" writes about half as much'


def judge_latency(latency: Latency, tuning: Tuning) -> str:
    """Say in a sentence what the latency is made of, and what to turn."""
    p50 = latency.p50_seconds
    if latency.rows_per_second < 0.8 * latency.wanted_rows_per_second:
        return (
            f"the rows could not be written as fast as asked ({latency.rows_per_second:,.0f} a second instead of "
            f"{latency.wanted_rows_per_second:,.0f}): one INSERT and COMMIT takes "
            f"{1000 / latency.rows_per_second:.1f} ms here"
        )
    if not tuning.listen and p50 >= POLLING_SHARE * tuning.poll_interval_max_seconds:
        return (
            "rows waited for the next fetch: a smaller relay.poll_interval_max, or relay.listen = true, "
            "brings it down at the cost of some statements"
        )
    if latency.p99_seconds > 20 * p50:
        return (
            "most rows are quick and few are slow: look for checkpoints of PostgreSQL, pauses of the brokers, or a "
            "busy machine"
        )
    return "rows wait for PostgreSQL's commit and Kafka's acknowledgement, and for little else"
