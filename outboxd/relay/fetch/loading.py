"""Loading: what a new owner must know before its first fetch, which is what the owner before held."""

from __future__ import annotations

from outboxd.relay.fetch.orders import Orders
from outboxd.relay.fetch.recovering import Recovering
from outboxd.relay.ports import Loaded
from outboxd.relay.state import State

LOAD = "load"
"""What `State.reading` is while a load is under way."""


class Loading:
    """The beginning of the reading side; nothing is fetched before it `is_done`."""

    def __init__(self, state: State, orders: Orders, recovering: Recovering) -> None:
        """`state` is the relay's memory of this ownership; `recovering` begins with what was loaded."""
        self._state = state
        self._orders = orders
        self._recovering = recovering
        self.is_done = False
        self._again_at: float | None = None

    def begin(self) -> None:
        """Ask for what a new owner must know."""
        self._again_at = None
        self._state.reading = LOAD
        self._state.ports.store.begin_load()

    def begin_from(self, at: float, now: float) -> None:
        """Ask from then on: at once where that has passed."""
        if now >= at:
            self.begin()
        else:
            self._again_at = at

    def begin_again(self, now: float) -> None:
        """Ask, again after a failure, when the pause is over."""
        if self._again_at is not None and now >= self._again_at:
            self.begin()

    def failed(self, again_at: float) -> None:
        """The database did not answer: it is asked again then."""
        self._again_at = again_at

    def deadlines(self) -> list[float]:
        """Return when it is to be begun again; while it is under way its answer comes by itself."""
        return [] if self._again_at is None else [self._again_at]

    def on_loaded(self, loaded: Loaded) -> None:
        """Hold the keys and topics that were held when the owner before this one ended."""
        state = self._state
        state.reading = None
        self.is_done = True
        state.aftermath.now_ms = loaded.now_ms
        self._orders.on_pauses(loaded.pauses, 0.0)
        now = state.ports.clock.monotonic()
        for holder in loaded.holders:
            self._orders.hold(holder, now)
        self._orders.try_stormed(loaded)
        state.ports.observer.event("owner", token=state.token, held_records=len(state.held))
        if state.pipelined:
            self._recovering.begin(loaded)
