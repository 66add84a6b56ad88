"""Breakers: when a topic is probed, by what it closes; and the storm guard."""

from __future__ import annotations

from outboxd.policy.faults import fault_of, own_fault
from outboxd.policy.topics.breakers import Breakers, StormGuard, storm_note, storm_of

FAULT = fault_of(29)


def open_breaker(now: float = 0.0) -> Breakers:
    breakers = Breakers()
    assert breakers.trip("t", FAULT, "denied", now)
    return breakers


def test_a_breaker_opens_once_and_is_probed_after_a_quarter_of_a_second() -> None:
    breakers = open_breaker()

    assert not breakers.trip("t", FAULT, "denied", 0.1)
    assert breakers.probes_due(0.2) == []
    assert breakers.probes_due(0.25) == ["t"]


def test_probes_that_fail_come_ever_later_up_to_five_seconds() -> None:
    breakers, now, pauses = open_breaker(), 0.25, []
    for _ in range(7):
        breakers.probing("t", 1)
        assert breakers.probes_due(now + 100) == [], "one probe at a time"
        breakers.probe_failed("t", 1, FAULT, "denied", now)
        due = breakers.next_probe_at()
        assert due is not None
        pauses.append(due - now)
        now = due

    assert [round(pause, 2) for pause in pauses] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def test_another_record_that_fails_is_no_probe() -> None:
    breakers = open_breaker()
    breakers.probing("t", 1)

    breakers.probe_failed("t", 2, FAULT, "denied", 9.0)

    assert breakers.is_probe("t", 1)
    assert breakers.open["t"].failures == 0


def test_a_probe_that_ends_without_a_word_on_the_topic_makes_way_for_the_next() -> None:
    breakers = open_breaker()
    breakers.probing("t", 1)

    breakers.probe_ended("t", 1, 3.0)

    assert breakers.probes_due(3.25) == ["t"]
    assert breakers.open["t"].failures == 0


def test_a_breaker_that_opened_on_age_is_watched_and_not_probed() -> None:
    breakers = Breakers()
    breakers.trip("t", own_fault("IN_FLIGHT_TOO_OLD"), "old", 0.0)

    assert breakers.open["t"].is_watched
    assert breakers.probes_due(99.0) == []


def test_twenty_different_keys_make_a_storm_and_one_key_does_not() -> None:
    guard = StormGuard()

    assert not any(guard.failed_for_good("t", 10, "one key", number) for number in range(300))
    guard.delivered("t", 0.0)
    assert [guard.failed_for_good("t", 10, f"k{number}", number) for number in range(20)] == [False] * 19 + [True]


def test_two_hundred_rows_of_several_keys_make_a_storm_however_few_these_are() -> None:
    guard = StormGuard()

    storms = [guard.failed_for_good("t", 10, f"k{number % 3}", number) for number in range(200)]

    assert storms == [False] * 199 + [True]


def test_rows_without_a_key_count_one_by_one() -> None:
    guard = StormGuard(keys_max=2)

    assert not guard.failed_for_good("t", 10, None, 1)
    assert guard.failed_for_good("t", 10, None, 2)


def test_rows_of_a_topic_that_kafka_can_never_have_make_no_storm_whatever_they_fail_with() -> None:
    guard = StormGuard(keys_max=2, rows_max=3)

    for topic in ("x" * 250, "ü" * 4_000, "orders/created", ""):
        for code in (-1001, -1003):
            assert not any(guard.failed_for_good(topic, code, f"k{number}", number) for number in range(9))
    assert [guard.failed_for_good("x" * 249, -1003, f"k{number}", number) for number in range(2)] == [False, True]


def test_failures_are_counted_of_a_bounded_number_of_topics_those_that_failed_last() -> None:
    guard = StormGuard(keys_max=3, topics_max=2)

    for number, topic in enumerate(["a", "b", "a", "c"]):
        assert not guard.failed_for_good(topic, 10, f"k{number}", number)
    assert guard.failed_for_good("a", 10, "k", 9), "it had failed twice, and later than another"
    assert not any(guard.failed_for_good("b", 10, f"l{number}", 10 + number) for number in range(2))


def test_a_delivery_or_an_operator_begins_the_count_anew() -> None:
    guard = StormGuard(keys_max=2)

    guard.failed_for_good("t", 10, "a", 1)
    guard.delivered("t", 0.0)
    assert not guard.failed_for_good("t", 10, "b", 2)
    guard.calm("t", 10)
    assert not guard.failed_for_good("t", 10, "c", 3)
    assert guard.failed_for_good("t", 10, "d", 4)


