"""The catalogue of events: every line of the log has a stable name, a level, a sentence and known fields.

One catalogue in four parts. `daemon` has what a daemon tells of itself, `database` and `broker` what it tells of the
two servers, `upkeep` what operators and housekeeping do; `kinds` has the type. `docs/events.md` is made from it by
`event_document`, and tests hold both equal to the code. An event that `alerts` goes to `alerts.command` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from outboxd.observability.events.broker import BROKER_EVENTS
from outboxd.observability.events.daemon import DAEMON_EVENTS
from outboxd.observability.events.database import DATABASE_EVENTS
from outboxd.observability.events.kinds import EventKind
from outboxd.observability.events.upkeep import UPKEEP_EVENTS

CATALOGUE: Final[Mapping[str, EventKind]] = {
    kind.name: kind for kind in (*DAEMON_EVENTS, *DATABASE_EVENTS, *BROKER_EVENTS, *UPKEEP_EVENTS)
}
"""Every event, by name."""


def kind_of(name: str) -> EventKind:
    """The kind with this name; for a name that stands in no catalogue, one that shows the bare name as a warning."""
    return CATALOGUE.get(name) or EventKind(name, "warning", name.replace("_", " "))
