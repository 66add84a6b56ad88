"""What the relay relies on in a Publisher. The simulation's is held to the same truth as the one on Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from outboxd.policy.exchange.messages import ChainFailure, Report
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


# Records of one key that go together.


def ended_chain(bench: PublisherBench) -> tuple[ChainFailure, list[int], set[int]]:
    """Wait for the failure and end the chains: why, what was delivered, and what is in no log."""
    delivered: list[Report] = []
    deadline = time.monotonic() + REPORTS_SECONDS_MAX
    while (failure := bench.publisher.chain_failure()) is None:
        assert time.monotonic() < deadline
        delivered += bench.serve()
    unwritten = set(bench.publisher.end_chains())
    delivered += bench.publisher.take_reports()
    assert all(report.error is None for report in delivered), "a failure of these is nobody's outcome"
    return failure, [report.record.id for report in delivered], unwritten


def test_none_is_taken_while_the_producer_connects_and_they_go_by_themselves_meanwhile(bench: PublisherBench) -> None:
    first, others = bench.record(), [bench.record() for _ in range(3)]
    assert bench.publisher.publish_chain([first, *others]) == 0
    assert bench.publisher.publish([first], 0) == 1
    assert [report.record.id for report in bench.reports(1)] == [first.id]
    assert bench.publish_chain(others) == 3
    assert [report.record.id for report in bench.reports(3)] == [record.id for record in others]


def test_records_that_go_together_are_delivered_and_reported_in_order(bench: PublisherBench) -> None:
    records = [bench.record() for _ in range(50)]
    assert bench.publish_chain(records) == 50
    reports = bench.reports(50)
    assert [report.record.id for report in reports] == [record.id for record in records]
    assert [report.offset for report in reports] == list(range(50))
    assert {(report.error, report.partition, report.alone) for report in reports} == {(None, 0, False)}
    assert bench.log() == [record.id for record in records]
    assert bench.publisher.chain_failure() is None


@pytest.mark.parametrize("poison_at", [0, 3, 25])
def test_where_one_of_them_fails_what_was_delivered_is_their_beginning_and_the_next_ones_go(
    bench: PublisherBench, poison_at: int
) -> None:
    bench.forget_limits()
    records = [bench.record(kind=Kind.POISON if number == poison_at else Kind.GOOD) for number in range(30)]
    ids = [record.id for record in records]
    assert bench.publish_chain(records) == 30
    failure, delivered, unwritten = ended_chain(bench)
    assert failure.topic == bench.topic
    assert failure.error.fault.name == "MSG_SIZE_TOO_LARGE"
    assert delivered == ids[: len(delivered)]
    assert len(delivered) <= poison_at
    assert unwritten == set(ids[len(delivered) :])
    # What is left goes again by itself, and the next ones may go together.
    again = [record for record in records if record.id in unwritten and record.id != ids[poison_at]]
    assert bench.publish_chain(again) == len(again)
    assert [report.record.id for report in bench.reports(len(again))] == [record.id for record in again]
    assert bench.log() == [record_id for record_id in ids if record_id != ids[poison_at]]


def test_from_a_failure_on_none_is_taken_until_they_are_ended(bench: PublisherBench) -> None:
    bench.forget_limits()
    assert bench.publish_chain([bench.record(kind=Kind.POISON), bench.record()]) == 2
    later = [bench.record("later"), bench.record("later")]
    deadline = time.monotonic() + REPORTS_SECONDS_MAX
    while bench.publisher.chain_failure() is None:
        assert time.monotonic() < deadline
        bench.serve()
    assert bench.publisher.publish_chain(later) == 0
    assert bench.publisher.publish(later, 0) == 2, "by themselves they go"
    bench.publisher.end_chains()
    assert bench.publish_chain([bench.record("z")]) == 1
    assert len(bench.reports(3)) == 3


def test_a_record_that_the_client_refuses_ends_what_is_taken_of_them_before_it(bench: PublisherBench) -> None:
    good, refused, other = bench.record(), bench.record(kind=Kind.REFUSED), bench.record()
    assert bench.publish_chain([good, refused, other]) == 1
    assert [report.record.id for report in bench.reports(1)] == [good.id]
    assert bench.publisher.publish_chain([refused, other]) == 0
    assert bench.publisher.chain_failure() is None
    assert bench.log() == [good.id]


def test_after_a_rebuild_no_report_of_records_that_went_together_comes(bench: PublisherBench) -> None:
    bench.publish_chain([bench.record() for _ in range(5)])
    bench.publisher.rebuild()
    after = [bench.record("b"), bench.record("b")]
    assert bench.publish_chain(after) == 2
    assert [report.record.id for report in bench.reports(2)] == [record.id for record in after]
    assert bench.publisher.take_reports() == []
