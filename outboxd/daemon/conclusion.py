"""The conclusion of a run: what the relay's end means to who started it, as an exit code and on standard error."""

from __future__ import annotations

import sys

from outboxd.config import Settings
from outboxd.errors import EXIT_OK, EXIT_UNAVAILABLE, OutboxdError
from outboxd.postgres.connections.failures import explained
from outboxd.postgres.operators.pending import describe_pending
from outboxd.relay.relay import RelayEnd


def conclude(end: RelayEnd, settings: Settings, *, until_empty: bool) -> int:
    """Return the exit code of a relay that ended so, and say what waits; `until_empty`: it was to be nothing."""
    if end.reason == "blocked":
        waiting = f"topics that wait for Kafka: {', '.join(end.blocked_topics)}"
        print(waiting if end.blocked_topics else "Kafka is not available; the log says why", file=sys.stderr)  # noqa: T201 - for people
        return EXIT_UNAVAILABLE
    if end.reason == "unsettled":
        print("PostgreSQL refuses to settle rows that were sent; the log names one and says why", file=sys.stderr)  # noqa: T201 - for people
        # Whoever stopped it asked for no more than that.
        return EXIT_UNAVAILABLE if until_empty else EXIT_OK
    if end.reason == "empty":
        _tell_pending(settings)
    elif until_empty:
        # Whoever waits for an empty outbox must not take a signal for that.
        print("stopped before the outbox was known to be empty", file=sys.stderr)  # noqa: T201 - for people
        return EXIT_UNAVAILABLE
    return EXIT_OK


def _tell_pending(settings: Settings) -> None:
    """List on standard error what is still pending on purpose: paused, held, or not yet available. All else is done by
    then, and whether it can be listed changes nothing of that.
    """
    try:
        with explained():
            lines = describe_pending(
                settings.database.url,
                settings.database.password,
                settings.database.schema_,
                settings.outbox.table,
                settings.outbox.name,
            )
    except OutboxdError as error:
        lines = [f"what is still pending could not be listed: {error}"]
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201 - for people
