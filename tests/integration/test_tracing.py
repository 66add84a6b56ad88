"""Trace context through a real daemon and broker: the header untouched, and spans at a collector where asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.children import wait_for
from tests.support.rig import Rig

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


class Collector:
    """Takes spans over HTTP, as any OTLP collector does."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Taker(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_the_applications_trace_context_arrives_as_it_was_written(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    headers = {"traceparent": PARENT, "tracestate": STATE}
    rig.insert(topic, headers=json.dumps(headers))
    rig.insert(topic, headers=json.dumps([["traceparent", PARENT], ["tracestate", STATE], ["traceparent", "odd"]]))
    rig.insert(topic)
    assert rig.daemon().run("--until-empty").code == 0
    as_object, as_pairs, without = [record.headers for record in rig.kafka.consume(topic)]
    given = {"traceparent", "tracestate"}
    assert {name: value for name, value in as_object if name in given} == {
        "traceparent": PARENT.encode(),
        "tracestate": STATE.encode(),
    }
    assert [value for name, value in as_pairs if name == "traceparent"] == [PARENT.encode(), b"odd"]
    assert not given & {name for name, _ in without}


def test_spans_reach_a_collector_where_the_environment_names_one(
    rig: Rig, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    topic = rig.topic(partitions=1, prefix="traced")
    rig.insert(topic, headers=json.dumps({"traceparent": PARENT}))
    assert rig.daemon().run("--until-empty").code == 0
    wait_for(lambda: bool(collector.bodies), timeout_seconds=10, what="spans")
    told = b"".join(collector.bodies)
    for part in (
        b"outboxd publish",
        b"outboxd fetch",
        b"outboxd settle",
        f"send {topic}".encode(),
        bytes.fromhex(PARENT[3:35]),
    ):
        assert part in told


def test_a_collector_that_is_away_costs_no_row(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    topic = rig.topic()
    rig.insert_many([topic], 500, keys=20)
    assert rig.daemon().run("--until-empty").code == 0
    rig.check()
