"""The configuration: read from file, systemd credentials, environment and flags into one frozen value.

`load` is the way in. The command line reads it, and so do the demo, the benchmark, the daemon and the modules beside
it that put one together; the rooms are handed the values they need, and import-linter holds them to that.

Modules: `section`, `sections` and `model` (every setting, with default, bounds and sentence, and all of them as one
value), `kind`, `kinds` and `units` (what values may be), `libpq` (what a connection's URL may say), `librdkafka` (the
open section [kafka]), `sources`, `places` and `loading` (from the layers to the value), `mistakes`, `redaction`,
`template` (the text of config/outboxd.toml).
"""

from __future__ import annotations

from outboxd.config.librdkafka import KafkaSettings
from outboxd.config.loading import DEFAULT_PATH, find_file, load
from outboxd.config.model import Settings
from outboxd.config.places import Origin
from outboxd.config.sections import (
    AlertSettings,
    ClusterSettings,
    DatabaseSettings,
    HousekeepingSettings,
    HttpSettings,
    LogSettings,
    OutboxSettings,
    RelaySettings,
    RetryOverrides,
    RetrySettings,
    RouteSettings,
)

__all__ = [
    "DEFAULT_PATH",
    "AlertSettings",
    "ClusterSettings",
    "DatabaseSettings",
    "HousekeepingSettings",
    "HttpSettings",
    "KafkaSettings",
    "LogSettings",
    "Origin",
    "OutboxSettings",
    "RelaySettings",
    "RetryOverrides",
    "RetrySettings",
    "RouteSettings",
    "Settings",
    "find_file",
    "load",
]
