"""The catalogue of events holds what the code says, and the document holds the catalogue."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from outboxd.observability.event_document import FIELDS, document
from outboxd.observability.events import CATALOGUE, kind_of

ROOT = Path(__file__).parents[2]


def calls() -> list[tuple[str, set[str]]]:
    """Every event that the code tells of, with the fields that it gets."""
    found: list[tuple[str, set[str]]] = []
    for path in sorted((ROOT / "outboxd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("event", "_event"):
                found.append((str(node.args[0].value), {word.arg for word in node.keywords if word.arg is not None}))
    return found


def test_every_event_of_the_code_stands_in_the_catalogue_and_the_other_way_round() -> None:
    assert {name for name, _ in calls()} == set(CATALOGUE)


def test_the_code_gives_no_field_that_the_catalogue_does_not_list() -> None:
    for name, fields in calls():
        assert fields <= {*CATALOGUE[name].fields}, name


def test_sentences_use_listed_fields_only_and_every_field_has_a_meaning() -> None:
    for kind in CATALOGUE.values():
        assert kind.told <= set(kind.fields), kind.name
        assert set(kind.fields) <= set(FIELDS), kind.name
        assert kind.sentence.endswith((".", "}")), kind.name
        assert re.fullmatch(r"[a-z][a-z_]+", kind.name)


def test_every_meaning_is_of_a_field_that_some_event_has() -> None:
    assert set(FIELDS) == {field for kind in CATALOGUE.values() for field in kind.fields}


def test_the_document_is_made_from_the_catalogue() -> None:
    assert (ROOT / "docs" / "events.md").read_text(encoding="utf-8") == document()


def test_a_missing_field_and_an_unknown_event_still_give_a_sentence() -> None:
    assert "?" in kind_of("breaker_closed").message({"topic": "orders"})
    assert kind_of("never_heard_of").message({"topic": "orders"}) == "never heard of"
    assert kind_of("never_heard_of").level == "warning"


def test_values_with_braces_are_shown_as_they_are() -> None:
    assert "{0.x}" in kind_of("topic_paused").message({"topic": "{0.x}"})


@pytest.mark.parametrize(
    ("trouble", "end"),
    [
        ("breaker_opened", "breaker_closed"),
        ("partitions_held", "partitions_released"),
        ("kafka_failed", "kafka_answers"),
        ("database_failed", "database_answers"),
        ("in_flight_stalled", "in_flight_moving"),
        ("row_not_settled", "unsettled_rows_settled"),
        ("lease_lost", "owner"),
        ("recovery_failed", "recovered"),
    ],
)
def test_whoever_is_told_of_a_trouble_is_told_of_its_end(trouble: str, end: str) -> None:
    assert CATALOGUE[trouble].alerts
    assert CATALOGUE[end].alerts
    assert CATALOGUE[end].ends in ("", trouble)


def test_what_an_event_is_the_end_of_is_one_of_which_alerts_tell() -> None:
    assert {kind.ends for kind in CATALOGUE.values() if kind.ends} == {"lease_lost", "recovery_failed"}
