"""Simulated threads: a real one each, of which only one runs at a time, when the timeline lets it.

A thread that waits gives the word back to the timeline, and gets it again at its time or when it is woken. So code
that blocks runs unchanged, and the same seed tells the same history.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Any

from tests.simulation.timeline import Timeline


class ThreadKilled(BaseException):
    """The process of the thread is gone."""


class SimulatedThread:
    """One thread. Its methods are called by the thread itself, but for `wake` and `kill`."""

    def __init__(
        self,
        timeline: Timeline,
        work: Callable[[], None],
        *,
        frozen_until: Callable[[], float],
        on_pause: Callable[[], None],
    ) -> None:
        """`frozen_until` says until when its process is frozen; `on_pause` is told whenever it gave the word back."""
        self._timeline = timeline
        self._work = work
        self._frozen_until = frozen_until
        self._on_pause = on_pause
        self._go = threading.Lock()
        self._back = threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._pauses = 0
        self._is_killed = False
        self._failure: BaseException | None = None
        self.is_over = False
        self.is_running = False
        threading.Thread(target=self._run, name="simulated", daemon=True).start()
        timeline.after(0.0, lambda: self._resume(0))

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._is_killed:
                self._work()
        except ThreadKilled:
            pass
        except BaseException as failure:  # noqa: BLE001  # it is the timeline's to raise
            self._failure = failure
        self.is_over = True
        self._back.release()

    def _resume(self, pause: int) -> None:
        if self.is_over or pause != self._pauses:
            return
        if not self._is_killed and self._timeline.now < self._frozen_until():
            self._timeline.at(self._frozen_until(), lambda: self._resume(pause))
            return
        self.is_running = True
        self._go.release()
        self._back.acquire()
        self.is_running = False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        self._on_pause()

    def pause(self, seconds: float) -> None:
        """Wait so long, or until it is woken."""
        self._pauses += 1
        number = self._pauses
        self._timeline.after(seconds, lambda: self._resume(number))
        self._back.release()
        self._go.acquire()
        if self._is_killed:
            raise ThreadKilled

    def wake(self) -> None:
        """Let it go on, if it waits."""
        number = self._pauses
        self._timeline.after(0.0001, lambda: self._resume(number))

    def kill(self) -> None:
        """End it where it waits."""
        if not self.is_over:
            self._is_killed = True
            self._resume(self._pauses)


class SimulatedJobs:
    """The worker's queue. `thread` is the worker, once it is there."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._jobs: deque[Any] = deque()
        self.thread: SimulatedThread | None = None

    def put(self, job: Any) -> None:
        self._jobs.append(job)
        if self.thread is not None:
            self.thread.wake()

    def get(self, *, timeout: float) -> Any:
        until = self._timeline.now + timeout
        while not self._jobs:
            if self.thread is None or self._timeline.now >= until:
                raise Empty
            self.thread.pause(until - self._timeline.now)
        return self._jobs.popleft()
