"""What a reload takes at once, and what it leaves to the next start."""

from __future__ import annotations

from typing import Any

import pytest

from outboxd.config import KafkaSettings, LogSettings, RelaySettings, RetrySettings, RouteSettings, Settings
from outboxd.config.model import SECTIONS
from outboxd.config.sections import (
    ClusterSettings,
    DatabaseSettings,
    HousekeepingSettings,
    HttpSettings,
    OutboxSettings,
)
from outboxd.daemon.reload import NEEDS_RESTART, Reload, compare

BROKERS = {"bootstrap.servers": "a:9092", "sasl.username": "relay", "sasl.password": "old"}
PRESENT = Settings(kafka=KafkaSettings(properties=BROKERS))


def reload(**sections: object) -> Reload:
    return compare(PRESENT, PRESENT.model_copy(update=sections))


def test_the_same_configuration_changes_nothing() -> None:
    assert compare(PRESENT, PRESENT.model_copy()) == Reload(PRESENT, (), (), renews=False)


def test_limits_intervals_retries_retentions_and_the_level_are_taken_at_once() -> None:
    answer = reload(
        relay=RelaySettings(batch_rows=10, sweep_interval_seconds=1.0),
        retry=RetrySettings(max_attempts=3),
        housekeeping=HousekeepingSettings(published_retention_seconds=60.0),
        log=LogSettings(level="debug"),
        database=DatabaseSettings(password="new"),
        http=HttpSettings(token="new"),
    )
    assert set(answer.taken) == {
        "relay.batch_rows",
        "relay.sweep_interval",
        "retry.max_attempts",
        "housekeeping.published_retention",
        "log.level",
        "database.password",
        "http.token",
    }
    assert not answer.waiting
    assert not answer.renews
    assert answer.settings.relay.batch_rows == 10


@pytest.mark.parametrize(
    ("changed", "renews"),
    [
        ({"max_in_flight_rows": 60_000}, True),
        ({"max_in_flight_bytes": 64 << 20}, True),
        ({"max_in_flight_rows": 40_000, "max_in_flight_bytes": 1 << 20}, False),
    ],
)
def test_a_limit_that_grows_beyond_the_producers_queue_takes_a_new_producer(
    changed: dict[str, Any], *, renews: bool
) -> None:
    answer = reload(relay=RelaySettings(**changed))
    assert set(answer.taken) == {f"relay.{name}" for name in changed}
    assert answer.renews == renews


def test_a_certificate_that_was_renewed_in_its_place_takes_a_new_producer() -> None:
    answer = compare(PRESENT, PRESENT.model_copy(), rewritten=["ssl.certificate.location"])
    assert (answer.taken, answer.renews) == (("kafka.ssl.certificate.location",), True)


def test_one_that_has_another_path_too_is_named_once() -> None:
    properties = {**BROKERS, "ssl.certificate.location": "new.crt"}
    wanted = PRESENT.model_copy(update={"kafka": KafkaSettings(properties=properties)})
    assert compare(PRESENT, wanted, rewritten=["ssl.certificate.location"]).taken == ("kafka.ssl.certificate.location",)


def test_with_exactly_once_delivery_the_producers_queue_does_not_depend_on_the_limits() -> None:
    present, wanted = (
        PRESENT.model_copy(update={"relay": RelaySettings(delivery="exactly-once", max_in_flight_rows=rows)})
        for rows in (1_000, 60_000)
    )
    assert not compare(present, wanted).renews


def test_what_binds_for_life_keeps_its_old_value_and_is_named() -> None:
    answer = reload(
        database=DatabaseSettings(url="postgresql://other/other", schema_="other"),
        outbox=OutboxSettings(name="other"),
        relay=RelaySettings(after_publish="delete", delivery="exactly-once", listen=True, batch_rows=7),
        cluster=ClusterSettings(lease_ttl_seconds=3.0),
        http=HttpSettings(listen=""),
        log=LogSettings(format="json"),
    )
    assert answer.taken == ("relay.batch_rows",)
    assert set(answer.waiting) == {
        "database.url",
        "database.schema",
        "outbox.name",
        "relay.after_publish",
        "relay.delivery",
        "relay.listen",
        "cluster.lease_ttl",
        "http.listen",
        "log.format",
    }
    assert answer.settings == PRESENT.model_copy(update={"relay": RelaySettings(batch_rows=7)})


