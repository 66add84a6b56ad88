"""The child of a trial: it gets suspects of a crash by a pipe, sends them, and answers with the broker's reports.

It is this program again (started anew, not forked: a client does not survive a fork). When the daemon ends, the pipe
does, and so does the child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any, Protocol

from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Record

POLL_SECONDS = 0.02

Answer = tuple[DeliveryFault | None, int | None, int | None]
"""What became of one record: its error, or its partition and offset."""


class LonePublisher(Protocol):
    """What the child needs of a publisher."""

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Send records from index `start` on; return the index of the first one not taken."""
        ...

    def publish_alone(self, record: Record) -> bool:
        """Send one record in a batch of its own."""
        ...

    def poll(self, timeout_seconds: float) -> None:
        """Serve delivery callbacks."""
        ...

    def take_reports(self) -> list[Report]:
        """Return the reports that came."""
        ...

    def failure(self) -> DeliveryFault | None:
        """Return the fatal error of the producer."""
        ...


MakePublisher = Callable[[Mapping[str, str]], LonePublisher]
"""Called in the child with the client's properties; travels there by pickling, so it is a function of a module or a
partial of one.
"""


def serve(pipe: Connection[Any, Any], make_publisher: Callable[[], LonePublisher]) -> None:
    """Be the child: send each group of records that comes by the pipe, answer with their reports; end when the pipe
    does.
    """
    # A terminal, or a service manager, sends them to all: the daemon decides, and the pipe tells.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_daemon, name="end", daemon=True).start()
    publisher = make_publisher()
    with contextlib.suppress(EOFError, OSError):
        pipe.send(None)
        while True:
            # Nothing is sent by the pipe before the answer: it is the end.
            answers = send(publisher, pipe.recv(), pipe.poll)
            if answers is None:
                return
            pipe.send(answers)
            if publisher.failure() is not None:
                return


def _end_with_the_daemon() -> None:
    """Nobody reads the pipe while brokers are waited for, which may take for ever."""
    daemon = parent_process()
    if daemon is not None:
        daemon.join()
        os._exit(1)


def send(
    publisher: LonePublisher, records: Sequence[Record], is_unwanted: Callable[[], bool]
) -> Sequence[Answer] | None:
    """Send these together; return an answer for each, None where nobody wants it any more. Once one has failed, what
    the publisher has not taken is not sent, since it may stand behind that one.
    """
    taken, has_failed = 0, False
    reports: dict[int, Report] = {}
    failure = publisher.failure()
    while len(reports) < (taken if has_failed else len(records)) and failure is None:
        if is_unwanted():
            return None
        if taken < len(records) and not has_failed:
            taken = _publish(publisher, records, taken)
        publisher.poll(POLL_SECONDS)
        for report in publisher.take_reports():
            reports[report.record.id] = report
            has_failed |= report.error is not None
        failure = publisher.failure()
    unsent = failure or DeliveryFault(own_fault("SENT_BACK"), "another row failed before it")
    return [_answer(reports.get(record.id), unsent) for record in records]


def _publish(publisher: LonePublisher, records: Sequence[Record], taken: int) -> int:
    if len(records) > 1:
        return publisher.publish(records, taken)
    return int(publisher.publish_alone(records[0]))


def _answer(report: Report | None, otherwise: DeliveryFault) -> Answer:
    return (otherwise, None, None) if report is None else (report.error, report.partition, report.offset)
