"""How old a failed record is by its own doing, over restarts too."""

from __future__ import annotations

from outboxd.policy.topics.topic_holds import HoldReason, TopicHolds
from outboxd.relay.report.histories import Histories
from tests.unit.records import record


def test_a_record_ages_from_its_first_counted_failure_but_not_while_its_topic_is_held() -> None:
    topics = TopicHolds()
    histories = Histories(topics)
    failed = record(1)
    assert histories.own_age_seconds(failed, 10.0) == 0.0

    histories.ages(1, failed.topic, 10.0)
    histories.ages(1, failed.topic, 12.0)
    topics.hold(failed.topic, HoldReason.BREAKER, 15.0)
    assert histories.own_age_seconds(failed, 99.0) == 5.0
    topics.release(failed.topic, HoldReason.BREAKER, 100.0)

    assert histories.own_age_seconds(failed, 101.0) == 6.0


def test_a_record_is_as_old_for_the_next_owner_as_it_was_at_the_last_failure_that_was_counted() -> None:
    histories = Histories(TopicHolds())
    failed = record(1)

    histories.ages(1, failed.topic, 10.0, 90.0)

    assert histories.own_age_seconds(failed, 15.0) == 95.0
