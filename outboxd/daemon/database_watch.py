"""What no failed statement of the relay tells: a lease that cannot even be asked for, a start that cannot be noted,
before which nothing is published, a server that says nothing at all, and that it is over, whatever it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from outboxd.observability.status import GAUGES, StatusBoard
from outboxd.policy.exchange.messages import TellEvent

SILENCE_SECONDS = 10.0
"""Of a server that accepts a statement nobody has to wait longer for it, but for a lock."""
STEADY_SECONDS = 5.0
"""That it answers again is told once it has for so long: one that fails at times would be told over and over."""
STANDSTILL = (
    f"neither an answer nor a refusal for {SILENCE_SECONDS:.0f} s: the server or the way to it stands still, or a lock"
    " is in the way; look at pg_stat_activity, the server's disks and the network"
)
LEASE_QUESTION, SILENCE = "the question for the lease", "the wait for an answer"
START_NOTE = "the note of the start"


class DatabaseWatch:
    """Tells the log and the board of them, each once until it is over. On the relay's thread."""

    def __init__(
        self,
        board: StatusBoard,
        event: TellEvent,
        lease_failure: Callable[[], str | None],
        start_failure: Callable[[], str | None],
        waits: Mapping[str, Callable[[], float]],
    ) -> None:
        """`lease_failure` says why the lease cannot be asked for, `start_failure` why what goes to the table `start`
        cannot be written; `waits` are the threads that ask the database, each with how many seconds it has waited for
        an answer.
        """
        self._board = board
        self._event = event
        self._lease_failure = lease_failure
        self._start_failure = start_failure
        self._waits = waits
        self._told: set[str] = set()
        self._is_down = False
        self._up_since: float | None = None

    def look(self, *, is_owner: bool) -> None:
        """Look after a turn of the relay's loop."""
        self._tell(LEASE_QUESTION, None if is_owner else self._lease_failure())
        self._tell(START_NOTE, self._start_failure() if is_owner else None)
        silent = next((name for name, seconds in self._waits.items() if seconds() >= SILENCE_SECONDS), None)
        self._tell(SILENCE, None if silent is None else f"the thread {silent} has had {STANDSTILL}")
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        """Say once that the database answers again, whatever it had failed at: people who were told that it does not
        would else never hear of it.
        """
        if self._board.database.answers is False:
            self._is_down, self._up_since = True, None
        elif self._is_down:
            now = self._board.monotonic()
            self._up_since = now if self._up_since is None else self._up_since
            if now - self._up_since >= STEADY_SECONDS:
                self._is_down = False
                self._event("database_answers")

    def _tell(self, during: str, cause: str | None) -> None:
        if cause is not None and during not in self._told:
            self._told.add(during)
            self._event("database_failed", during=during, cause=cause)
        elif cause is None and during in self._told:
            self._told.discard(during)
            self._board.database_answers(True, asked_by=(during, GAUGES))
