"""What the configuration means to the relay: its limits and its routes, in the relay's own terms."""

from __future__ import annotations

from outboxd.config import Settings
from outboxd.config.sections import RetrySettings
from outboxd.policy.blame.routes import Confirm, RetryLimits, Route
from outboxd.relay.relay import RelayLimits

ROW_BYTES = 1024
"""What a row in memory takes beside its payload, key and headers, in the relay and in the client; measured."""


def retry_limits(retry: RetrySettings) -> RetryLimits:
    """Return the limits that this section sets: the general one, or a route's with what it overrides."""
    return RetryLimits(
        retry.max_attempts, retry.backoff_initial_seconds, retry.backoff_max_seconds, retry.max_age_seconds
    )


def routes(settings: Settings) -> tuple[list[Route], Route]:
    """Return the routes in their order, and the one for topics that none of them matches."""
    chosen = []
    for route in settings.routes:
        limits = retry_limits(route.effective_retry(settings.retry))
        holds = route.on_dead_letter == "hold-key"
        chosen.append(Route(route.topic, Confirm(route.confirm), holds, limits))
    return chosen, Route(retry=retry_limits(settings.retry))


def relay_limits(settings: Settings) -> RelayLimits:
    """Return the relay's bounds."""
    relay = settings.relay
    return RelayLimits(
        batch_rows=relay.batch_rows,
        batch_bytes=relay.batch_bytes,
        max_in_flight_rows=relay.max_in_flight_rows,
        max_in_flight_bytes=relay.max_in_flight_bytes,
        row_bytes=ROW_BYTES,
        poll_interval_min_seconds=relay.poll_interval_min_seconds,
        poll_interval_max_seconds=relay.poll_interval_max_seconds,
        sweep_interval_seconds=relay.sweep_interval_seconds,
        shutdown_timeout_seconds=relay.shutdown_timeout_seconds,
    )
