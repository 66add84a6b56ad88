"""A naive relay: read, produce, wait, delete or mark, without a single guarantee. What the relay's own may be held to.

One thread reads the oldest pending rows, produces them all, waits for all reports and settles them. It knows no key's
order, no failure, no lease, no limit of memory, and reads from the beginning each time.

    python -m benchmarks.naive_loop URL BOOTSTRAP delete|mark
"""

from __future__ import annotations

import argparse
import json
import time

import orjson
import psycopg
from confluent_kafka import KafkaError, Message, Producer

from benchmarks.bare_produce import defaults
from benchmarks.stand import SCHEMA

BATCH_ROWS = 5_000
_POLL_SECONDS = 0.01
_CONNECT_SECONDS = 30.0

_READ = (
    f"SELECT id, event_id::text, topic, key, payload, headers::text FROM {SCHEMA}.outbox WHERE published_at IS NULL"
    f" ORDER BY id LIMIT {BATCH_ROWS}"
)
_DELETE = f"DELETE FROM {SCHEMA}.outbox WHERE id = ANY(%s)"
_MARK = (
    f"UPDATE {SCHEMA}.outbox AS o SET published_at = now(), published_partition = d.partition,"
    " published_offset = d.place FROM unnest(%s::bigint[], %s::int[], %s::bigint[]) AS d(id, partition, place)"
    " WHERE o.id = d.id"
)


class NaiveLoop:
    """The loop with its connections, which are open before the clock starts."""

    def __init__(self, url: str, bootstrap: str, *, deletes: bool) -> None:
        """Connect to both sides."""
        self._producer = Producer(defaults(bootstrap))
        self._producer.list_topics(timeout=_CONNECT_SECONDS)
        self._cursor = psycopg.connect(url, autocommit=True).cursor(binary=True)
        self._deletes = deletes

    def run(self) -> int:
        """Go on until a read shows nothing; return how many rows were settled."""
        rows = 0
        while relayed := self._relay_batch():
            rows += relayed
        return rows

    def _relay_batch(self) -> int:
        rows = self._cursor.execute(_READ).fetchall()
        places: list[tuple[int | None, int | None]] = []

        def reported(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                raise RuntimeError(f"a record failed: {error}")
            places.append((message.partition(), message.offset()))

        produce = self._producer.produce
        for row_id, event_id, topic, key, payload, headers_text in rows:
            headers = [
                ("outbox-id", str(row_id)),
                ("outbox-event-id", event_id),
                ("outbox-source", "default"),
                *(orjson.loads(headers_text).items() if headers_text != "{}" else ()),
            ]
            produce(topic, payload, key, -1, reported, None, 0, headers)
        while len(places) < len(rows):
            self._producer.poll(_POLL_SECONDS)
        self._settle([row[0] for row in rows], places)
        return len(rows)

    def _settle(self, ids: list[int], places: list[tuple[int | None, int | None]]) -> None:
        if self._deletes:
            self._cursor.execute(_DELETE, (ids,))
            return
        # Which row a report is of it does not know: the marks are as wrong as all else here may be.
        self._cursor.execute(_MARK, (ids, [place[0] for place in places], [place[1] for place in places]))


def main() -> None:
    """Run, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("bootstrap")
    parser.add_argument("settles", choices=["delete", "mark"])
    options = parser.parse_args()
    loop = NaiveLoop(options.url, options.bootstrap, deletes=options.settles == "delete")
    cpu_began, began = time.process_time(), time.perf_counter()
    rows = loop.run()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    print(json.dumps({"rows": rows, "rows_per_second": rows / seconds, "cpu_us_per_row": cpu_seconds / rows * 1e6}))


if __name__ == "__main__":
    main()
