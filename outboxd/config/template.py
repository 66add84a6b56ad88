"""The text of config/outboxd.toml, from the models: every option with its default, unit and sentence."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

from outboxd.config.librdkafka import BOOTSTRAP, GUARDS, KafkaSettings
from outboxd.config.model import SECTIONS
from outboxd.config.section import Section, kind_of
from outboxd.config.sections import RetryOverrides, RouteSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 110

HEADER = """\
# outboxd's configuration. Every option stands here, commented out, with its default; take the # away to change one.
#
# What wins: --set SECTION.KEY=VALUE, then the environment (OUTBOXD_SECTION__KEY), then systemd credentials named
# SECTION.KEY, then this file, then the defaults. `outboxd config show` prints what is in effect and where it came from.
# Durations are written "250ms", "5s", "24h", "90d"; sizes "500kB", "64MiB". A key that does not exist is an error.
"""


def template() -> str:
    """The whole text, ending in a newline; read as it is, it means all defaults."""
    blocks = [HEADER]
    for name, model in SECTIONS.items():
        blocks.append("\n".join([_comment(model.title), f"[{name}]", *_options(model)]) + "\n")
        if name == "database":
            blocks.append("\n".join(_kafka()) + "\n")
        if name == "retry":
            blocks.append("\n".join(_routes()) + "\n")
    return "\n".join(blocks)


def _options(model: type[Section], prefix: str = "") -> Iterator[str]:
    for key, (_, info) in model.fields_by_key().items():
        kind = kind_of(info)
        if kind is None:  # pragma: no cover - fields_by_key has settings only
            continue
        yield _comment(f"{info.description} [{kind.unit}]")
        value = "metrics.*" if info.is_required() else kind.plain(info.default)
        yield f"#{prefix}{key} = {_toml(value)}"


def _kafka() -> Iterator[str]:
    yield _comment(KafkaSettings.title)
    yield _comment(
        "A secret may be given by a file: `sasl.password_file` and the like take the file's content, one newline at "
        "its end dropped. In the environment a dot is an underscore: OUTBOXD_KAFKA__SASL_PASSWORD."
    )
    yield _comment("Refused, since a guarantee would be void: " + _guarded() + ".")
    yield "[kafka]"
    yield _comment("The brokers to ask first; no default, needed by everything that sends. [HOST:PORT, …]")
    yield f'#"{BOOTSTRAP}" = "localhost:9092"'


def _guarded() -> str:
    return "; ".join(
        _refused(key, guard.allowed)
        for key, guard in GUARDS.items()
        if not key.endswith(("_cb", "on_delivery", "logger", "default.topic.config"))
    )


def _refused(key: str, allowed: str) -> str:
    if allowed.startswith("nothing"):
        return key
    if allowed.startswith("any but "):
        return f'{key} "{allowed.removeprefix("any but ")}"'
    return f"{key} other than {allowed}"


def _routes() -> Iterator[str]:
    yield _comment(RouteSettings.title)
    yield "#[[route]]"
    yield from _options(RouteSettings)
    for key, (_, info) in RetryOverrides.fields_by_key().items():
        general, general_info = SECTIONS["retry"].fields_by_key()[key]
        kind = kind_of(general_info)
        if kind is not None:
            yield _comment(f"{info.description} [{kind.unit}]")
            yield f"#retry.{key} = {_toml(kind.plain(SECTIONS['retry'].model_fields[general].default))}"


def _comment(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _toml(value: object) -> str:
    # Strings, whole numbers and booleans are written in TOML as in JSON.
    return json.dumps(value, ensure_ascii=False)
