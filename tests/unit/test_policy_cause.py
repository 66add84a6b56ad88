"""The cause is one storable line that always names the fault and what to do, whatever the row holds."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.policy.blame.cause import CAUSE_CHARS_MAX, cause, plain
from outboxd.policy.faults import KAFKA_FAULTS, OWN_FAULTS, Fault, fault_of, own_fault

FAULTS = [*KAFKA_FAULTS.values(), *OWN_FAULTS.values()]
ANY_TEXT = st.text(st.characters(), max_size=50)
NUMBERS = st.none() | st.integers(0, 2**63 - 1)


@given(fault=st.sampled_from(FAULTS), text=ANY_TEXT, topic=ANY_TEXT, partition=NUMBERS)
def test_any_cause_is_one_storable_line_with_number_name_meaning_and_remedy(
    fault: Fault, text: str, topic: str, partition: int | None
) -> None:
    line = cause(fault, text, topic, partition)
    line.encode("utf-8")
    assert not any(unicodedata.category(character) == "Cc" for character in line)
    assert line.startswith(f"{fault.code} {fault.name} ")
    assert fault.meaning in line
    assert line.endswith(fault.remedy)
    assert len(line) <= CAUSE_CHARS_MAX


@pytest.mark.parametrize("filler", ["x", "\0", "\ud800", "𝄞", "\n"])
def test_megabytes_of_text_and_topic_leave_the_remedy_readable(filler: str) -> None:
    fault = fault_of(10)
    line = cause(fault, filler * 3_000_000, filler * 3_000_000, 1)
    assert len(line) <= CAUSE_CHARS_MAX
    assert line.endswith(fault.remedy)


def test_the_place_is_as_precise_as_it_is_known() -> None:
    fault = own_fault("MISSING_KEY")
    assert cause(fault, "", "orders").startswith("-1007 MISSING_KEY at orders: The topic")
    assert cause(fault, "", "orders", 3).startswith("-1007 MISSING_KEY at orders-3: The topic")
    assert cause(fault, "").startswith("-1007 MISSING_KEY: The topic")


def test_a_topic_without_a_name_is_shown_as_that() -> None:
    line = cause(own_fault("INVALID_TOPIC"), "the topic is empty", "")
    assert line.startswith('-1003 INVALID_TOPIC at "": the topic is empty.')


def test_the_errors_own_text_stands_before_the_meaning() -> None:
    fault = fault_of(29)
    assert f": Broker: Topic authorization failed. {fault.meaning} {fault.remedy}" in cause(
        fault, "Broker: Topic authorization failed", "orders"
    )


def test_an_unlisted_fault_quotes_the_client_once() -> None:
    text = "Err-9999?"
    assert cause(fault_of(9999, "ERR_9999?", text), text, "orders").count(text) == 1


def test_an_unlisted_fault_with_a_hostile_text_is_still_storable() -> None:
    text = "\0\ud800" * 5000
    line = cause(fault_of(9999, text, text), text, "orders")
    line.encode("utf-8")
    assert "\0" not in line
    assert len(line) <= CAUSE_CHARS_MAX


@given(text=ANY_TEXT, chars_max=st.integers(1, 60))
def test_plain_text_fits_and_survives_being_cleaned_again(text: str, chars_max: int) -> None:
    once = plain(text, chars_max)
    assert len(once) <= chars_max
    assert plain(once, chars_max) == once


def test_a_cut_is_visible() -> None:
    assert plain("abcdef", 4) == "abc…"
    assert plain("abcd", 4) == "abcd"
