"""The daemon's mailbox: it is waited for no longer than was asked, whatever signals come."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

import pytest

from outboxd.daemon.mailbox import QueueMailbox
from outboxd.policy.exchange.messages import Event, StopRequested, Woken

WAIT_SECONDS = 0.2


def test_events_are_taken_in_order_each_once() -> None:
    mailbox = QueueMailbox()
    first, second = Woken(), StopRequested()
    mailbox.post(first)
    mailbox.post(second)

    assert mailbox.take() == [first, second]
    assert mailbox.take() == []


def test_a_wait_ends_with_what_another_thread_posts_and_what_was_there_before_ends_it_at_once() -> None:
    mailbox = QueueMailbox()
    poster = threading.Thread(target=mailbox.post, args=(Woken(),))
    poster.start()
    mailbox.wait(60.0)
    mailbox.wait(60.0)
    poster.join()

    assert mailbox.take() == [Woken()]


def test_what_was_taken_ends_no_later_wait() -> None:
    mailbox = QueueMailbox()
    mailbox.post(Woken())
    mailbox.take()
    began = time.monotonic()
    mailbox.wait(WAIT_SECONDS)

    assert time.monotonic() - began >= WAIT_SECONDS * 0.9


@pytest.mark.timeout(20)
@pytest.mark.parametrize("posted", [None, StopRequested()], ids=["leaves nothing", "leaves an event"])
def test_a_wait_ends_though_a_signals_handler_outlasts_it(posted: Event | None) -> None:
    mailbox = QueueMailbox()
    ends_at = time.monotonic() + WAIT_SECONDS

    def handler(_number: int, _frame: FrameType | None) -> None:
        while time.monotonic() < ends_at + 0.1:
            pass
        if posted is not None:
            mailbox.post(posted)

    former = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS / 2)
        mailbox.wait(WAIT_SECONDS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, former)

    assert mailbox.take() == ([] if posted is None else [posted])
