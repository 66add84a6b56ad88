"""From a fault to an outcome: a row's fault costs that row, the cluster's fault costs no row."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.policy.blame.outcomes import Alone, DeadLetter, DeathReason, Hold, Retry, Unknown
from outboxd.policy.blame.routes import RetryLimits, Route
from outboxd.policy.blame.verdicts import Circumstances, judge
from outboxd.policy.faults import KAFKA_FAULTS, Fault, FaultClass, fault_of, own_fault
from outboxd.policy.rows.records import NO_HISTORY, FailureHistory

ROUTE = Route(retry=RetryLimits(max_attempts=3, backoff_initial_seconds=1.0, backoff_max_seconds=8.0))
CALM = Circumstances(alone=True, neighbours_delivered=False, storming=False, own_age_seconds=0.0, random_unit=0.5)
LIVELY = replace(CALM, neighbours_delivered=True)
IN_BATCH = replace(CALM, alone=False)
OF_ONE_PARTITION = [fault for fault in KAFKA_FAULTS.values() if fault.of_one_partition]
SYSTEMIC = [fault for fault in KAFKA_FAULTS.values() if fault.fault_class in (FaultClass.TOPIC, FaultClass.CLUSTER)]
PASSING = fault_of(7)


@pytest.mark.parametrize("fault", SYSTEMIC, ids=lambda fault: fault.name)
def test_while_no_neighbour_is_delivered_a_systemic_fault_holds_and_counts_nothing(fault: Fault) -> None:
    outcome = judge(fault, "why", FailureHistory(99), ROUTE, CALM)

    assert isinstance(outcome, Hold)


@pytest.mark.parametrize("fault", OF_ONE_PARTITION, ids=lambda fault: fault.name)
def test_a_fault_of_one_partition_is_no_rows_whatever_the_topics_other_partitions_deliver(fault: Fault) -> None:
    outcome = judge(fault, "why", FailureHistory(99), ROUTE, replace(LIVELY, own_age_seconds=1e6))

    assert isinstance(outcome, Hold)


@given(
    st.sampled_from(list(KAFKA_FAULTS.values())),
    st.integers(0, 50),
    st.booleans(),
    st.booleans(),
    st.floats(0, 1e6),
)
def test_only_a_row_s_own_fault_kills(
    fault: Fault, attempts: int, alone: bool, lively: bool, age_seconds: float
) -> None:
    around = Circumstances(alone, lively, False, age_seconds, 0.5)

    outcome = judge(fault, "why", FailureHistory(attempts), ROUTE, around)

    if isinstance(outcome, DeadLetter):
        assert fault.fault_class is FaultClass.ROW_PERMANENT or lively
        assert alone or not fault.batch_wide
        assert outcome.attempts == attempts + 1
    if fault.fault_class is FaultClass.PRODUCER:
        assert isinstance(outcome, Unknown)


def test_a_batch_is_not_a_culprit() -> None:
    assert isinstance(judge(fault_of(10), "why", NO_HISTORY, ROUTE, IN_BATCH), Alone)
    assert judge(fault_of(10), "why", NO_HISTORY, ROUTE, CALM) == DeadLetter(
        DeathReason.FATAL, fault_of(10), "why", 1, False
    )


def test_what_outboxd_finds_itself_is_invalid() -> None:
    outcome = judge(own_fault("INVALID_HEADERS"), "why", NO_HISTORY, ROUTE, CALM)

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason is DeathReason.INVALID


def test_in_a_storm_nothing_dies() -> None:
    assert isinstance(judge(fault_of(10), "why", NO_HISTORY, ROUTE, replace(CALM, storming=True)), Hold)


def test_a_passing_fault_is_tried_again_with_jitter_until_its_attempts_are_used_up() -> None:
    outcomes = [judge(PASSING, "why", FailureHistory(attempts), ROUTE, LIVELY) for attempts in range(3)]

    assert outcomes[0] == Retry(PASSING, "why", 1, 0.5)
    assert outcomes[1] == Retry(PASSING, "why", 2, 1.0)
    assert outcomes[2] == DeadLetter(DeathReason.EXHAUSTED, PASSING, "why", 3, False)


def test_a_passing_fault_expires_when_it_lasted_too_long() -> None:
    route = Route(retry=RetryLimits(max_attempts=0, max_age_seconds=60.0))

    young = judge(PASSING, "why", FailureHistory(500), route, replace(LIVELY, own_age_seconds=59.0))
    old = judge(PASSING, "why", FailureHistory(500), route, replace(LIVELY, own_age_seconds=60.0))

    assert isinstance(young, Retry)
    assert isinstance(old, DeadLetter)
    assert old.reason is DeathReason.EXPIRED


def test_a_wrong_time_is_the_row_s_fault_only_beside_a_neighbour_that_passes() -> None:
    wrong_time = fault_of(32)

    assert isinstance(judge(wrong_time, "why", NO_HISTORY, ROUTE, IN_BATCH), Alone)
    assert isinstance(judge(wrong_time, "why", NO_HISTORY, ROUTE, CALM), Hold)
    assert isinstance(judge(wrong_time, "why", NO_HISTORY, ROUTE, LIVELY), DeadLetter)


def test_an_unlisted_code_is_tried_three_times_and_then_held_never_dead() -> None:
    unlisted = fault_of(4711)

    outcomes = [judge(unlisted, "why", FailureHistory(attempts), ROUTE, LIVELY) for attempts in range(5)]

    assert [type(outcome) for outcome in outcomes] == [Retry, Retry, Hold, Hold, Hold]


def test_the_route_says_whether_a_death_holds_the_key() -> None:
    outcome = judge(fault_of(10), "why", NO_HISTORY, Route(holds_key_on_death=True), CALM)

    assert isinstance(outcome, DeadLetter)
    assert outcome.holds_key
