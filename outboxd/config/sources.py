"""The layers of the configuration, lowest first: file, systemd credentials, environment, flags.

Each layer turns what it finds into entries by contract name; `merge` lets the highest layer win, entry by entry.
Defaults are the models' own.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from outboxd.config.kind import Textual
from outboxd.config.libpq import parameters_of
from outboxd.config.librdkafka import COMMON_PROPERTIES, is_property, property_of_variable
from outboxd.config.mistakes import Mistake, suggestion
from outboxd.config.model import SECTIONS
from outboxd.config.places import Origin, lines_by_key
from outboxd.config.redaction import HIDDEN, is_secret, redact_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

KAFKA = "kafka"
ROUTE = "route"
URL = "database.url"
PASSWORD = "database.password"  # noqa: S105 - a setting's name
ENV_PREFIX = "OUTBOXD_"
# A secret is short; anything longer is the wrong file.
SECRET_FILE_BYTES_MAX = 1 << 20
# TOML itself tells two of one spelling; dots in quotes and without, or letters of a variable, may differ.
_TWICE = "given twice, in two spellings; allowed: one of the two"
# From here on a name is more likely a slip of the pen than one of its own.
_MISSPELT_LIKENESS_MIN = 0.8


@dataclass(frozen=True, slots=True)
class Entry:
    """One value as a source gave it."""

    value: object
    origin: Origin


@dataclass
class Gathered:
    """What one or all layers gave: entries by contract name, the routes of the file, the mistakes met on the way."""

    entries: dict[str, Entry] = field(default_factory=dict)
    routes: list[dict[str, Entry]] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)

    def refuse(self, origin: Origin, key: str, problem: str) -> None:
        """Note a mistake."""
        self.mistakes.append(Mistake(str(origin), key, problem))


def merge(layers: Iterable[Gathered]) -> Gathered:
    """All layers as one, lowest first: later entries win; a secret in a file counts as given where that was named, and
    only the file that wins is read. So it is with a password beside the database's URL and one within it.
    """
    merged = Gathered()
    for layer in layers:
        for full, target in _secret_files(layer):
            if target in layer.entries:
                layer.refuse(layer.entries[full].origin, full, f"given together with {target}; allowed: one of the two")
                del layer.entries[full]
        merged.mistakes.extend(layer.mistakes)
        merged.routes.extend(layer.routes)
        for full in layer.entries:
            merged.entries.pop(f"{full}_file", None)
        for _, target in _secret_files(layer):
            merged.entries.pop(target, None)
        merged.entries.update(layer.entries)
    _rank_passwords(merged)
    _read_secret_files(merged)
    return merged


def _rank_passwords(merged: Gathered) -> None:
    """Take away a password below a URL that has one; one of the same rank is a mistake, a higher one wins later on."""
    url = merged.entries.get(URL)
    if url is None or not isinstance(url.value, str) or not (parameters_of(url.value) or {}).get("password"):
        return
    for full in (PASSWORD, f"{PASSWORD}_file"):
        beside = merged.entries.get(full)
        if beside is None or not beside.value or beside.origin.rank > url.origin.rank:
            continue
        if beside.origin.rank == url.origin.rank:
            merged.refuse(beside.origin, full, f"given together with a password in {URL}; allowed: one of the two")
        del merged.entries[full]


def from_file(path: Path, *, must_exist: bool) -> Gathered:
    """The layer of the TOML file at `path`; empty when it is missing and need not be there."""
    layer = Gathered()
    origin = Origin("file", str(path))
    try:
        # Some editors begin a file with a byte order mark, which nobody sees.
        text = path.read_bytes().decode("utf-8-sig")
        tree = tomllib.loads(text)
    except FileNotFoundError:
        if must_exist:
            layer.refuse(origin, "", "no such file; `outboxd config init` writes one")
        return layer
    except OSError as error:
        layer.refuse(origin, "", f"cannot be read: {error.strerror or error}")
        return layer
    except (ValueError, RecursionError) as error:
        # No UTF-8, no TOML, a number of thousands of digits; or a path with NUL, which no file has.
        layer.refuse(origin, "", f"not TOML in UTF-8: {error}")
        return layer
    _take_tree(layer, tree, _Lines(str(path), lines_by_key(text)))
    return layer


@dataclass(frozen=True)
class _Lines:
    path: str
    lines: Mapping[str, int]

    def origin(self, key: str) -> Origin:
        return Origin("file", self.path, self.lines.get(key))


def _take_tree(layer: Gathered, tree: Mapping[str, object], lines: _Lines) -> None:
    for name, table in tree.items():
        if name == ROUTE:
            _take_routes(layer, table, lines)
        elif name not in SECTIONS and name != KAFKA:
            known = [*SECTIONS, KAFKA, ROUTE]
            layer.refuse(
                lines.origin(name), name, f"no such section{suggestion(name, known)}; allowed: {', '.join(known)}"
            )
        elif not isinstance(table, dict):
            layer.refuse(lines.origin(name), name, f"not a table; allowed: [{name}] and its keys below it")
        else:
            for key, value in _leaves(table):
                full = f"{name}.{key}"
                _take(layer, full, Entry(value, lines.origin(full)))


def _take_routes(layer: Gathered, tables: object, lines: _Lines) -> None:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        layer.refuse(
            lines.origin(ROUTE), ROUTE, "not an array of tables; allowed: [[route]] for each, with its keys below"
        )
        return
    for index, table in enumerate(tables):
        name = f"{ROUTE}[{index}]"
        route = {"": Entry(None, lines.origin(name))}
        for key, value in _leaves(table):
            entry = Entry(value, lines.origin(f"{name}.{key}"))
            if route.setdefault(key, entry) is not entry:
                layer.refuse(entry.origin, f"{name}.{key}", _TWICE)
        layer.routes.append(route)


def _leaves(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    # TOML's own dots nest: `retry.max_attempts = 3` and `sasl.password = "x"` mean what they look like.
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def from_credentials(directory: str | None) -> Gathered:
    """The layer of systemd's credentials: files named SECTION.KEY in `directory`; others there are somebody else's.

    So are those of [kafka] that resemble no property: a certificate's file may be called like that.
    """
    layer = Gathered()
    if not directory:
        return layer
    try:
        names = sorted(entry.name for entry in Path(directory).iterdir())
    except OSError as error:
        layer.refuse(Origin("credential", directory), "", f"cannot be read: {error.strerror or error}")
        return layer
    for name in names:
        origin = Origin("credential", name)
        section, _, key = name.partition(".")
        if section == KAFKA and not is_property(key.removesuffix("_file")):
            near = suggestion(key, COMMON_PROPERTIES, likeness_min=_MISSPELT_LIKENESS_MIN)
            if near:
                layer.refuse(origin, name, f"no such property of librdkafka{near}")
        elif key and (section == KAFKA or section in SECTIONS):
            text = _read_secret(layer, origin, name, Path(directory) / name)
            if text is not None:
                _take(layer, name, Entry(Textual(text), origin))
    return layer


def from_environment(env: Mapping[str, str]) -> Gathered:
    """The layer of the variables OUTBOXD_SECTION__KEY; for [kafka] a property's dots are underscores, or dots."""
    layer = Gathered()
    for name, text in env.items():
        if name.startswith(ENV_PREFIX) and "__" in name:
            section, _, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
            if section == KAFKA:
                stem, is_file = key.removesuffix("_file"), key.endswith("_file")
                key = property_of_variable(stem) + ("_file" if is_file else "")
            _take_textual(layer, f"{section}.{key}", Entry(Textual(text), Origin("environment", name)))
        elif name.startswith(ENV_PREFIX):
            _refuse_one_underscore(layer, name)
    return layer


