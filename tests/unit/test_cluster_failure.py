"""Why no broker answers is told in the client's most telling words, with what to do about it."""

from __future__ import annotations

import logging
import threading

import pytest
from confluent_kafka import KafkaError

from outboxd.kafka.client.cluster_failure import (
    HOLDS_SECONDS,
    LATELY_SECONDS,
    ClusterFailure,
    connection_error,
    in_full,
)
from outboxd.kafka.client.connection_remedies import without_times

DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
REFUSED = KafkaError(KafkaError._TRANSPORT, "a:1/bootstrap: Connect to ipv4#a:1 failed: Connection refused")
PASSWORD = KafkaError(KafkaError._AUTHENTICATION, "sasl_ssl://b:1/bootstrap: SASL authentication failed")


def told_of(*errors: KafkaError) -> str:
    failure = ClusterFailure(lambda: 0.0)
    for error in errors:
        failure.note(error)
    assert failure.told is not None
    return failure.told


def test_that_all_brokers_are_down_does_not_hide_why() -> None:
    assert told_of(DOWN).startswith("_ALL_BROKERS_DOWN: 1/1 brokers are down; look at bootstrap.servers")
    told = told_of(PASSWORD)
    assert told == f"_AUTHENTICATION: {PASSWORD.str()}; look at sasl.* and ssl.* of [kafka]"
    assert told_of(PASSWORD, DOWN) == told_of(DOWN, PASSWORD) == told
    assert told_of(DOWN, REFUSED) == told_of(REFUSED, DOWN) == told_of(REFUSED)


def test_one_broker_of_several_that_is_away_does_not_hide_what_the_others_refuse() -> None:
    assert told_of(PASSWORD, REFUSED) == told_of(REFUSED, PASSWORD) == told_of(PASSWORD)


def test_of_two_causes_that_tell_as_much_the_last_is_told() -> None:
    hung_up = KafkaError(KafkaError._TRANSPORT, "a:1/bootstrap: Disconnected (after 1ms in state APIVERSION_QUERY)")
    assert told_of(REFUSED, hung_up) == told_of(hung_up)
    assert told_of(hung_up, REFUSED) == told_of(REFUSED)


def test_a_cause_that_was_not_said_for_long_gives_way_to_one_that_tells_less() -> None:
    now = 0.0
    failure = ClusterFailure(lambda: now)
    failure.note(PASSWORD)
    now = HOLDS_SECONDS - 1
    failure.note(REFUSED)
    assert failure.told == in_full(PASSWORD)
    now = HOLDS_SECONDS
    failure.note(REFUSED)
    assert failure.told == in_full(REFUSED)
    failure.clear()
    assert failure.told is None


def test_what_was_said_lately_is_known_though_another_broker_answered() -> None:
    now = 0.0
    failure = ClusterFailure(lambda: now)
    failure.note(REFUSED)
    failure.clear()
    now = LATELY_SECONDS - 1
    told = [failure.lately]
    now += 1
    assert [*told, failure.lately] == [in_full(REFUSED), None]


def test_a_silence_is_told_with_the_servers_and_hides_nothing() -> None:
    failure = ClusterFailure(lambda: 0.0)
    failure.unanswered("a:1,b:2", 0.0)
    told = failure.told
    assert told is not None
    assert told.startswith("_TIMED_OUT: no answer from a:1,b:2; they neither answer nor refuse")
    failure.note(DOWN)
    assert failure.told == told
    failure.note(REFUSED)
    failure.unanswered("a:1,b:2", 0.0)
    assert failure.told == in_full(REFUSED)


def test_what_the_client_is_about_to_say_is_waited_for() -> None:
    failure = ClusterFailure(lambda: 0.0)
    poll = threading.Timer(0.0, failure.note, [REFUSED])
    poll.start()
    failure.unanswered("a:1", 30.0)
    poll.join()
    assert failure.told == in_full(REFUSED)


def test_what_the_client_only_logs_of_a_connection_is_a_cause_and_its_warnings_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failure = ClusterFailure(lambda: 0.0)
    form, text = "%s [%s] %s", "[thrd:a:1/bootstrap]: a:1/bootstrap: Disconnected (after 3ms in state APIVERSION_QUERY)"
    failure.log(logging.INFO, form, "FAIL", "outboxd#producer-1", text)
    assert not caplog.messages
    told = failure.told
    assert told is not None
    assert told.startswith(
        "_TRANSPORT: a:1/bootstrap: Disconnected (in state APIVERSION_QUERY); what listens there may"
    )
    failure.log(logging.WARNING, form, "GETPID", "outboxd#producer-1", "[thrd:main]: retrying")
    assert caplog.messages == ["GETPID [outboxd#producer-1] [thrd:main]: retrying"]
    assert failure.told == told


