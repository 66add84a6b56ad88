"""The writer of the latency benchmark: rows at a steady pace, one a transaction, from a process of its own.

    python -m benchmarks.writing URL --topic TOPIC --rate 1000 --rows 20000 --connections 2

Each row begins with the moment just before its INSERT. The keys are dealt out to the connections, so that the rows of
one key are committed in the order of their ids. Prints the rows a second that were reached, as JSON.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import psycopg

from benchmarks.stand import SCHEMA, Stand
from outboxd.bench.bare import KEYS, PAYLOAD_BYTES

STAMP = struct.Struct(">d")
_END_SECONDS_MAX = 120.0


@dataclass(frozen=True)
class Writing:
    """What shall be written."""

    topic: str
    rows: int
    rows_per_second: float
    connections: int


def start_writing(stand: Stand, writing: Writing) -> subprocess.Popen[str]:
    """Start the writer."""
    command = [
        *(sys.executable, "-m", "benchmarks.writing", stand.url),
        *("--topic", writing.topic, "--rate", str(writing.rows_per_second)),
        *("--rows", str(writing.rows), "--connections", str(writing.connections)),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ended_rate(writer: subprocess.Popen[str], rows: int, rows_per_second: float) -> float:
    """Wait for the writer's end; return the rows a second that it reached. RuntimeError where it failed."""
    try:
        out, _ = writer.communicate(timeout=rows / rows_per_second * 3 + _END_SECONDS_MAX)
    finally:
        writer.kill()
    if writer.returncode != 0:
        raise RuntimeError(f"the writer ended with {writer.returncode}")
    return float(json.loads(out)["rows_per_second"])


def write(url: str, writing: Writing) -> float:
    """Write all; a row that is late does not wait. Returns the rows a second."""
    failures: list[BaseException] = []
    ready = threading.Barrier(writing.connections + 1)

    def run(number: int) -> None:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                ready.wait()
                _write(connection, writing, number)
        except (psycopg.Error, threading.BrokenBarrierError) as failure:
            failures.append(failure)
            ready.abort()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(writing.connections)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return writing.rows / (time.perf_counter() - began)


def _write(connection: psycopg.Connection[tuple[object, ...]], writing: Writing, number: int) -> None:
    filler = b"x" * (PAYLOAD_BYTES - STAMP.size)
    statement = f"INSERT INTO {SCHEMA}.outbox (topic, key, payload) VALUES (%s, %s, %s)"
    keys = [f"key-{key}" for key in range(KEYS) if key % writing.connections == number]
    began = time.perf_counter()
    with connection.cursor() as cursor:
        for row in range(number, writing.rows, writing.connections):
            due = began + row / writing.rows_per_second
            while (rest := due - time.perf_counter()) > 0:
                time.sleep(rest)
            key = keys[row // writing.connections % len(keys)]
            cursor.execute(statement, (writing.topic, key, STAMP.pack(time.time()) + filler), prepare=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=float, required=True, help="rows a second")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--connections", type=int, default=2)
    options = parser.parse_args()
    reached = write(options.url, Writing(options.topic, options.rows, options.rate, options.connections))
    print(json.dumps({"rows_per_second": reached}))


if __name__ == "__main__":
    main()
