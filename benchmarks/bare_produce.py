"""The bare produce loop: what the same rows cost without outbox, database and outcomes.

Benchmarks give their rates as a ratio to it, taken in the same run: absolute rates say more about the machine. It is
the loop of `outboxd bench`, with the same keys, payloads and three headers, but for the client's settings: there they
are the relay's own, here librdkafka's defaults, as somebody without a relay would run them.

    python -m benchmarks.bare_produce BOOTSTRAP --topic TOPIC --rows 200000
"""

from __future__ import annotations

import argparse
import json

from confluent_kafka import Producer

from outboxd.bench.bare import IN_FLIGHT_ROWS_MAX, produce_all

SECONDS_MAX = 300.0


def defaults(bootstrap: str) -> dict[str, str | int | bool]:
    """librdkafka's defaults but for what the guarantees need, and room for as many rows as the relay has in flight."""
    return {
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        "message.timeout.ms": 0,
        "queue.buffering.max.messages": 2 * IN_FLIGHT_ROWS_MAX,
    }


def main() -> None:
    """Print rows per second and CPU per row, against a broker that is already there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bootstrap")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--linger-ms", type=float, default=None, help="default: librdkafka's own")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON document")
    options = parser.parse_args()
    config = defaults(options.bootstrap)
    if options.linger_ms is not None:
        config["linger.ms"] = options.linger_ms
    took = produce_all(Producer(config), options.topic, options.rows, SECONDS_MAX)
    cpu_us_per_row = took.cpu_seconds / took.rows * 1e6
    if options.json:
        print(json.dumps({"rows_per_second": took.rows_per_second, "cpu_us_per_row": cpu_us_per_row}))
        return
    print(
        f"{took.rows} rows in {took.seconds:.2f} s: {took.rows_per_second:,.0f} rows/s, "
        f"{cpu_us_per_row:.2f} µs CPU a row"
    )


if __name__ == "__main__":
    main()