def test_rows_that_fail_with_another_code_between_do_not_hide_a_storm() -> None:
    guard = StormGuard()

    storms = []
    for number in range(20):
        storms.append(guard.failed_for_good("t", 10, f"k{number}", number))
        assert number > 15 or not guard.failed_for_good("t", -1003, f"k{number}", 100 + number)

    assert storms == [False] * 19 + [True]


def test_a_topic_that_was_let_go_after_a_storm_is_watched_for_its_code_until_a_second_after_a_delivery() -> None:
    guard = StormGuard()
    assert not guard.is_watched("t", 10, 1, 0.0)

    guard.calm("t", 10)

    assert guard.is_watched("t", 10, 1, 99.0)
    assert not guard.is_watched("t", 87, 1, 99.0)
    assert not guard.is_watched("other", 10, 1, 99.0)
    guard.delivered("t", 100.0)
    guard.delivered("t", 101.0)
    assert guard.is_watched("t", 10, 2, 100.9)
    assert not guard.is_watched("t", 10, 3, 101.1)


def test_a_row_that_fails_three_times_in_a_watched_topic_is_blamed_and_no_other_with_it() -> None:
    guard = StormGuard()
    guard.calm("t", 10)

    assert [guard.is_watched("t", 10, 1, 0.0) for _ in range(3)] == [True, True, False]
    assert guard.is_watched("t", 10, 2, 0.0)


def test_the_note_of_a_storm_names_its_fault_and_no_other_note_does() -> None:
    assert storm_of(storm_note(fault_of(10))) == fault_of(10)
    assert storm_of(storm_note(own_fault("INVALID_HEADERS"))) == own_fault("INVALID_HEADERS")
    assert storm_of("maintenance") is None
    assert storm_of(None) is None


def test_a_breaker_that_what_is_in_flight_closes_has_no_time_of_a_probe_that_anybody_would_wait_for() -> None:
    breakers = Breakers()
    breakers.trip("old", own_fault("IN_FLIGHT_TOO_OLD"), "old", 0.0)
    assert breakers.next_probe_at() is None

    breakers.trip("denied", FAULT, "denied", 5.0)

    assert breakers.next_probe_at() == 5.25


def test_a_breaker_tells_what_its_last_probe_failed_with() -> None:
    breakers = open_breaker()
    breakers.probing("t", 1)

    breakers.probe_failed("t", 1, fault_of(19), "too few replicas", 1.0)

    assert (breakers.open["t"].fault, breakers.open["t"].message) == (fault_of(19), "too few replicas")


def test_while_a_probe_is_on_its_way_no_read_that_showed_none_puts_the_next_one_off_or_ahead() -> None:
    breakers = open_breaker()
    breakers.probing("t", 1)

    breakers.no_probe("t", 9.0)
    breakers.look_on("t", 9.0)

    assert breakers.open["t"].next_probe_at == 0.25


def test_a_look_that_takes_longer_than_a_probe_waits_gives_what_is_parked_its_turn_until_the_next_probe() -> None:
    breakers = open_breaker()
    for now in (9.0, 9.1, 9.2):
        breakers.look_on("t", now)
    assert breakers.open["t"].turn_ends_at == 9.25

    breakers.probing("t", 1)

    assert breakers.open["t"].turn_ends_at == float("inf")


def test_a_look_that_begins_again_meets_all_keys_anew() -> None:
    breaker = open_breaker().open["t"]
    breaker.keys_read.add(("t", "k"))
    breaker.read_from, breaker.nothing_untried, breaker.began_again = 7, True, False

    breaker.look_again()

    assert (breaker.keys_read, breaker.begins_at(3)) == (set(), 3)
    assert (breaker.nothing_untried, breaker.began_again) == (False, True)


def test_a_delivery_that_disproves_failures_with_one_code_leaves_those_with_another_counted() -> None:
    guard = StormGuard(keys_max=2)
    for code in (10, 87):
        guard.failed_for_good("t", code, "a", code)

    guard.disproved("t", 10)
    guard.disproved("another", 10)

    assert not guard.failed_for_good("t", 10, "b", 2)
    assert guard.failed_for_good("t", 87, "b", 3)
