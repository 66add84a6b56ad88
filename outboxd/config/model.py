"""The whole configuration as one frozen value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from outboxd.config.librdkafka import KafkaSettings
from outboxd.config.places import DEFAULT, Origin
from outboxd.config.section import Contradiction, Section
from outboxd.config.sections import (
    AlertSettings,
    ClusterSettings,
    DatabaseSettings,
    HousekeepingSettings,
    HttpSettings,
    LogSettings,
    OutboxSettings,
    RelaySettings,
    RetrySettings,
    RouteSettings,
)

#: Name in the file → model, for the tables whose keys are ours; `kafka` and `route` are apart.
SECTIONS: Mapping[str, type[Section]] = {
    "database": DatabaseSettings,
    "outbox": OutboxSettings,
    "relay": RelaySettings,
    "retry": RetrySettings,
    "cluster": ClusterSettings,
    "housekeeping": HousekeepingSettings,
    "alerts": AlertSettings,
    "http": HttpSettings,
    "log": LogSettings,
}


class Settings(BaseModel):
    """The effective configuration.

    `Settings()` is all defaults, and sections can be given in code (`Settings(relay=RelaySettings(batch_rows=10))`),
    bounds checked all the same. `outboxd.config.load` makes one from file, credentials, environment and flags.

    Attributes:
        routes: the `[[route]]` tables in their order; the first whose glob matches a topic decides.
        origins: contract name → where the value came from; what is missing is a default.
        file: the file that was read, None when there was none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: DatabaseSettings = DatabaseSettings()
    kafka: KafkaSettings = KafkaSettings()
    outbox: OutboxSettings = OutboxSettings()
    relay: RelaySettings = RelaySettings()
    retry: RetrySettings = RetrySettings()
    routes: tuple[RouteSettings, ...] = ()
    cluster: ClusterSettings = ClusterSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    alerts: AlertSettings = AlertSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    origins: Mapping[str, Origin] = Field(default_factory=dict, repr=False)
    file: Path | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for found in disagreements(self.relay, self.retry, self.routes):
            raise found.error()
        return self

    def origin(self, key: str) -> Origin:
        """Where the value of the contract name `key`, such as `relay.batch_rows`, came from."""
        return self.origins.get(key, DEFAULT)

    def redacted(self) -> dict[str, object]:
        """All effective values by section and contract name, as TOML would hold them, with secrets hidden.

        `kafka` holds the properties by their own names, `route` a list of tables.
        """
        shown: dict[str, object] = {name: getattr(self, name).plain() for name in SECTIONS}
        shown["kafka"] = self.kafka.plain()
        shown["route"] = [
            {**route.plain(), **{f"retry.{key}": value for key, value in route.retry.plain().items()}}
            for route in self.routes
        ]
        return shown


def disagreements(
    relay: RelaySettings, retry: RetrySettings, routes: Sequence[RouteSettings | None]
) -> Iterator[Contradiction]:
    """Settings of different sections that are fine alone and not together, by contract names; a route that is None is
    passed over.
    """
    for index, route in enumerate(routes):
        if route is None:
            continue
        if route.confirm != "callback" and relay.is_exactly_once:
            why = {
                "none": "can lose records",
                "each": "sends one record at a time, where a transaction makes all visible at once",
            }[route.confirm]
            yield Contradiction(
                f"route[{index}].confirm",
                f'"{route.confirm}" {why}, which relay.delivery = "exactly-once" rules out; allowed: "callback"',
                ("relay.delivery",),
            )
        try:
            route.effective_retry(retry)
        except ValidationError:
            bounds = ("retry.backoff_initial", "retry.backoff_max")
            yield Contradiction(
                f"route[{index}].retry",
                "makes backoff_initial larger than backoff_max, with what [retry] says; allowed: at most that",
                (*bounds, *(f"route[{index}].{key}" for key in bounds)),
            )
