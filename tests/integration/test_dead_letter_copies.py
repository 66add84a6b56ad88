"""Copies of dead letters in Kafka: at least one of each, with the headers that the ecosystem's tools read."""

from __future__ import annotations

import struct

from tests.support.kafka_admin import KafkaRecord
from tests.support.kafka_fixtures import fresh_name
from tests.support.rig import Rig
from tests.support.rows import value


def headers_of(record: KafkaRecord) -> dict[str, bytes | None]:
    return dict(record.headers)


def test_each_dead_letter_is_copied_with_its_cause(rig: Rig) -> None:
    topic, copies = rig.topic(partitions=2), fresh_name("dead")
    rig.kafka.create_topic(copies, partitions=1)
    before = rig.insert(topic, "reserved", headers='{"outbox-id": "7"}')
    assert rig.daemon().run("--until-empty").code == 0  # It died while nothing was copied.
    plain = rig.insert(topic, "key-1", b"payload", headers='{"trace": "t1", "empty": null}', partition=9)
    huge = rig.insert(topic, "key-2", b"x" * 1_200_000)
    long_key = rig.insert(topic, "k" * 1_100_000, b"x")
    illegal = rig.insert("no topic! " * 100, None, None)
    daemon = rig.daemon(alerts={"dead_letter_topic": copies})
    daemon.start()
    rig.wait_until("SELECT count(*) = 5 FROM outboxd.dead_letter WHERE copied_at >= died_at")
    assert daemon.stop().code == 0

    records = {int(headers_of(record)["outbox-id"] or b""): record for record in rig.kafka.consume(copies)}
    letters = rig.dead_letters()
    assert records.keys() == letters.keys() == {before, plain, huge, long_key, illegal}
    for row_id, record in records.items():
        headers, letter = headers_of(record), letters[row_id]
        event_id = value(rig.sql, "SELECT event_id::text FROM outboxd.dead_letter WHERE outbox_id = %s", row_id)
        assert headers["outbox-event-id"] == event_id.encode()
        assert headers["outbox-source"] == b"default"
        assert headers["outbox-dead-letter-id"] == str(letter["id"]).encode()
        assert headers["__connect.errors.exception.class.name"] == letter["error_code"].encode()
        assert headers["__connect.errors.exception.message"] == letter["error_message"].encode()
        assert headers["__connect.errors.stage"] == b"KAFKA_PRODUCE"
        assert headers["kafka_dlt-exception-fqcn"] == letter["error_code"].encode()
        assert headers["kafka_dlt-original-topic"] == headers["__connect.errors.topic"]
    copy = records[plain]
    assert (copy.key, copy.value) == (b"key-1", b"payload")
    headers = headers_of(copy)
    assert (headers["trace"], headers["empty"]) == (b"t1", None)
    assert headers["kafka_dlt-original-topic"] == topic.encode()
    assert headers["__connect.errors.partition"] == b"9"
    assert headers["kafka_dlt-original-partition"] == struct.pack(">i", 9)
    assert (records[huge].key, records[huge].value) == (b"key-2", None)
    assert headers_of(records[huge])["outbox-payload-left-out-bytes"] == b"1200000"
    assert records[long_key].key is None
    assert (records[illegal].key, records[illegal].value) == (None, None)
    assert len(headers_of(records[illegal])["__connect.errors.topic"] or b"") < 310


def test_copies_wait_for_their_topic_and_a_second_death_is_copied_again(rig: Rig) -> None:
    copies = fresh_name("dead")
    rig.insert("no topic!", "k")
    daemon = rig.daemon(alerts={"dead_letter_topic": copies})
    daemon.start()
    failed = daemon.wait_for_event("job_failed", job="copy_dead_letters", timeout_seconds=90)
    assert copies in failed["cause"]
    assert rig.count("SELECT count(*) FROM outboxd.dead_letter WHERE copied_at IS NULL") == 1

    rig.kafka.create_topic(copies, partitions=1)
    rig.wait_until("SELECT bool_and(copied_at >= died_at) FROM outboxd.dead_letter", timeout_seconds=60)
    rig.sql.execute("SELECT outboxd.replay(id, force => true) FROM outboxd.dead_letter")
    rig.wait_until("SELECT status = 'dead' AND copied_at >= died_at AND note IS NOT NULL FROM outboxd.dead_letter")
    assert daemon.stop().code == 0
    assert [headers_of(record)["outbox-dead-letter-id"] for record in rig.kafka.consume(copies)] == [b"1", b"1"]