@pytest.mark.parametrize(
    ("present", "wanted", "waiting"),
    [
        (
            DatabaseSettings(url="postgresql://u@old/d", password="old"),
            DatabaseSettings(url="postgresql://u@new/d", password="new", password_file="new"),
            ("database.url", "database.password", "database.password_file"),
        ),
        (
            DatabaseSettings(url="postgresql://u@h/d", password="old"),
            DatabaseSettings(url="postgresql://u:old@h/d"),
            ("database.url", "database.password"),
        ),
    ],
)
def test_a_password_waits_with_the_url_that_it_belongs_to(
    present: DatabaseSettings, wanted: DatabaseSettings, waiting: tuple[str, ...]
) -> None:
    before = PRESENT.model_copy(update={"database": present})
    answer = compare(before, PRESENT.model_copy(update={"database": wanted}))
    assert answer == Reload(before, (), waiting, renews=False)


def test_a_token_waits_with_the_address_that_it_guards() -> None:
    before = PRESENT.model_copy(update={"http": HttpSettings(listen="0.0.0.0:1", token="t", token_file="f")})
    answer = compare(before, PRESENT)
    assert answer == Reload(before, (), ("http.listen", "http.token", "http.token_file"), renews=False)


def test_every_name_that_needs_a_restart_is_a_setting() -> None:
    known = {f"{name}.{key}" for name, model in SECTIONS.items() for key in model.fields_by_key()}
    for name in NEEDS_RESTART:
        assert name.startswith("kafka.") or any(key.startswith(name) for key in known), name


@pytest.mark.parametrize(
    ("properties", "renews"),
    [
        ({**BROKERS, "sasl.password": "new"}, False),
        ({**BROKERS, "bootstrap.servers": "b:9092"}, True),
        ({**BROKERS, "linger.ms": "7"}, True),
        ({"bootstrap.servers": "a:9092"}, False),
    ],
)
def test_rotated_credentials_need_no_new_producer_and_other_properties_do(
    properties: dict[str, str], renews: bool
) -> None:
    answer = reload(kafka=KafkaSettings(properties=properties))
    assert answer.renews is renews
    assert answer.settings.kafka.properties == properties


def test_a_limit_of_the_client_that_the_database_side_knows_too_waits_for_a_restart() -> None:
    answer = reload(kafka=KafkaSettings(properties={**BROKERS, "message.max.bytes": "2000000"}))
    assert answer.waiting == ("kafka.message.max.bytes",)
    assert answer.settings.kafka.properties == BROKERS
    assert not answer.renews


@pytest.mark.parametrize("wanted", [{"message.max.bytes": "3000000"}, {}], ids=["changed", "left out"])
def test_a_limit_of_the_client_that_waits_for_a_restart_keeps_its_old_value_until_then(wanted: dict[str, str]) -> None:
    properties = {**BROKERS, "message.max.bytes": "2000000"}
    present = PRESENT.model_copy(update={"kafka": KafkaSettings(properties=properties)})

    answer = compare(present, PRESENT.model_copy(update={"kafka": KafkaSettings(properties={**BROKERS, **wanted})}))

    assert answer == Reload(present, (), ("kafka.message.max.bytes",), renews=False)


def test_a_queue_of_the_client_waits_with_the_size_of_the_records_that_it_has_room_for() -> None:
    smaller = {"message.max.bytes": "100000", "queue.buffering.max.kbytes": "100"}
    answer = reload(kafka=KafkaSettings(properties={**BROKERS, **smaller}))
    assert answer.waiting == ("kafka.message.max.bytes", "kafka.queue.buffering.max.kbytes")
    assert answer.settings.kafka.properties == BROKERS


def test_with_exactly_once_rotated_credentials_come_with_a_new_producer() -> None:
    present = PRESENT.model_copy(update={"relay": RelaySettings(delivery="exactly-once")})
    wanted = present.model_copy(update={"kafka": KafkaSettings(properties={**BROKERS, "sasl.password": "new"})})
    assert compare(present, wanted).renews


def test_another_form_of_confirmation_begins_anew_and_another_limit_of_retries_does_not() -> None:
    present = PRESENT.model_copy(update={"routes": (RouteSettings(topic="a"),)})
    each = present.model_copy(update={"routes": (RouteSettings(topic="a", confirm="each"),)})
    hold = present.model_copy(update={"routes": (RouteSettings(topic="a", on_dead_letter="hold-key"),)})
    assert (compare(present, each).renews, compare(present, hold).renews) == (True, False)
    assert compare(present, hold).taken == ("route",)


def test_routes_that_contradict_a_value_which_has_to_wait_wait_with_it() -> None:
    present = PRESENT.model_copy(update={"relay": RelaySettings(delivery="exactly-once")})
    wanted = PRESENT.model_copy(update={"routes": (RouteSettings(topic="lossy.*", confirm="none"),)})
    answer = compare(present, wanted)
    assert answer.waiting == ("relay.delivery", "route")
    assert answer.settings.routes == ()
    assert answer.taken == ()
