"""Work that is done by the lot, on a thread that lives while there is something to do.

What comes while a lot is under way is the next one, so several wishes become one question to the cluster. Such
questions are rare, and no end of the daemon waits for an answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lots(Generic[T]):
    """Takes what is to be done, on any thread."""

    def __init__(self, name: str, work: Callable[[list[T]], None], *, may_wait: bool) -> None:
        """`work` is given each lot, on the thread of this `name`. Where no thread is to be had, it is done later, with
        what comes next, if it `may_wait`; else at once, by who brings it.
        """
        self._name = name
        self._work = work
        self._may_wait = may_wait
        self._waiting: list[T] = []
        self._lock = threading.Lock()
        self.is_busy = False

    def add(self, items: Iterable[T]) -> None:
        """Have these done."""
        with self._lock:
            self._waiting.extend(items)
            if self.is_busy or not self._waiting:
                return
            self.is_busy = True
        try:
            threading.Thread(target=self._work_off, name=self._name, daemon=True).start()
        except RuntimeError:
            if self._may_wait:
                self.is_busy = False
            else:
                self._work_off()

    def _work_off(self) -> None:
        while True:
            with self._lock:
                lot, self._waiting = self._waiting, []
                self.is_busy = bool(lot)
            if not lot:
                return
            try:
                self._work(lot)
            except BaseException:
                # A bug costs this lot; the next one is done all the same.
                self.is_busy = False
                raise
