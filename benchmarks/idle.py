"""The idle daemon: what it costs while nobody writes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from benchmarks.database import empty, statements
from benchmarks.drain import warm
from benchmarks.stand import Section, Stand
from benchmarks.usage import cpu_seconds, memory_peak_bytes

CALM_SECONDS = 5.0
"""Until it has asked for all that it asks for at its start, and polls at its longest interval."""


@dataclass(frozen=True)
class Idle:
    """One measured run: `daemon_cores` is the share of one core."""

    name: str
    seconds: float
    daemon_cores: float
    statements_per_second: float
    daemon_memory_mib: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.daemon_cores:.2%} of a core, {self.statements_per_second:.2f} statements/s,"
            f" {self.daemon_memory_mib:.0f} MiB, over {self.seconds:.0f} s"
        )


def idle(stand: Stand, name: str, relay: Section, *, seconds: float) -> Idle:
    """Have a daemon relay some rows, then leave it alone and look what it uses."""
    with stand.topic("idle") as topic, stand.connect() as connection:
        empty(connection)
        with stand.owner(relay, name=topic) as daemon:
            warm(connection, topic)
            time.sleep(CALM_SECONDS)
            calls_before, cpu_before, began = statements(connection), cpu_seconds(daemon.pid), time.perf_counter()
            time.sleep(seconds)
            cpu, took = cpu_seconds(daemon.pid) - cpu_before, time.perf_counter() - began
            calls, memory = statements(connection) - calls_before, memory_peak_bytes(daemon.pid)
    return Idle(name, took, cpu / took, calls / took, memory / 2**20)
