"""Reload: what another configuration changes in a running daemon, and what has to wait for its next start.

Pure: two configurations in, one answer out. The daemon carries it out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from outboxd.config import Settings
from outboxd.config.model import SECTIONS, disagreements

NEEDS_RESTART = (
    "database.url",
    "database.schema",
    "outbox.",
    "relay.after_publish",
    "relay.delivery",
    "relay.listen",
    "cluster.",
    "alerts.dead_letter_topic",
    "http.listen",
    "log.format",
    "kafka.message.max.bytes",
)
"""Contract names, or their beginnings, that bind for a daemon's life. `docs/configure.md` has the list too."""

WAIT_TOGETHER = {
    "database.url": ("database.password", "database.password_file"),
    "http.listen": ("http.token", "http.token_file"),
    "kafka.message.max.bytes": ("kafka.queue.buffering.max.kbytes",),
}
"""What waits only where the setting waits with which it belongs together: a new password of an old URL lets nobody in,
an old address without its token is open to everybody, and a smaller queue has no room for records of the old size.
"""

CREDENTIALS = frozenset({"kafka.sasl.username", "kafka.sasl.password"})
"""What the client takes while it runs. Any other property of it means a new producer."""


@dataclass(frozen=True, slots=True)
class Reload:
    """The answer.

    Attributes:
        settings: what is in effect from now on: the new configuration, with the old values of what needs a restart.
        taken: the contract names of what changes now.
        waiting: those of what changes at the next start.
        renews: whether the producer has to be built anew, after what is in flight was reported.
    """

    settings: Settings
    taken: tuple[str, ...]
    waiting: tuple[str, ...]
    renews: bool


def compare(present: Settings, wanted: Settings, *, rewritten: Collection[str] = ()) -> Reload:
    """Say what it takes to get from the `present` configuration to the `wanted` one. `rewritten` are properties of
    [kafka] whose files have other contents by now, as that of a renewed certificate, whatever their paths.
    """
    changed = list(_changed(present, wanted))
    changed += [f"kafka.{name}" for name in rewritten if f"kafka.{name}" not in changed]
    waiting = [key for key in changed if key.startswith(NEEDS_RESTART)]
    together = {other for key in waiting for other in WAIT_TOGETHER.get(key, ())}
    waiting = [key for key in changed if key in waiting or key in together]
    settings = _with_old(present, wanted, waiting)
    if any(disagreements(settings.relay, settings.retry, settings.routes)):
        # The new routes go with a value that has to wait, and so they wait with it.
        settings = settings.model_copy(update={"routes": present.routes})
        waiting.append("route")
    taken = [key for key in changed if key not in waiting]
    return Reload(settings, tuple(taken), tuple(waiting), _renews(present, settings, taken))


def _changed(present: Settings, wanted: Settings) -> Iterator[str]:
    for name, model in SECTIONS.items():
        for key, (field, _) in model.fields_by_key().items():
            if getattr(getattr(present, name), field) != getattr(getattr(wanted, name), field):
                yield f"{name}.{key}"
    before, after = present.kafka.properties, wanted.kafka.properties
    yield from (f"kafka.{key}" for key in sorted({*before, *after}) if before.get(key) != after.get(key))
    if present.routes != wanted.routes:
        yield "route"


def _with_old(present: Settings, wanted: Settings, waiting: list[str]) -> Settings:
    update: dict[str, object] = {}
    for name, model in SECTIONS.items():
        fields = {key: field for key, (field, _) in model.fields_by_key().items()}
        old = {
            fields[key.partition(".")[2]]: getattr(getattr(present, name), fields[key.partition(".")[2]])
            for key in waiting
            if key.partition(".")[0] == name
        }
        if old:
            update[name] = getattr(wanted, name).model_copy(update=old)
    properties = dict(wanted.kafka.properties)
    for key in waiting:
        section, _, name = key.partition(".")
        if section == "kafka":
            properties.pop(name, None)
            if name in present.kafka.properties:
                properties[name] = present.kafka.properties[name]
    update["kafka"] = wanted.kafka.model_copy(update={"properties": properties})
    return wanted.model_copy(update=update)


def _renews(present: Settings, settings: Settings, taken: list[str]) -> bool:
    kafka = {key for key in taken if key.startswith("kafka.")}
    if settings.relay.is_exactly_once and kafka:
        return True
    # The producer's queue is made for the limits; a transaction's rows are bounded apart from them.
    limits = [(each.relay.max_in_flight_rows, each.relay.max_in_flight_bytes) for each in (present, settings)]
    grows = any(after > before for before, after in zip(*limits, strict=True))
    if settings.relay.delivery == "at-least-once" and grows:
        return True
    # A topic's form of confirmation is bound to what is in memory of it.
    confirms = [[(route.topic, route.confirm) for route in each.routes] for each in (present, settings)]
    return bool(kafka - CREDENTIALS) or confirms[0] != confirms[1]
