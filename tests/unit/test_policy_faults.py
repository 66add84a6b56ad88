"""The table of faults: complete, true to the measured facts, and safe where it leaves them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from outboxd.policy.faults import (
    KAFKA_FAULTS,
    OWN_CODE_MAX,
    OWN_FAULTS,
    Fault,
    FaultClass,
    fault_named,
    fault_of,
    fault_of_refusal,
    own_fault,
)

FACTS: dict[int, dict[str, Any]] = {
    fact["code"]: fact for fact in json.loads((Path(__file__).parent / "data/kafka-error-facts.json").read_text())
}

# What the facts propose, in the words of the table.
EXPECTED_CLASS = {
    "retry": FaultClass.ROW_PASSING,
    "retry_then_halt": FaultClass.UNLISTED,
    "not_for_producer": FaultClass.UNLISTED,
    "halt_topic": FaultClass.TOPIC,
    "halt_all": FaultClass.CLUSTER,
    "dead_letter": FaultClass.ROW_PERMANENT,
    "isolate_then_dead_letter": FaultClass.ROW_PERMANENT,
    "recreate_producer": FaultClass.PRODUCER,
    "recreate_producer_if_lease_held": FaultClass.PRODUCER,
    "abort_txn": FaultClass.PRODUCER,
    "bug": FaultClass.PRODUCER,
}

UNREACHABLE = "no way to the cluster: everything is held and probed, and an outage costs no row an attempt"
COORDINATOR = "the transaction coordinator serves the whole outbox: held and probed, no row pays for it"
NO_LEADER = (
    "a partition that nobody can write to is the cluster's fault: held and probed within seconds, no attempt counted"
)
GIVEN_UP = "the producer was given up under the record: unknown outcome, sent again by the next one, no attempt counted"
RECREATED = "the topic was deleted or made anew: the topic waits, no row pays for it"
CLASS_DEVIATIONS: dict[str, tuple[FaultClass, str]] = {
    "_FAIL": (FaultClass.CLUSTER, UNREACHABLE),
    "_TRANSPORT": (FaultClass.CLUSTER, UNREACHABLE),
    "_RESOLVE": (FaultClass.CLUSTER, UNREACHABLE),
    "_ALL_BROKERS_DOWN": (FaultClass.CLUSTER, UNREACHABLE),
    "_TIMED_OUT": (FaultClass.CLUSTER, UNREACHABLE),
    "_TIMED_OUT_QUEUE": (FaultClass.CLUSTER, UNREACHABLE),
    "BROKER_NOT_AVAILABLE": (FaultClass.CLUSTER, UNREACHABLE),
    "REBOOTSTRAP_REQUIRED": (FaultClass.CLUSTER, UNREACHABLE),
    "_QUEUE_FULL": (FaultClass.CLUSTER, "backpressure: brokers are slower than rows come, and waiting is no attempt"),
    "THROTTLING_QUOTA_EXCEEDED": (FaultClass.CLUSTER, "the quota is the daemon's user's, and waiting is no attempt"),
    "_WAIT_COORD": (FaultClass.CLUSTER, COORDINATOR),
    "COORDINATOR_LOAD_IN_PROGRESS": (FaultClass.CLUSTER, COORDINATOR),
    "COORDINATOR_NOT_AVAILABLE": (FaultClass.CLUSTER, COORDINATOR),
    "NOT_COORDINATOR": (FaultClass.CLUSTER, COORDINATOR),
    "CONCURRENT_TRANSACTIONS": (FaultClass.CLUSTER, COORDINATOR),
    "TRANSACTION_COORDINATOR_FENCED": (FaultClass.CLUSTER, COORDINATOR),
    "_MSG_TIMED_OUT": (FaultClass.TOPIC, NO_LEADER),
    "_ISR_INSUFF": (FaultClass.TOPIC, NO_LEADER),
    "LEADER_NOT_AVAILABLE": (FaultClass.TOPIC, NO_LEADER),
    "REPLICA_NOT_AVAILABLE": (FaultClass.TOPIC, NO_LEADER),
    "NOT_ENOUGH_REPLICAS": (FaultClass.TOPIC, NO_LEADER),
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND": (FaultClass.TOPIC, NO_LEADER),
    "KAFKA_STORAGE_ERROR": (FaultClass.TOPIC, NO_LEADER),
    "LISTENER_NOT_FOUND": (FaultClass.TOPIC, NO_LEADER),
    "PREFERRED_LEADER_NOT_AVAILABLE": (FaultClass.TOPIC, NO_LEADER),
    "ELIGIBLE_LEADERS_NOT_AVAILABLE": (FaultClass.TOPIC, NO_LEADER),
    "UNKNOWN_TOPIC_ID": (FaultClass.TOPIC, RECREATED),
    "INCONSISTENT_TOPIC_ID": (FaultClass.TOPIC, RECREATED),
    "_DESTROY": (FaultClass.PRODUCER, GIVEN_UP),
    "_PURGE_QUEUE": (FaultClass.PRODUCER, GIVEN_UP),
    "_PURGE_INFLIGHT": (FaultClass.PRODUCER, GIVEN_UP),
    "_INVALID_DIFFERENT_RECORD": (
        FaultClass.ROW_PERMANENT,
        "a suspect only: batch-wide, so it goes again alone, where this code cannot come back",
    ),
    "INVALID_TIMESTAMP": (
        FaultClass.TOPIC,
        "a wrong clock fails every row: the row's own only when a neighbour passes",
    ),
    "NO_ERROR": (FaultClass.UNLISTED, "success is no fault; a failure reported so has an unknown outcome"),
    "DUPLICATE_SEQUENCE_NUMBER": (
        FaultClass.PRODUCER,
        "the client turns it into success itself; seen all the same, its offset is unknown and the row goes again",
    ),
}

OF_ONE_PARTITION = {name for name, (_, why) in CLASS_DEVIATIONS.items() if why is NO_LEADER}
BATCH_WIDE_BESIDE_THE_FACTS = {
    "_INVALID_DIFFERENT_RECORD": "the innocents of a batch with two bad records get it",
    "INVALID_MSG": "a damaged batch, or (old brokers) one keyless record in it, fails all of it",
}


def codes_of_the_library() -> dict[str, int]:
    return {name: value for name, value in vars(KafkaError).items() if isinstance(value, int)}


def test_every_code_of_the_installed_client_is_classified_under_its_name() -> None:
    codes = codes_of_the_library()
    assert len(codes) >= 188
    assert {
        name: code for name, code in codes.items() if code not in KAFKA_FAULTS or KAFKA_FAULTS[code].name != name
    } == {}


def test_the_facts_cover_the_table_and_nothing_else() -> None:
    assert {code: fact["name"] for code, fact in FACTS.items()} == {code: f.name for code, f in KAFKA_FAULTS.items()}


@pytest.mark.parametrize("code", FACTS, ids=lambda code: str(FACTS[code]["name"]))
def test_the_class_follows_the_facts_or_a_stated_deviation(code: int) -> None:
    fact = FACTS[code]
    deviation = CLASS_DEVIATIONS.get(fact["name"])
    expected = deviation[0] if deviation else EXPECTED_CLASS[fact["proposed_class"]]
    assert fault_of(code).fault_class is expected


def test_a_stated_deviation_does_deviate() -> None:
    proposed = {fact["name"]: EXPECTED_CLASS.get(fact["proposed_class"]) for fact in FACTS.values()}
    assert [name for name, (fault_class, _) in CLASS_DEVIATIONS.items() if proposed[name] is fault_class] == []


@pytest.mark.parametrize("code", FACTS, ids=lambda code: str(FACTS[code]["name"]))
def test_what_must_be_isolated_first_is_batch_wide_and_nothing_else_is(code: int) -> None:
    fact = FACTS[code]
    expected = fact["proposed_class"] == "isolate_then_dead_letter" or fact["name"] in BATCH_WIDE_BESIDE_THE_FACTS
    assert fault_of(code).batch_wide is expected


def test_no_fault_that_java_retries_is_permanent() -> None:
    assert [
        fault.name
        for code, fault in KAFKA_FAULTS.items()
        if FACTS[code]["java_is_retriable"] and fault.fault_class is FaultClass.ROW_PERMANENT
    ] == []


def test_a_partition_that_cannot_be_written_is_no_rows_fault_whatever_the_others_deliver() -> None:
    assert {fault.name for fault in KAFKA_FAULTS.values() if fault.of_one_partition} == OF_ONE_PARTITION


def test_only_an_invalid_timestamp_waits_for_a_neighbours_verdict() -> None:
    assert [fault.name for fault in KAFKA_FAULTS.values() if fault.unless_neighbour_passes] == ["INVALID_TIMESTAMP"]


@pytest.mark.parametrize("flag", ["of_one_partition", "unless_neighbour_passes"])
def test_marks_of_a_topics_fault_stand_on_topics_faults_only(flag: str) -> None:
    faults = [*KAFKA_FAULTS.values(), *OWN_FAULTS.values()]
    marked = {fault.fault_class for fault in faults if getattr(fault, flag)}
    assert marked == {FaultClass.TOPIC}


@pytest.mark.parametrize(
    ("name", "fault_class"),
    [
        ("_AUTHENTICATION", FaultClass.CLUSTER),
        ("CLUSTER_AUTHORIZATION_FAILED", FaultClass.CLUSTER),
        ("TOPIC_AUTHORIZATION_FAILED", FaultClass.TOPIC),
        ("UNKNOWN_TOPIC_OR_PART", FaultClass.TOPIC),
        ("_FATAL", FaultClass.PRODUCER),
        ("_FENCED", FaultClass.PRODUCER),
        ("INVALID_PRODUCER_EPOCH", FaultClass.PRODUCER),
        ("MSG_SIZE_TOO_LARGE", FaultClass.ROW_PERMANENT),
    ],
)
def test_the_design_s_own_examples_have_the_design_s_class(name: str, fault_class: FaultClass) -> None:
    assert fault_of(getattr(KafkaError, name)).fault_class is fault_class


def test_an_unknown_code_is_unlisted_and_keeps_its_name_and_text() -> None:
    fault = fault_of(9999, "ERR_9999?", "Err-9999?")
    assert (fault.code, fault.name, fault.fault_class) == (9999, "ERR_9999?", FaultClass.UNLISTED)
    assert "Err-9999?" in fault.meaning


def test_an_unknown_code_without_a_name_gets_one() -> None:
    assert fault_of(-4242).name == "ERR_-4242"


def test_a_verdict_on_a_record_alone_is_no_longer_batch_wide() -> None:
    shared, lone = fault_of(KafkaError.MSG_SIZE_TOO_LARGE), fault_of(KafkaError.MSG_SIZE_TOO_LARGE, alone=True)
    assert (shared.batch_wide, lone.batch_wide) == (True, False)
    assert (shared.name, shared.fault_class, shared.remedy) == (lone.name, lone.fault_class, lone.remedy)


@pytest.mark.parametrize("fault", [*KAFKA_FAULTS.values(), *OWN_FAULTS.values()], ids=lambda fault: fault.name)
def test_every_fault_says_what_it_means_and_what_to_do_in_sentences(fault: Fault) -> None:
    for sentence in (fault.meaning, fault.remedy):
        assert sentence.isprintable()
        assert sentence == sentence.strip()
        assert sentence[0].isupper() or sentence.startswith("outboxd")
        assert sentence.endswith((".", ")"))
        assert len(sentence) <= 400


def test_no_remedy_promises_that_a_row_which_may_be_a_dead_letter_by_then_goes_by_itself() -> None:
    faults = (*KAFKA_FAULTS.values(), *OWN_FAULTS.values())
    passing = [fault for fault in faults if fault.fault_class is FaultClass.ROW_PASSING]
    promised = [
        fault.name
        for fault in passing
        if re.search("by itself|by themselves", fault.remedy) and "dead letters by a replay" not in fault.remedy
    ]
    assert passing
    assert promised == []


def test_a_log_that_went_back_may_be_a_topic_that_was_made_anew_and_not_only_a_lossy_election() -> None:
    fault = fault_named("OUT_OF_ORDER_SEQUENCE_NUMBER")
    assert fault is not None
    meaning = fault.meaning
    assert "its topic was deleted and created again, or an unclean leader election" in meaning


def test_what_a_producer_can_see_has_a_meaning_of_its_own() -> None:
    meanings = [KAFKA_FAULTS[code].meaning for code, f in FACTS.items() if f["proposed_class"] != "not_for_producer"]
    assert sorted({meaning for meaning in meanings if meanings.count(meaning) > 1}) == []


@pytest.mark.parametrize(
    "name",
    ["INVALID_HEADERS", "RESERVED_HEADER", "INVALID_TOPIC", "UNKNOWN_PARTITION", "INVALID_KEY", "INVALID_PAYLOAD",
     "MSG_SIZE_TOO_LARGE", "MISSING_KEY", "INVALID_TIMESTAMP", "CRASHED_DAEMON"],
)  # fmt: skip
def test_what_outboxd_finds_in_a_row_is_the_rows_own_and_beyond_doubt(name: str) -> None:
    fault = own_fault(name)
    assert (fault.name, fault.fault_class, fault.batch_wide) == (name, FaultClass.ROW_PERMANENT, False)


def test_own_codes_are_unique_and_away_from_kafkas_unless_the_name_is_kafkas() -> None:
    codes = [fault.code for fault in OWN_FAULTS.values()]
    assert len(codes) == len(set(codes))
    shared = {fault.name for fault in OWN_FAULTS.values() if fault.code > OWN_CODE_MAX}
    assert shared == {"MSG_SIZE_TOO_LARGE", "INVALID_TIMESTAMP"}
    assert all(KAFKA_FAULTS[own_fault(name).code].name == name for name in shared)
    assert min(KAFKA_FAULTS) > OWN_CODE_MAX


def test_a_stored_error_code_leads_back_to_its_sentences() -> None:
    assert fault_named("INVALID_RECORD") is KAFKA_FAULTS[KafkaError.INVALID_RECORD]
    assert fault_named("MISSING_KEY") is own_fault("MISSING_KEY")
    assert fault_named("NO_SUCH_NAME") is None


def test_a_row_dies_invalid_of_our_finding_and_fatal_of_kafkas() -> None:
    assert own_fault("INVALID_HEADERS").dead_reason == "invalid"
    assert fault_of(KafkaError.INVALID_RECORD).dead_reason == "fatal"
    assert own_fault("MSG_SIZE_TOO_LARGE").dead_reason == "fatal"
    assert own_fault("CRASHED_DAEMON").dead_reason == "fatal"


def test_own_fault_refuses_a_name_that_it_does_not_have() -> None:
    with pytest.raises(KeyError, match="NO_SUCH_NAME"):
        own_fault("NO_SUCH_NAME")


def test_each_refusal_of_the_real_client_is_blamed_on_the_right_part() -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": "localhost:1", "log_level": 0})

    def refusal(*, topic: str = "t", value: Any = b"v", key: Any = None, headers: Any = None) -> str:
        kinds = {TypeError: "type", ValueError: "value", UnicodeEncodeError: "unicode"}
        try:
            producer.produce(topic, value, key=key, headers=headers)
        except (TypeError, ValueError) as error:
            return fault_of_refusal(kinds[type(error)], str(error)).name  # type: ignore[arg-type]
        raise AssertionError("the client took it")

    assert refusal(value=memoryview(b"v")) == "INVALID_PAYLOAD"
    assert refusal(key=3) == "INVALID_KEY"
    assert refusal(key="\ud800") == "INVALID_KEY"
    assert refusal(headers=[("name", 3)]) == "INVALID_HEADERS"
    assert refusal(headers=[("name",)]) == "INVALID_HEADERS"
    assert refusal(topic="a\0b") == "INVALID_TOPIC"