def _refuse_one_underscore(layer: Gathered, name: str) -> None:
    """A setting's name that would be passed over for its one underscore; others have their own meaning, or none."""
    section, _, key = name.removeprefix(ENV_PREFIX).lower().partition("_")
    if section == KAFKA and key:
        is_setting = is_property(property_of_variable(key.removesuffix("_file")))
    else:
        is_setting = section in SECTIONS and key in SECTIONS[section].fields_by_key()
    if is_setting:
        meant = f"{ENV_PREFIX}{section}__{key}".upper()
        layer.refuse(Origin("environment", name), "", f"has one underscore after the section; did you mean {meant}?")


def from_flags(flags: Mapping[str, str]) -> Gathered:
    """The layer of `--set SECTION.KEY=VALUE`, by contract name."""
    layer = Gathered()
    for name, text in flags.items():
        origin = Origin("flag", f"--set {name}")
        section, _, key = name.partition(".")
        is_ours = section in SECTIONS and f"{key}_file" in SECTIONS[section].fields_by_key()
        if is_ours or (section == KAFKA and is_secret(key)):
            layer.refuse(
                origin, name, f"a secret among the arguments is seen by `ps`; allowed: {name}_file or a credential"
            )
        elif redact_url(text) not in (text, HIDDEN):
            instead = "the same in the file or in a variable of the environment"
            if section == "database":
                ways = "database.password_file, OUTBOXD_DATABASE__PASSWORD or a credential"
                instead = f"a URL without one, and the password in {ways}"
            layer.refuse(origin, name, f"a password among the arguments is seen by `ps`; allowed: {instead}")
        else:
            _take_textual(layer, name, Entry(Textual(text), origin))
    return layer