def test_that_a_producer_of_chains_ended_as_it_has_to_alarms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    gapless = "Fatal error: Local: Gap-less ordering would not be guaranteed if proceeding: ProduceRequest for orders"
    fenced = "Fatal error: Broker: Producer attempted an operation with an old epoch"
    failure = ClusterFailure(lambda: 0.0)
    with caplog.at_level(logging.DEBUG, logger="librdkafka"):
        for text in (gapless, fenced):
            failure.log(logging.CRITICAL, "%s [%s] %s", "FATAL", "outboxd#producer-2", text)
        for name in ("enable.gapless.guarantee", "another.property"):
            text = f"Configuration property {name} is experimental"
            failure.log(logging.WARNING, "%s [%s] %s", "CONFWARN", "outboxd#producer-2", text)
    assert [line.levelno for line in caplog.records] == [
        logging.DEBUG,
        logging.CRITICAL,
        logging.DEBUG,
        logging.WARNING,
    ]
    assert failure.told is None


def test_what_the_client_logs_as_an_error_comes_as_an_error_with_its_code() -> None:
    assert connection_error(logging.ERROR, "FAIL", "outboxd#producer-1", "[thrd:a:1/0]: a:1/0: refused") is None
    assert connection_error(logging.INFO, "FAIL", "outboxd#producer-1", "[thrd:a:1/0]: a:1/0: gone") is not None


def test_a_certificate_that_is_not_believed_is_told_with_all_that_may_be_wrong_with_it() -> None:
    said = (
        "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: verify that ssl.ca.location is"
    )
    told = in_full(KafkaError(KafkaError._SSL, said))
    assert told.startswith(f"_SSL: {said}; ")
    assert "of another host than the one asked, or not valid at this time" in told


@pytest.mark.parametrize(
    ("code", "said", "remedy"),
    [
        (KafkaError._TRANSPORT, "h:1/bootstrap: Disconnected: gone (after 0ms in state APIVERSION_QUERY)", "want TLS"),
        (
            KafkaError._TRANSPORT,
            "sasl_plaintext://h:1/bootstrap: Disconnected: gone (after 0ms in state APIVERSION_QUERY)",
            "want TLS",
        ),
        (KafkaError._TRANSPORT, "h:1/bootstrap: Disconnected: gone (after 9ms in state UP)", "wants a login"),
        (KafkaError._TRANSPORT, "sasl_ssl://h:1/0: Disconnected: gone (after 9ms in state UP)", "look at bootstrap"),
        (
            KafkaError._TRANSPORT,
            "ssl://h:1/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
            "without TLS",
        ),
        (KafkaError._SSL, "ssl://h:1/bootstrap: error:0A00010B:SSL routines::wrong version number", "without TLS"),
        (
            KafkaError._BAD_MSG,
            "h:1/bootstrap: Invalid response size 1213486160 (0..9): increase (after 0ms in state APIVERSION_QUERY)",
            "no Kafka broker",
        ),
        (KafkaError._AUTHENTICATION, "Broker: Unsupported SASL mechanism: broker's supported", "set sasl.mechanism"),
        (KafkaError._AUTHENTICATION, "Broker: Request not valid in current SASL state: broker's", "takes no login"),
        (KafkaError._RESOLVE, "h:1/bootstrap: Failed to resolve 'h:1': Name or service not known", "resolves names"),
        (KafkaError._RESOLVE, "h:1/7: Failed to resolve 'h:1': Name or service not known", "advertised.listeners"),
        (KafkaError._TRANSPORT, "h:1/7: Connect to ipv4#h:1 failed: Connection refused", "advertised.listeners"),
        (KafkaError._TRANSPORT, "h:1/bootstrap: Connect to ipv4#h:1 failed: Connection refused", "nothing listens"),
        (KafkaError._TRANSPORT, "h:1/bootstrap: Connection setup timed out in state CONNECT", "firewalls"),
        (KafkaError._TRANSPORT, "h:1/bootstrap: Connection setup timed out in state SSL_HANDSHAKE", "keeps silent"),
        (KafkaError._TRANSPORT, "h:1/bootstrap: ApiVersionRequest failed: Local: Timed out: probably", "keeps silent"),
        (KafkaError._TRANSPORT, "h:1/bootstrap: something new", "look at bootstrap.servers"),
        (KafkaError._SSL, "ssl://h:1/bootstrap: something new", "look at sasl.* and ssl.*"),
    ],
)
def test_each_cause_is_told_with_what_to_do_about_it(code: int, said: str, remedy: str) -> None:
    assert remedy in in_full(KafkaError(code, said))


def test_words_that_differ_in_times_and_numbers_only_are_the_same() -> None:
    said = "a:1/bootstrap: refused"
    for times in ("after 0ms in state CONNECT", "after 12ms in state CONNECT, 31 identical error(s) suppressed"):
        assert without_times(f"{said} ({times})") == f"{said} (in state CONNECT)"
