"""What running programs have used so far, from /proc (proc(5)): the CPU by who used it, and the memory."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from benchmarks.database import Connection
from benchmarks.stand import Stand

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_DAEMON_THREADS = ("relay", "fetch", "settle", "transactions")
_CHILDREN_FIELD = 13
"""Where `stat`, after the name, has the time of children that ended and were waited for."""
_RESET_PEAK = "5"
"""What proc(5) wants in `clear_refs` to have the peak begin anew."""

Costs = Mapping[str, float]
"""Who, and its CPU seconds."""


def cpu_seconds(pid: int) -> float:
    """CPU time of the process and all its threads."""
    return _seconds(Path(f"/proc/{pid}/stat"))


def memory_peak_bytes(pid: int) -> int:
    """The largest resident size since the start, or since `forget_memory_peak`."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_memory_peak(pid: int) -> None:
    """Have the peak begin at the present size."""
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)


def costs(stand: Stand, connection: Connection, daemon_pid: int) -> Costs:
    """CPU seconds so far of the daemon's threads, of PostgreSQL's backends by what they do, and of the broker."""
    return {
        **_daemon(daemon_pid),
        **_postgres(stand.postgres.pid, connection),
        "broker": cpu_seconds(stand.kafka.pid(0)),
    }


def between(before: Costs, after: Costs, rows: int) -> dict[str, float]:
    """What was used between two looks, in microseconds a row."""
    return {who: round((spent - before.get(who, 0.0)) / rows * 1e6, 3) for who, spent in after.items()}


def _daemon(pid: int) -> Costs:
    found: defaultdict[str, float] = defaultdict(float)
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name, spent = (task / "comm").read_text().strip(), _seconds(task / "stat")
        except OSError:  # It ended meanwhile.
            continue
        who = "librdkafka" if name.startswith("rdk:") else name if name in _DAEMON_THREADS else "other threads"
        found[f"daemon: {who}"] += spent
    return found


def _postgres(postmaster: int, connection: Connection) -> Costs:
    """The daemon's backends are told by their last statements; autovacuum, the writers and the rest are "other".

    The stand's own backends are left out.
    """
    backends = connection.execute(
        "SELECT pid, query, usename = current_user FROM pg_stat_activity WHERE backend_type = 'client backend'"
    ).fetchall()
    parts = {int(str(pid)): None if is_ours else _part(str(query)) for pid, query, is_ours in backends}
    found: defaultdict[str, float] = defaultdict(float)
    for pid in map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()):
        part = parts.get(pid, "other")
        if part is None:
            continue
        try:
            found[f"PostgreSQL: {part}"] += cpu_seconds(pid)
        except OSError:  # It ended meanwhile; the postmaster has its time.
            continue
    ended = _fields(Path(f"/proc/{postmaster}/stat"))[_CHILDREN_FIELD : _CHILDREN_FIELD + 2]
    found["PostgreSQL: other"] += sum(map(int, ended)) / _TICKS_PER_SECOND
    return found


def _part(statement: str) -> str:
    if statement.startswith("WITH ours"):
        return "settle"
    return "fetch" if statement.startswith("SELECT 0::int AS arm") else "other"


def _seconds(stat: Path) -> float:
    fields = _fields(stat)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _fields(stat: Path) -> list[str]:
    return stat.read_text().rsplit(")", 1)[1].split()
