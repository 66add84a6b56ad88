"""Headers become the pairs that Kafka takes, or a reason that names the culprit; nothing else, whatever the text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.policy.faults import own_fault
from outboxd.policy.rows.headers import RESERVED_HEADERS, InvalidHeaders, parse_headers, readable_headers

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).filter(
    lambda name: name not in RESERVED_HEADERS
)
VALUES = st.none() | st.text(st.characters(codec="utf-8"), max_size=30)
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=8), children, max_size=4)
    ),
    max_leaves=12,
)

both_parsers = pytest.mark.parametrize("loads", [json.loads, orjson.loads], ids=["json", "orjson"])


def encoded(pairs: list[tuple[str, str | None]]) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((name, None if value is None else value.encode()) for name, value in pairs)


def refused(text: str, loads: Callable[[str], Any] = json.loads) -> InvalidHeaders:
    headers = parse_headers(text, loads)
    assert isinstance(headers, InvalidHeaders)
    return headers


@both_parsers
@given(pairs=PAIRS)
def test_an_array_keeps_order_and_repeats(loads: Callable[[str], Any], pairs: list[tuple[str, str | None]]) -> None:
    assert parse_headers(json.dumps(pairs), loads) == encoded(pairs)


@both_parsers
@given(pairs=PAIRS)
def test_an_object_gives_its_members_in_their_order(
    loads: Callable[[str], Any], pairs: list[tuple[str, str | None]]
) -> None:
    members = dict(pairs)
    assert parse_headers(json.dumps(members), loads) == encoded(list(members.items()))


@both_parsers
@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("{}", []),
        ('{"outbox-id": "7", "x": null}', [("outbox-id", "7"), ("x", None)]),
        ('[["a", "1"], ["a", null]]', [("a", "1"), ("a", None)]),
        ('{"a": "1", "n": 2}', None),
        ('[["a", "1"], ["a"]]', None),
        ('"text"', None),
        ("[" * 2000 + "]" * 2000, None),
        ("no JSON", None),
    ],
)
def test_headers_are_readable_where_each_is_a_name_with_a_string_or_null(
    text: str, readable: list[tuple[str, str | None]] | None, loads: Callable[[str], Any]
) -> None:
    assert readable_headers(text, loads) == readable


@given(document=JSON_VALUES)
def test_any_json_gives_sendable_headers_or_a_storable_reason(document: Any) -> None:
    headers = parse_headers(json.dumps(document))
    if isinstance(headers, InvalidHeaders):
        headers.reason.encode("utf-8")
        assert "\0" not in headers.reason
        assert len(headers.reason) < 700
        assert own_fault(headers.fault_name).name == headers.fault_name
    else:
        for name, value in headers:
            assert "\0" not in name.encode().decode()
            assert value is None or isinstance(value, bytes)
            assert name not in RESERVED_HEADERS


@given(text=st.text(st.characters(), max_size=40))
def test_any_text_at_all_is_answered(text: str) -> None:
    assert isinstance(parse_headers(text), (tuple, InvalidHeaders))


@pytest.mark.parametrize("text", ["{}", "[]", " {} "])
def test_no_headers_are_no_headers(text: str) -> None:
    assert parse_headers(text) == ()


def test_an_empty_value_and_null_stay_different() -> None:
    assert parse_headers('[["a", ""], ["a", null]]') == (("a", b""), ("a", None))


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
@pytest.mark.parametrize("form", ['{{"{}": "1"}}', '[["x", "1"], ["{}", null]]'])
def test_the_names_that_outboxd_adds_are_refused_by_name(name: str, form: str) -> None:
    invalid = refused(form.format(name))
    assert invalid.fault_name == "RESERVED_HEADER"
    assert name in invalid.reason


def test_a_name_that_only_resembles_a_reserved_one_is_the_applications_own() -> None:
    assert parse_headers('{"Outbox-Id": "1", "outbox-ids": "2"}') == (("Outbox-Id", b"1"), ("outbox-ids", b"2"))


@both_parsers
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"n": 1}', "the value of header 'n' is a number, not a string or null"),
        ('{"n": 1.5}', "the value of header 'n' is a number, not a string or null"),
        ('{"n": true}', "the value of header 'n' is a boolean, not a string or null"),
        ('{"n": {"a": "b"}}', "the value of header 'n' is an object, not a string or null"),
        ('[["n", ["a"]]]', "the value of header 'n' is an array, not a string or null"),
        ('[[1, "a"]]', "a header's name is a number, not a string"),
        ('[[null, "a"]]', "a header's name is null, not a string"),
        ('[["a", "b"], "ab"]', "item 1 of the headers is a string, not a [name, value] pair"),
        ('[["a"]]', "item 0 of the headers has 1 elements, not a name and a value"),
        ('[["a", "b", "c"]]', "item 0 of the headers has 3 elements, not a name and a value"),
        ("null", "the headers are null, not an object or an array of [name, value] pairs"),
        ('"a"', "the headers are a string, not an object or an array of [name, value] pairs"),
        ("17", "the headers are a number, not an object or an array of [name, value] pairs"),
        ("", "the headers are no valid JSON (JSONDecodeError)"),
        ('{"a": ', "the headers are no valid JSON (JSONDecodeError)"),
    ],
)
def test_what_is_wrong_is_said_with_the_headers_name(text: str, reason: str, loads: Callable[[str], Any]) -> None:
    assert refused(text, loads) == InvalidHeaders(reason)


@pytest.mark.parametrize(
    ("text", "part"),
    [(r'{"a\ud800": "b"}', "name"), (r'{"a": "b\udfff"}', "value"), (r'{"a\u0000b": "c"}', "name")],
)
def test_what_the_client_cannot_carry_is_refused_and_shown_escaped(text: str, part: str) -> None:
    reason = refused(text).reason
    assert part in reason
    assert reason.isprintable()


def test_a_nul_in_a_value_is_data_like_any_other() -> None:
    assert parse_headers(r'{"a": "\u0000"}') == (("a", b"\0"),)


def test_megabytes_are_taken_as_values_and_not_repeated_in_reasons() -> None:
    long = "x" * 5_000_000
    assert parse_headers(json.dumps({"a": long})) == (("a", long.encode()),)
    assert len(refused(json.dumps({long: 1})).reason) < 200
    assert len(refused(long).reason) < 200


@both_parsers
@pytest.mark.parametrize("text", ["[" * 2_000_000, '{"a":' * 1_000_000, "9" * 1_000_000])
def test_documents_made_to_exhaust_the_parser_are_refused(text: str, loads: Callable[[str], Any]) -> None:
    assert refused(text, loads).fault_name == "INVALID_HEADERS"
