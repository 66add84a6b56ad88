"""From the sources to one frozen `Settings`, or to one error that lists every mistake."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from outboxd.config import sources
from outboxd.config.kind import AS_GIVEN
from outboxd.config.librdkafka import (
    BOOTSTRAP,
    MECHANISMS,
    NO_BROKERS,
    QUEUE_KBYTES,
    RECORD_BYTES,
    KafkaSettings,
    is_property,
    property_problem,
    queue_problem,
    token_problem,
)
from outboxd.config.mistakes import Mistake, config_error, suggestion
from outboxd.config.model import SECTIONS, Settings, disagreements
from outboxd.config.places import DEFAULT, Origin
from outboxd.config.section import Contradiction, Section
from outboxd.config.sections import RetryOverrides, RetrySettings, RouteSettings
from outboxd.errors import ConfigError

if TYPE_CHECKING:
    from outboxd.config.sources import Entry, Gathered

DEFAULT_PATH = Path("/etc/outboxd/outboxd.toml")
PATH_VARIABLE = "OUTBOXD_CONFIG"

# How the names of what names brokers begin, and so most misspelt ones.
_BROKERS = ("kafka.bootstrap", "kafka.metadata.broker")
_NO_FLAGS: Mapping[str, str] = {}


def load(
    path: Path | None = None,
    flags: Mapping[str, str] = _NO_FLAGS,
    env: Mapping[str, str] | None = None,
    *,
    needs_brokers: bool = False,
) -> Settings:
    """The effective configuration: flags over environment over systemd credentials over file over defaults.

    Args:
        path: the file; None for the variable OUTBOXD_CONFIG, else /etc/outboxd/outboxd.toml. A file that was named has
            to exist, the last one need not.
        flags: contract name (`relay.batch_rows`) → value as text.
        env: the environment; None for the process's own. CREDENTIALS_DIRECTORY in it names systemd's credentials.
        needs_brokers: whether it is a mistake to name no brokers.

    Raises:
        ConfigError: lists every mistake of all sources, each with its place.
    """
    env = os.environ if env is None else env
    file, must_exist = find_file(path, env)
    gathered = sources.merge(
        [
            sources.from_file(file, must_exist=must_exist),
            sources.from_credentials(env.get("CREDENTIALS_DIRECTORY")),
            sources.from_environment(env),
            sources.from_flags(flags),
        ]
    )
    return _Assembly(gathered).settings(file if _is_file(file) else None, needs_brokers=needs_brokers)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # A name that is too long, or has NUL: its mistake is already noted.
        return False


def find_file(path: Path | None, env: Mapping[str, str]) -> tuple[Path, bool]:
    """Which file is meant, and whether it has to exist."""
    if path is not None:
        return path, True
    if env.get(PATH_VARIABLE):
        return Path(env[PATH_VARIABLE]), True
    return DEFAULT_PATH, False


class _Assembly:
    """Builds the sections one by one, so that a mistake in one hides none in another."""

    def __init__(self, gathered: Gathered) -> None:
        self._entries = gathered.entries
        self._routes = gathered.routes
        self._mistakes = list(gathered.mistakes)
        self._origins: dict[str, Origin] = {}

    def settings(self, file: Path | None, *, needs_brokers: bool) -> Settings:
        sections: dict[str, Any] = {name: self._section(name) for name in SECTIONS}
        kafka = self._kafka()
        if needs_brokers:
            self._need_brokers(kafka, file)
        routes = [self._route(index, entries) for index, entries in enumerate(self._routes)]
        for name, section in sections.items():
            self._refuse_contradictions(section.contradictions(), f"{name}.")
        self._refuse_contradictions(disagreements(sections["relay"], sections["retry"], routes))
        if self._mistakes:
            raise config_error(sorted(self._mistakes, key=_by_place))
        return Settings(**sections, kafka=kafka, routes=tuple(filter(None, routes)), origins=self._origins, file=file)

    def _refuse_contradictions(self, contradictions: Iterator[Contradiction], prefix: str = "") -> None:
        """Tell those that no value takes part in which is a mistake itself."""
        wrong = {mistake.key.removesuffix("_file") for mistake in self._mistakes}
        for found in contradictions:
            keys = {f"{prefix}{key}" for key in (found.key, *found.others)}
            if not keys & wrong:
                self._refuse(f"{prefix}{found.key}", found.problem)

    def _section(self, name: str) -> Section | None:
        entries = {
            key.partition(".")[2]: entry for key, entry in self._entries.items() if key.partition(".")[0] == name
        }
        return self._build(SECTIONS[name], name, entries)

    def _kafka(self) -> KafkaSettings:
        properties: dict[str, str] = {}
        for full, entry in self._entries.items():
            section, _, key = full.partition(".")
            if section != sources.KAFKA:
                continue
            self._origins[full] = entry.origin
            if key.endswith("_file"):
                self._check_file_of(full, key.removesuffix("_file"), entry)
                continue
            if isinstance(entry.value, float) and not math.isfinite(entry.value):
                self._refuse(full, f"{entry.value} is no value; allowed: a string, a finite number, true or false")
                continue
            if isinstance(entry.value, bool):
                value = "true" if entry.value else "false"
            elif isinstance(entry.value, (str, int, float)):
                value = str(entry.value)
            else:
                self._refuse(full, "not a single value; allowed: a string, a number, true or false")
                continue
            problem = property_problem(key, value)
            # Where there is no such property, what names the file with its value is the mistake, and told as that.
            if problem is not None and (is_property(key) or not entry.origin.read_from):
                self._refuse(full, problem)
            properties[key] = value
        self._refuse_small_queue(properties)
        problem = token_problem(properties)
        if problem is not None:
            self._refuse(f"{sources.KAFKA}.{next(name for name in MECHANISMS if name in properties)}", problem)
        return KafkaSettings(properties=properties)

    def _refuse_small_queue(self, properties: Mapping[str, str]) -> None:
        sizes = [f"{sources.KAFKA}.{key}" for key in (QUEUE_KBYTES, RECORD_BYTES)]
        if any(mistake.key in sizes for mistake in self._mistakes):
            return
        problem = queue_problem(properties)
        if problem is not None:
            self._refuse(sizes[0], problem)

    def _check_file_of(self, full: str, key: str, entry: sources.Entry) -> None:
        """What is in the file is a property of its own; here is what names it."""
        if not isinstance(entry.value, str):
            self._refuse(full, "not the path of a file; allowed: a string")
        elif not is_property(key):
            self._refuse(full, property_problem(key, "") or "no such property")

    def _need_brokers(self, kafka: KafkaSettings, file: Path | None) -> None:
        """Refuse to go without, unless a mistake already told may be why there are none."""
        name = f"{sources.KAFKA}.{BOOTSTRAP}"
        if any(mistake.key in ("", sources.KAFKA) or mistake.key.startswith(_BROKERS) for mistake in self._mistakes):
            return
        try:
            kafka.bootstrap_servers  # noqa: B018 - refuses where there are none
        except ConfigError:
            place = self._origins.get(name) or (DEFAULT if file is None else Origin("file", str(file)))
            self._mistakes.append(Mistake(str(place), name, NO_BROKERS))

    def _route(self, index: int, entries: dict[str, Entry]) -> RouteSettings | None:
        name = f"{sources.ROUTE}[{index}]"
        self._origins[name] = entries.pop("").origin
        own = {key: entry for key, entry in entries.items() if not key.startswith("retry.")}
        overrides = {key.removeprefix("retry."): entry for key, entry in entries.items() if key.startswith("retry.")}
        known = [*RouteSettings.fields_by_key(), *(f"retry.{key}" for key in RetrySettings.fields_by_key())]
        for key, entry in entries.items():
            if key not in known:
                self._origins[f"{name}.{key}"] = entry.origin
                self._refuse(f"{name}.{key}", f"no such key{suggestion(key, known)}; allowed: {', '.join(known)}")
                own.pop(key, None)
                overrides.pop(key.removeprefix("retry."), None)
        if "topic" not in own:
            self._refuse(f"{name}.topic", "missing; allowed: a glob such as metrics.*")
            return None
        retry = self._build(RetryOverrides, f"{name}.retry", overrides)
        route = self._build(RouteSettings, name, own)
        if not isinstance(route, RouteSettings) or not isinstance(retry, RetryOverrides):
            return None
        return route.model_copy(update={"retry": retry})

    def _build(self, model: type[Section], name: str, entries: Mapping[str, Entry]) -> Section | None:
        fields = model.fields_by_key()
        values: dict[str, object] = {}
        for key, entry in entries.items():
            values[fields[key][0]] = entry.value
            self._origins[f"{name}.{key}"] = entry.origin
        keys = {field: key for key, (field, _) in fields.items()}
        while True:
            try:
                return model.model_validate(values, context=AS_GIVEN)
            except ValidationError as error:
                wrong = {str(each["loc"][0]): each for each in error.errors(include_url=False)}
                if not wrong.keys() & values.keys():
                    # What cannot be left out was refused.
                    return None
                for field, each in wrong.items():
                    self._refuse(
                        f"{name}.{keys.get(field, field)}", str(each.get("ctx", {}).get("problem", each["msg"]))
                    )
                    values.pop(field, None)

    def _refuse(self, key: str, problem: str) -> None:
        origin = self._origins.get(key) or self._origins.get(key.rpartition(".")[0], DEFAULT)
        self._mistakes.append(Mistake(str(origin), key, problem))


def _by_place(mistake: Mistake) -> tuple[str, int]:
    # In the order of the lines of a file; line numbers are numbers.
    place, _, line = mistake.place.rpartition(":")
    return (place, int(line)) if line.isdecimal() else (mistake.place, 0)
