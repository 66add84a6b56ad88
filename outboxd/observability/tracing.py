"""Traces by OpenTelemetry: one span a batch, linked to the traces of its rows, and sampled spans of single rows.

Needs the extra `otel`. The standard `OTEL_…` variables alone decide: an OTLP endpoint, or `OTEL_TRACES_EXPORTER=otlp`,
turns traces on. Rows have spans of their own only where `OTEL_TRACES_SAMPLER` is set, which then decides about each.
Where traces are off, nothing here stands between the relay and the broker. A row's `traceparent` goes to Kafka as the
application wrote it either way.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from outboxd import __version__
from outboxd.relay.publish.forwarding import ForwardingPublisher

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

    from outboxd.policy.exchange.messages import Report
    from outboxd.policy.rows.records import Record
    from outboxd.relay.ports import Publisher

LINKS_MAX: Final = 128
"""The SDK cuts off what is beyond."""
ROW_SPANS_MAX: Final = 128
"""So many rows of a batch have spans of their own at most: a span costs the relay about 50 µs."""
END_SECONDS_MAX: Final = 3.0
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# In the JSON text of the headers, whether an object or pairs; a quote within a string has a backslash before it.
_TRACEPARENT: Final = re.compile(r'"traceparent"\s*[:,]\s*"([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})"')


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Say whether the environment asks for traces."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return exporter == "otlp" or any(environ.get(name) for name in _ENDPOINTS)


def open_tracing(outbox: str, environ: Mapping[str, str]) -> Tracing | None:
    """Start exporting where the environment asks for traces; None where it does not.

    Raises:
        ImportError: it does, and the extra `otel` is not installed.
    """
    if not is_wanted(environ):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own: dict[str, Any] = {"service.version": __version__}
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        own["service.name"] = "outboxd"
    # The provider takes its sampler, and the exporter its address, from the environment.
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, outbox, traces_rows=bool(environ.get("OTEL_TRACES_SAMPLER")))


class Tracing:
    """Makes spans on the relay's thread. The SDK exports on a thread of its own, and drops what is too much."""

    def __init__(self, provider: TracerProvider, outbox: str, *, traces_rows: bool) -> None:
        """`traces_rows`: rows with a `traceparent` have spans of their own too, as the sampler says."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("outboxd", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._outbox = outbox
        self._traces_rows = traces_rows

    def traced(self, publisher: Publisher) -> TracedPublisher:
        """Return the broker's port with its batches traced."""
        return TracedPublisher(publisher, self)

    def phase(self, name: str, seconds: float, rows: int) -> None:
        """A span of one phase of the flow, which has just ended."""
        now = time.time_ns()
        span = self._tracer.start_span(
            f"outboxd {name}",
            start_time=now - int(seconds * 1e9),
            attributes={"outboxd.outbox": self._outbox, "outboxd.rows": rows},
        )
        span.end(now)

    def reported(self, reports: Sequence[Report], sent_at: Mapping[int, int], since: int) -> None:
        """A span of the batch whose reports came together.

        Args:
            reports: all of them.
            sent_at: record id → when it was given to the producer, in nanoseconds since the epoch; of traced rows only.
            since: when the batch began at the earliest, for one without traced rows.
        """
        from opentelemetry.trace import Link, SpanKind, Status, StatusCode, get_current_span

        now = time.time_ns()
        traced = [(report, context) for report in reports if (context := self._context(report.record)) is not None]
        links = [Link(get_current_span(context).get_span_context()) for _, context in traced[:LINKS_MAX]]
        failed = sum(report.error is not None for report in reports)
        span = self._tracer.start_span(
            "outboxd publish",
            kind=SpanKind.PRODUCER,
            links=links,
            start_time=min((sent_at.get(report.record.id, since) for report, _ in traced), default=since),
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "send",
                "messaging.batch.message_count": len(reports),
                "outboxd.outbox": self._outbox,
                "outboxd.failed": failed,
            },
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR, f"{failed} of {len(reports)} deliveries failed"))
        if self._traces_rows:
            batch = Link(span.get_span_context())
            for report, context in traced[:ROW_SPANS_MAX]:
                self._trace_row(report, context, [batch], sent_at.get(report.record.id, since), now)
        span.end(now)

    def _trace_row(self, report: Report, context: Context, links: Sequence[Any], start: int, end: int) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        record = report.record
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.destination.name": record.topic,
            "outboxd.outbox": self._outbox,
            "outboxd.id": record.id,
        }
        if report.partition is not None and report.offset is not None:
            attributes["messaging.destination.partition.id"] = str(report.partition)
            attributes["messaging.kafka.offset"] = report.offset
        span = self._tracer.start_span(
            f"send {record.topic}", context, SpanKind.PRODUCER, attributes, links, start_time=start
        )
        if report.error is not None:
            span.set_status(Status(StatusCode.ERROR, report.error.fault.name))
        span.end(end)

    def _context(self, record: Record) -> Context | None:
        """The trace that the application's header names; None where there is none, or none that makes sense."""
        found = _TRACEPARENT.search(record.headers) if "traceparent" in record.headers else None
        if found is None:
            return None
        from opentelemetry.trace import get_current_span

        context = self._propagator.extract({"traceparent": found[1]})
        return context if get_current_span(context).get_span_context().is_valid else None

    def close(self) -> None:
        """Send what is left, for a bounded time: a collector that does not answer keeps no daemon from ending."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        # Where no thread is to be had for it, what is left is not sent.
        with suppress(RuntimeError):
            closing.start()
            closing.join(END_SECONDS_MAX)


class TracedPublisher(ForwardingPublisher):
    """Publishes by the one within, and tells the batches of reports."""

    def __init__(self, within: Publisher, tracing: Tracing) -> None:
        """`within` is the real one."""
        super().__init__(within)
        self._tracing = tracing
        self._sent_at: dict[int, int] = {}
        self._chained: set[int] = set()
        """What of that went in chains."""
        self._ended: set[int] = set()
        """What of that the chains gave back, unless a report of it came with their end."""
        self._since = time.time_ns()

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Give records to the producer, and note when, of those that the application traces."""
        now = time.time_ns()
        if not self._sent_at:
            self._since = now
        taken = self._within.publish(records, start)
        self._note_sent(records[start:taken], now)
        return taken

    def publish_chain(self, records: Sequence[Record]) -> int:
        """Give records of one key to a producer that stops where one fails, and note when, as `publish` does."""
        now = time.time_ns()
        if not self._sent_at:
            self._since = now
        taken = self._within.publish_chain(records)
        self._note_sent(records[:taken], now)
        self._chained.update(record.id for record in records[:taken] if record.id in self._sent_at)
        return taken

    def end_chains(self) -> Collection[int]:
        """Stop all chains; no report comes of what they had, but those that come with their end."""
        unwritten = self._within.end_chains()
        self._ended, self._chained = self._ended | self._chained, set()
        return unwritten

    def _note_sent(self, records: Sequence[Record], now: int) -> None:
        for record in records:
            if "traceparent" in record.headers:
                self._sent_at[record.id] = now

    def publish_alone(self, record: Record) -> bool:
        """Send one record in a batch of its own, and note when, if the application traces it."""
        if "traceparent" in record.headers:
            self._sent_at[record.id] = time.time_ns()
        return self._within.publish_alone(record)

    def take_reports(self) -> list[Report]:
        """Return the reports; what came together is one batch."""
        reports = self._within.take_reports()
        if reports:
            self._tracing.reported(reports, self._sent_at, self._since)
            self._since = time.time_ns()
            if self._sent_at:
                for report in reports:
                    self._sent_at.pop(report.record.id, None)
                    self._chained.discard(report.record.id)
        for record_id in self._ended:
            self._sent_at.pop(record_id, None)
        self._ended.clear()
        return reports

    def rebuild(self) -> None:
        """Replace a failed producer; what is with it is sent anew."""
        self._forget()
        self._within.rebuild()

    def purge(self) -> None:
        """Drop what was not sent yet, of which no report comes."""
        self._forget()
        self._within.purge()

    def _forget(self) -> None:
        for ids in (self._sent_at, self._chained, self._ended):
            ids.clear()
