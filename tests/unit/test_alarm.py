"""A sleep that another thread can end."""

from __future__ import annotations

import threading

from outboxd.alarm import Alarm


def test_a_sleep_that_nobody_ends_lasts_its_time_and_says_so() -> None:
    assert not Alarm().sleep(0.001)


def test_ringing_ends_the_sleep() -> None:
    alarm, rang = Alarm(), threading.Event()

    def sleep() -> None:
        if alarm.sleep(60):
            rang.set()

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    alarm.ring()
    sleeper.join(10)
    assert rang.is_set()


def test_a_ring_that_comes_early_ends_the_next_sleep_and_no_other() -> None:
    alarm = Alarm()
    alarm.ring()
    alarm.ring()

    assert alarm.sleep(60)
    assert not alarm.sleep(0.001)
