"""What the figures of a run depend on: the machine, its load, and the versions of all that takes part."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import confluent_kafka

import outboxd
from benchmarks.stand import Stand
from tests.support.kafka_jars import kafka_jars


def machine_facts(stand: Stand) -> dict[str, object]:
    """The facts, with the load average at this moment: other work beside a run shows there."""
    with stand.connect() as connection:
        (postgres,) = connection.execute("SHOW server_version").fetchone() or ("",)
    jars = kafka_jars().glob("kafka-clients-*.jar")
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "cores": os.cpu_count(),
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgresql": str(postgres),
        "kafka": next((jar.stem.removeprefix("kafka-clients-") for jar in jars), "unknown"),
        "librdkafka": confluent_kafka.libversion()[0],
        "outboxd": outboxd.__version__,
    }


def _field(path: str, name: str) -> str:
    lines = (line.partition(":") for line in Path(path).read_text().splitlines())
    return next((value.strip() for found, _, value in lines if found.strip() == name), "")
