"""When a lease is over, as a standby sees it: by the database's clock, and by what the standby saw itself.

The database's clock may be set. Set back, it would keep alive the lease of an owner that is gone, for as long as it
was set back; set forward, it ends that of an owner which relays. A standby that has seen the lease unchanged for as
long as it is good after a renewal knows by its own monotonic clock that it is over: its owner's trust began before the
renewal was sent, and ends earlier. And one that saw for how long a lease was still good waits for that long.
"""

from __future__ import annotations

from typing import NamedTuple


class LeaseVersion(NamedTuple):
    """What each acquisition, renewal and release changes."""

    holder: str
    token: int
    expires_at: str


class LeaseSight(NamedTuple):
    """One look at the lease. `remaining_seconds` is what the database's clock leaves of it; `duration_seconds` how long
    it is good from its last renewal on, None where the owner did not say.
    """

    version: LeaseVersion
    remaining_seconds: float
    duration_seconds: float | None


class LeaseWatch:
    """What one standby has seen of the lease."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._first: LeaseSight | None = None
        self._since = 0.0

    def is_over(self, sight: LeaseSight, now: float) -> bool:
        """Say whether it may be taken; `now` is the own clock's time, after the look."""
        if self._first is None or self._first.version != sight.version:
            self._first, self._since = sight, now
        is_expired, duration_seconds = sight.remaining_seconds <= 0, sight.duration_seconds
        if duration_seconds is None:
            return is_expired
        wait_seconds = min(self._first.remaining_seconds, duration_seconds) if is_expired else duration_seconds
        return now - self._since >= wait_seconds