def _take_textual(layer: Gathered, full: str, entry: Entry) -> None:
    section = full.partition(".")[0]
    if section == ROUTE:
        layer.refuse(entry.origin, full, "routes are an ordered list; allowed: in the file only")
    elif section not in SECTIONS and section != KAFKA:
        known = [*SECTIONS, KAFKA]
        layer.refuse(entry.origin, full, f"no such section{suggestion(section, known)}; allowed: {', '.join(known)}")
    else:
        _take(layer, full, entry)


def _take(layer: Gathered, full: str, entry: Entry) -> None:
    section, _, key = full.partition(".")
    if section != KAFKA and key not in SECTIONS[section].fields_by_key():
        known = list(SECTIONS[section].fields_by_key())
        layer.refuse(entry.origin, full, f"no such key{suggestion(key, known)}; allowed: {', '.join(known)}")
    elif full in layer.entries:
        layer.refuse(entry.origin, full, _TWICE)
    else:
        layer.entries[full] = entry


def _secret_files(layer: Gathered) -> list[tuple[str, str]]:
    """The settings that name a file with a secret, each with the setting that the secret is for."""
    return [
        (full, full.removesuffix("_file"))
        for full, entry in layer.entries.items()
        if full.endswith("_file") and isinstance(entry.value, str) and entry.value
    ]


def _read_secret_files(layer: Gathered) -> None:
    for full, target in _secret_files(layer):
        entry = layer.entries[full]
        text = _read_secret(layer, entry.origin, full, Path(str(entry.value)))
        if text is not None:
            origin = Origin(entry.origin.source, entry.origin.name, entry.origin.line, read_from=str(entry.value))
            layer.entries[target] = Entry(Textual(text), origin)


def _read_secret(layer: Gathered, origin: Origin, key: str, path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_FILE_BYTES_MAX + 1)
        if len(content) > SECRET_FILE_BYTES_MAX:
            layer.refuse(
                origin, key, f"{path} is longer than {SECRET_FILE_BYTES_MAX} bytes; allowed: a secret and a newline"
            )
            return None
        return content.decode().removesuffix("\n")
    except UnicodeDecodeError:
        layer.refuse(origin, key, f"{path} is not text in UTF-8")
    except (OSError, ValueError) as error:
        layer.refuse(origin, key, f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")
    return None
