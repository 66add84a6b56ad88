"""What the relay relies on in a Publisher. The simulation's is held to the same truth as the one on Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from outboxd.policy.faults import FaultClass
from outboxd.policy.topics.partitioners import Placement
from tests.contract.publishers import REPORTS_SECONDS_MAX, KafkaBench, PublisherBench, SimulatedBench
from tests.simulation.database import Kind


@pytest.fixture(params=["simulated", "kafka"])
def bench(request: pytest.FixtureRequest) -> Iterator[PublisherBench]:
    made: PublisherBench = (
        KafkaBench(request.getfixturevalue("kafka")) if request.param == "kafka" else SimulatedBench()
    )
    yield made
    made.close()


def test_each_record_is_reported_once_with_its_place_and_a_partition_keeps_the_order(bench: PublisherBench) -> None:
    records = [bench.record(f"key-{number}") for number in range(50)]
    assert bench.publisher.publish(records, 0) == 50
    reports = bench.reports(50)
    assert {(report.error, report.partition, report.alone) for report in reports} == {(None, 0, False)}
    assert [report.record.id for report in reports] == [record.id for record in records]
    assert [report.offset for report in reports] == list(range(50))
    assert bench.log() == [record.id for record in records]
    assert bench.publisher.failure() is None


def test_where_keys_go_can_be_told_once_the_topic_was_met(bench: PublisherBench) -> None:
    bench.publisher.publish([bench.record("a")], 0)
    deadline = time.monotonic() + REPORTS_SECONDS_MAX
    for _ in range(2):
        while bench.publisher.placement(bench.topic) is None:
            assert time.monotonic() < deadline
            bench.publisher.poll(0.01)
        assert bench.publisher.placement(bench.topic) == Placement("consistent_random", 1)
        bench.publisher.misplaced(bench.topic)


def test_publishing_begins_at_the_index_that_is_asked_for(bench: PublisherBench) -> None:
    records = [bench.record(f"key-{number}") for number in range(5)]
    assert bench.publisher.publish(records, 3) == 5
    assert [report.record.id for report in bench.reports(2)] == [records[3].id, records[4].id]


def test_a_record_that_the_client_refuses_is_reported_as_alone_and_its_neighbours_go(bench: PublisherBench) -> None:
    good, refused, other = bench.record("a"), bench.record("b", Kind.REFUSED), bench.record("c")
    assert bench.publisher.publish([good, refused, other], 0) == 3
    reports = {report.record.id: report for report in bench.reports(3)}
    error = reports[refused.id].error
    assert error is not None
    assert error.fault.fault_class is FaultClass.ROW_PERMANENT
    assert reports[refused.id].alone
    assert reports[good.id].error is None
    assert reports[other.id].error is None


def test_a_poison_record_fails_its_whole_batch_with_a_code_that_says_so(bench: PublisherBench) -> None:
    # The real one may know the topic's limit beforehand and send the record alone: then only it fails, and at once.
    records = [bench.record(f"key-{number}", Kind.POISON if number == 3 else Kind.GOOD) for number in range(8)]
    bench.publisher.publish(records, 0)
    reports = {report.record.id: report for report in bench.reports(8)}
    poisoned = reports[records[3].id]
    assert poisoned.error is not None
    assert poisoned.error.fault.batch_wide
    failed = [report for report in reports.values() if report.error is not None]
    assert len(failed) == (1 if poisoned.alone else 8)
    assert all(report.error is not None and report.error.fault.batch_wide for report in failed)


def test_suspects_sent_alone_are_told_apart(bench: PublisherBench) -> None:
    good, poison = bench.record("a"), bench.record("b", Kind.POISON)
    for record in (good, poison):
        assert bench.publisher.publish_alone(record)
    reports = {report.record.id: report for report in bench.reports(2)}
    assert (reports[good.id].error, reports[good.id].alone) == (None, True)
    assert reports[poison.id].alone
    assert reports[poison.id].error is not None
    assert bench.log() == [good.id]


def test_after_a_rebuild_no_report_of_the_former_producer_comes_and_the_next_one_works(bench: PublisherBench) -> None:
    bench.publisher.publish([bench.record("a")], 0)
    bench.publisher.rebuild()
    after = bench.record("b")
    bench.publisher.publish([after], 0)
    assert [report.record.id for report in bench.reports(1)] == [after.id]
    assert bench.publisher.take_reports() == []
    assert after.id in bench.log()


def test_what_was_purged_before_it_was_sent_is_not_reported_as_delivered(bench: PublisherBench) -> None:
    bench.publisher.publish([bench.record("a")], 0)
    bench.publisher.purge()
    after = bench.record("b")
    bench.publisher.publish([after], 0)
    delivered = [report.record.id for report in bench.reports(1) if report.error is None]
    assert set(delivered) <= {after.id}
