"""Whatever stands in a configuration file, the environment or the flags: settings that work, or mistakes in words."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outboxd.config import Settings, load
from outboxd.config.model import SECTIONS
from outboxd.config.sections import RouteSettings
from outboxd.daemon.relay_configuration import relay_limits, retry_limits, routes
from outboxd.errors import ConfigError

KNOWN = {name: list(model.fields_by_key()) for name, model in SECTIONS.items()}
ODD_TEXTS = [
    "", "0", "-1", "1", "10s", "1e9s", "-5ms", "64MiB", "9999999999999999GiB", "∞", "nan", "\u202e", "\ud7ff", "\x7f",
    "postgresql://", "postgresql://u:p@[::1", "postgresql://u@h:99999999/x", "127.0.0.1:0", "[::1]:9464", ":::::", "*",
    "/dev/null", "/", "/nowhere/at/all", "true", "debug", "delete", "exactly-once", "none", "hold-key", "a" * 5_000,
]  # fmt: skip
SCALARS = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.integers(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, -(2**63), 10**30]),
    st.floats(),
    st.booleans(),
    st.sampled_from([datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), time(3, 4)]),
)
INNER_KEYS = st.text("abc._-", min_size=1, max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(INNER_KEYS, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
NAMES = st.text("abckrsty_.é ", max_size=8)
KEYS = st.sampled_from(sorted({key for keys in KNOWN.values() for key in keys} | {"bootstrap.servers", "acks"}))
TABLES = st.dictionaries(KEYS | NAMES, VALUES, max_size=5)
ROUTES = st.lists(
    st.dictionaries(st.sampled_from([*RouteSettings.fields_by_key(), "retry"]) | NAMES, VALUES, max_size=4), max_size=3
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.dictionaries(st.sampled_from(keys), VALUES, max_size=4) | TABLES for name, keys in KNOWN.items()},
        "kafka": st.dictionaries(st.sampled_from(["bootstrap.servers", "acks", "linger.ms", "x_file"]) | NAMES, VALUES),
        "route": ROUTES | VALUES,
        "relais": TABLES,
        "relay": VALUES,
    },
)
QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def toml(value: object) -> str:
    """`value` as TOML has it within a line."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan" if math.isnan(value) else repr(value))
        case int():
            return str(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return "[" + ", ".join(toml(each) for each in value) + "]"
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            raise AssertionError(value)


def file_text(document: dict[str, object]) -> str:
    return "".join(f"{toml(name)} = {toml(value)}\n" for name, value in document.items())


def hold(path: Path, flags: dict[str, str] | None = None, env: dict[str, str] | None = None) -> Settings | None:
    """Load; settings have to be usable, and mistakes to be told in words."""
    try:
        found = load(path, flags or {}, env or {})
    except ConfigError as error:
        told = str(error)
        assert told.startswith("the configuration")
        assert "Traceback" not in told
        told.encode()
        return None
    routes(found)
    relay_limits(found)
    retry_limits(found.retry)
    _ = (found.http.address, found.database.secrets, found.redacted())
    return found


@QUICK
@given(document=DOCUMENTS)
@example(document={"relay": {"batch_rows": 2**63}, "route": [{"topic": "*", "retry": {"max_attempts": -1}}]})
@example(document={"http": {"listen": "[::1]:99999999999999999999"}})
@example(document={"database": {"url": "postgresql://u@[", "schema": "\x00"}})
def test_any_toml_is_settings_or_mistakes_in_words(tmp_path: Path, document: dict[str, object]) -> None:
    path = tmp_path / "fuzz.toml"
    path.write_text(file_text(document), encoding="utf-8")
    hold(path)


@QUICK
@given(content=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
@example(content=b"[" * 5_000)
@example(content=b"a = " + b"[" * 5_000)
@example(content=b"a" + b".a" * 5_000 + b" = 1")
@example(content=b"a = 1" + b"0" * 10_000)
@example(content=b"\xef\xbb\xbf[relay]\n")
def test_any_bytes_are_settings_or_mistakes_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.toml"
    path.write_bytes(content)
    hold(path)


@QUICK
@given(
    env=st.dictionaries(
        st.sampled_from([f"OUTBOXD_{section}__{key}".upper() for section, keys in KNOWN.items() for key in keys])
        | st.text("ABC_é", max_size=8).map(lambda text: f"OUTBOXD_{text}"),
        st.sampled_from(ODD_TEXTS) | st.text(max_size=20),
        max_size=5,
    ),
    flags=st.dictionaries(
        KEYS.map(lambda key: f"relay.{key}") | st.text(max_size=10), st.text(max_size=20), max_size=3
    ),
)  # fmt: skip
def test_any_environment_and_flags_are_settings_or_mistakes_in_words(
    tmp_path: Path, env: dict[str, str], flags: dict[str, str]
) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("")
    hold(path, flags, {name: value for name, value in env.items() if name != "OUTBOXD_CONFIG"})


@pytest.mark.parametrize("name", ["", ".", "x/y/z", "nul\0"])
def test_a_file_that_cannot_be_one_is_a_mistake_in_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path / name, {}, {})


def test_the_fuzzer_reaches_valid_settings_too(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(file_text({"relay": {"batch_rows": 7}, "route": [{"topic": "a*", "retry": {"max_attempts": 3}}]}))
    found = hold(path)
    assert found is not None
    assert (found.relay.batch_rows, len(found.routes)) == (7, 1)
