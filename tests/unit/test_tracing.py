"""Traces: which rows link to which spans, what is sampled, and that nothing stands in the way where they are off."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from outboxd.observability import tracing
from outboxd.observability.tracing import LINKS_MAX, ROW_SPANS_MAX, Tracing, is_wanted, open_tracing
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Record
from outboxd.relay.ports import Publisher

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + "0"


def record(row_id: int, headers: str = "{}", topic: str = "orders") -> Record:
    return Record(0, row_id, "event", topic, "key", b"x", headers, None, 0, 1)


def with_parent(row_id: int, parent: str = SAMPLED) -> Record:
    return record(row_id, f'{{"traceparent": "{parent}"}}')


class OneBatch:
    """A broker's port that delivers all it was given, at once."""

    def __init__(self, fails: Callable[[Record], bool] = lambda _: False) -> None:
        self._given: list[Record] = []
        self._fails = fails

    def publish(self, records: Sequence[Record], start: int) -> int:
        self._given += records[start:]
        return len(records)

    def take_reports(self) -> list[Report]:
        given, self._given = self._given, []
        fault = DeliveryFault(own_fault("INVALID_HEADERS"), "bad")
        return [
            Report(row, fault, None, None) if self._fails(row) else Report(row, None, 2, row.id * 10) for row in given
        ]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody asked for {name}")


class Traced:
    """A traced port and the spans that it made."""

    def __init__(self, *, traces_rows: bool = False, sampler: Sampler = ALWAYS_ON, within: Any = None) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider, "shop", traces_rows=traces_rows)
        port: Publisher = within or OneBatch()
        self._port = self.tracing.traced(port)

    def batch(self, *records: Record) -> list[Any]:
        """Send them as one batch and return the spans made meanwhile, in the order in which they ended."""
        self._exporter.clear()
        assert self._port.publish(records, 0) == len(records)
        assert len(self._port.take_reports()) == len(records)
        return self.spans()

    def spans(self) -> list[Any]:
        """All that ended so far."""
        return list(self._exporter.get_finished_spans())


def test_a_batch_is_one_span_that_links_to_the_traces_of_its_rows() -> None:
    (span,) = Traced().batch(with_parent(1), record(2), record(3, f'[["a", null], ["traceparent", "{UNSAMPLED}"]]'))
    assert (span.name, span.kind) == ("outboxd publish", SpanKind.PRODUCER)
    assert [link.context.trace_id for link in span.links] == [TRACE_ID, TRACE_ID]
    assert span.attributes["messaging.batch.message_count"] == 3
    assert span.attributes["outboxd.outbox"] == "shop"
    assert span.start_time <= span.end_time


def test_a_batch_links_no_more_than_the_sdk_keeps() -> None:
    (span,) = Traced().batch(*(with_parent(row_id) for row_id in range(500)))
    assert len(span.links) == LINKS_MAX
    assert span.dropped_links == 0


@pytest.mark.parametrize(
    "headers",
    [
        "{}",
        '{"traceparent": null}',
        '{"traceparent": "nonsense"}',
        '{"traceparent": "00-00000000000000000000000000000000-0000000000000000-01"}',
        f'{{"note": "\\"traceparent\\": \\"{SAMPLED}\\""}}',
        f'{{"x-traceparent": "{SAMPLED}"}}',
    ],
)
def test_a_header_that_names_no_trace_is_no_link(headers: str) -> None:
    (span,) = Traced().batch(record(1, headers))
    assert span.links == ()


class ChainsPort(OneBatch):
    """Takes chains, and gives back all that is not delivered by `last` reports."""

    def __init__(self) -> None:
        super().__init__()
        self.last: list[Report] = []

    def publish_chain(self, records: Sequence[Record]) -> int:
        return len(records) - 1

    def end_chains(self) -> Collection[int]:
        return {1}

    def purge(self) -> None:
        """Drop nothing."""

    def take_reports(self) -> list[Report]:
        last, self.last = self.last, []
        return last + super().take_reports()


def test_rows_that_go_together_are_traced_from_when_they_went_also_by_a_report_that_comes_with_their_end() -> None:
    within = ChainsPort()
    traced = Traced(traces_rows=True, within=within)
    rows = [with_parent(number) for number in range(4)]
    port = traced._port
    before = time.time_ns()
    assert port.publish_chain(rows) == 3
    went = time.time_ns()
    assert port.end_chains() == {1}
    within.last = [Report(rows[0], None, 0, 0)]
    port.take_reports()
    row, batch = traced.spans()
    assert before <= row.start_time <= went
    assert row.start_time == batch.start_time


def test_what_a_chain_gave_back_is_kept_no_longer() -> None:
    port = Traced(within=ChainsPort())._port
    port.publish([with_parent(9)], 0)
    port.publish_chain([with_parent(number) for number in range(4)])
    port.end_chains()
    port.take_reports()
    assert port._sent_at == {}
    port.publish_chain([with_parent(number) for number in range(4)])
    port.purge()
    assert (port._sent_at, port._chained) == ({}, set())


def test_no_reports_make_no_span() -> None:
    assert Traced().batch() == []


def test_failures_mark_the_batch() -> None:
    (span,) = Traced(within=OneBatch(lambda row: row.id == 2)).batch(record(1), record(2))
    assert (span.status.status_code, span.attributes["outboxd.failed"]) == (StatusCode.ERROR, 1)


def test_on_request_a_sampled_row_has_a_span_in_the_trace_of_the_application() -> None:
    traced = Traced(traces_rows=True, sampler=ParentBased(ALWAYS_ON))
    row, batch = traced.batch(with_parent(1), with_parent(2, UNSAMPLED), record(3))
    assert (row.name, row.context.trace_id) == ("send orders", TRACE_ID)
    assert row.parent.span_id == 0xB7AD6B7169203331
    assert row.links[0].context == batch.context
    assert row.attributes["messaging.kafka.offset"] == 10
    assert row.attributes["outboxd.id"] == 1
    assert "key" not in str(dict(row.attributes)), "a key is nobody's business"


def test_a_failed_row_names_its_error() -> None:
    row, _ = Traced(traces_rows=True, within=OneBatch(lambda _: True)).batch(with_parent(1))
    assert (row.status.status_code, row.status.description) == (StatusCode.ERROR, "INVALID_HEADERS")


def test_spans_of_rows_are_bounded_by_the_batch() -> None:
    assert len(Traced(traces_rows=True).batch(*(with_parent(row_id) for row_id in range(500)))) == ROW_SPANS_MAX + 1


def test_a_phase_is_a_span_as_long_as_it_took() -> None:
    traced = Traced()
    traced.tracing.phase("settle", 0.25, 42)
    (span,) = traced.spans()
    assert span.end_time - span.start_time == 250_000_000
    assert (span.name, span.attributes["outboxd.rows"]) == ("outboxd settle", 42)


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
)
def test_the_standard_variables_decide(environ: dict[str, str], *, wanted: bool) -> None:
    assert is_wanted(environ) is wanted


def test_where_nobody_asks_nothing_is_opened() -> None:
    assert open_tracing("shop", {}) is None


def test_a_collector_that_does_not_answer_keeps_no_daemon_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "END_SECONDS_MAX", 0.05)
    traced = Traced()
    stuck = threading.Event()
    monkeypatch.setattr(traced.tracing._provider, "shutdown", stuck.wait)
    traced.tracing.close()
    stuck.set()


def test_without_the_extra_it_says_so_where_traces_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk.trace.export"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError):
        open_tracing("shop", {"OTEL_TRACES_EXPORTER": "otlp"})
    assert open_tracing("shop", {}) is None
