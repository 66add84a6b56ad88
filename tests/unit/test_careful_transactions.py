"""After an unclean end with exactly-once delivery: suspects go apart while no other producer is there, and in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from outboxd.policy.careful import CAREFUL_SECONDS, GROUP_BYTES_MAX, Opening, PlannedEnd
from outboxd.policy.exchange.messages import DeliveryFault, ProgressRow, Report
from outboxd.policy.faults import fault_of, own_fault
from outboxd.policy.rows.records import Record
from outboxd.relay.publish.careful_transactions import SESSION_ROWS_MAX, CarefulTransactions
from tests.unit.test_careful import FakeJournal, FakePublisher, FakeTrial, row

CRASHED = DeliveryFault(own_fault("CRASHED_DAEMON"), "SIGKILL, then SIGKILL")


@dataclass
class FakeTransactions(FakePublisher):
    """The transactional publisher: what is delivered is a transaction."""

    number: int = 5
    rebuilt: int = 0
    recovering: list[tuple[int, str]] = field(default_factory=list)
    stated: list[Sequence[ProgressRow]] = field(default_factory=list)

    def restate(self, rows: Sequence[ProgressRow]) -> None:
        self.stated.append(rows)

    def committed(self) -> int | None:
        return self.number

    def rebuild(self) -> None:
        self.rebuilt += 1

    def begin_recover(self, settled: int, lineage: str) -> None:
        self.recovering.append((settled, lineage))

    def failure(self) -> DeliveryFault | None:
        # The process of the trial fences whatever is left of it.
        return DeliveryFault(fault_of(-144), "fenced") if self.rebuilt else None


@dataclass
class FakeTransactionTrial(FakeTrial):
    """The other process."""

    begun: list[tuple[int, str]] = field(default_factory=list)

    def begin(self, settled: int, lineage: str) -> None:
        self.begun.append((settled, lineage))


class Scene:
    """A careful publisher among fakes, whose owner begins after an unclean end."""

    def __init__(self, suspects: Sequence[int] = ()) -> None:
        self.publisher = FakeTransactions()
        self.journal = FakeJournal(Opening(False, frozenset(suspects)))
        self.trial = FakeTransactionTrial()
        self.told: list[str] = []
        self.now = 0.0
        self.careful = CarefulTransactions(
            self.publisher, self.journal, self.trial, self, lambda name, **_: self.told.append(name), rows_max=1_000
        )
        self.careful.begin_recover(5, "line")

    def monotonic(self) -> float:
        return self.now

    def publish(self, records: Sequence[Record]) -> int:
        """As the relay does in one turn: publish, then take the reports."""
        taken = self.careful.publish(records, 0)
        self.reports = self.careful.take_reports()
        self.careful.committed()
        return taken

    def commit(self, records: Sequence[Record]) -> None:
        self.publisher.number += 1
        self.publisher.deliver([record.id for record in records])
        self.careful.take_reports()
        self.careful.committed()

    def end_care(self) -> None:
        """A minute after the first report it ends, with whatever goes next."""
        self.publish([row(90)])
        self.journal.written = True
        assert self.publish([row(90)]) == 1
        self.commit([row(90)])
        self.settle()
        self.journal.written = True
        self.now += CAREFUL_SECONDS
        self.careful.take_reports()
        assert self.told[-1] == "careful_end"

    def settle(self) -> None:
        self.careful.settled(self.publisher.number)

    def answer(self, record_id: int, error: DeliveryFault | None = None) -> None:
        self.answer_all({record_id: error})

    def answer_all(self, answers: Mapping[int, DeliveryFault | None]) -> None:
        self.trial.reports += [
            Report(row(record_id), error, 0, None if error else 1, True) for record_id, error in answers.items()
        ]
        self.reports = self.careful.take_reports()


ROWS = [row(number) for number in range(1, 7)]


def test_windows_go_as_wholes_once_they_are_recorded_and_one_waits_for_the_other() -> None:
    scene = Scene()
    assert scene.publish(ROWS) == 0
    assert scene.journal.record_ids == [1, 2, 3, 4, 5, 6]
    assert scene.publish(ROWS) == 0
    scene.journal.written = True
    assert scene.publish(ROWS) == 6
    assert scene.publisher.published == [1, 2, 3, 4, 5, 6]
    assert scene.publish([row(7)]) == 0
    assert scene.journal.record_ids == [1, 2, 3, 4, 5, 6]
    scene.commit(ROWS)
    scene.publish([row(7)])
    assert scene.journal.record_ids == [7]


def test_suspects_go_to_the_other_process_together_once_all_before_them_is_settled_and_our_producer_is_gone() -> None:
    scene = Scene(suspects=[3, 4])
    scene.publish(ROWS)
    scene.journal.written = True
    assert scene.publish(ROWS) == 2
    assert scene.publisher.published == [1, 2]
    assert scene.publish(ROWS[2:]) == 0, "the first two are in the air"
    scene.commit(ROWS[:2])
    assert scene.publish(ROWS[2:]) == 0, "they are not settled"
    assert scene.trial.sent == []
    scene.settle()

    assert scene.publish(ROWS[2:]) == 2
    assert scene.publisher.rebuilt == 1
    assert scene.trial.begun == [(6, "line")]
    assert scene.trial.sent == [3, 4]
    assert scene.careful.failure() is None, "that ours is fenced is no failure meanwhile"
    assert scene.publish(ROWS[4:]) == 0
    scene.answer_all({3: None, 4: None})

    assert scene.reports == [], "the recovery tells what became of them"
    failure = scene.careful.failure()
    assert failure is not None
    assert isinstance(failure, PlannedEnd), "no failure"
    scene.careful.rebuild()
    scene.publisher.rebuilt = 0
    assert scene.careful.failure() is None


def test_of_two_hundred_suspects_the_one_that_kills_is_found_in_groups_and_refused_when_it_comes_again() -> None:
    suspects = range(1, 201)
    scene = Scene(suspects=suspects)
    assert scene.publish([row(number) for number in suspects]) == 200
    groups, told_before = [list(scene.trial.sent)], 0
    while scene.careful.failure() is None:
        group = groups[-1]
        scene.answer_all(dict.fromkeys(group, CRASHED if 100 in group else None))
        told_before += len(group)
        groups.append(scene.trial.sent[told_before:])

    assert [len(group) for group in groups] == [200, *[14] * 8, *[1] * 2, 0], "as few deaths as that"
    assert groups[-2] == [100]
    assert isinstance(scene.careful.failure(), PlannedEnd)
    assert scene.told.count("crashing_row_found") == 1
    scene.careful.rebuild()
    scene.careful.begin_recover(7, "line")
    rest = [row(number) for number in range(100, 201)]
    assert scene.publish(rest) == 1
    assert [(report.record.id, report.error) for report in scene.reports] == [(100, CRASHED)]
    assert scene.publish(rest[1:]) == 100
    assert scene.trial.begun == [(5, "line"), (7, "line")]
    scene.answer_all(dict.fromkeys(range(101, 201)))
    scene.careful.rebuild()
    # Its death may not have been written yet, should this process end.
    scene.publish([row(999)])
    assert scene.journal.record_ids == [100, 999]


def test_what_was_sent_back_since_another_suspect_failed_with_it_stays_one() -> None:
    scene = Scene(suspects=[1, 2, 3])
    scene.publish(ROWS)
    sent_back = DeliveryFault(own_fault("SENT_BACK"), "another row failed")
    scene.answer_all({1: None, 2: DeliveryFault(fault_of(10), "too large"), 3: sent_back})

    assert isinstance(scene.careful.failure(), PlannedEnd)
    scene.careful.rebuild()
    assert scene.publish(ROWS[2:]) == 1
    assert scene.trial.sent == [1, 2, 3, 3]


def test_large_suspects_go_in_groups_that_fit_into_a_pipe() -> None:
    scene = Scene(suspects=[1, 2, 3])
    assert scene.publish([row(number)._replace(size_bytes=GROUP_BYTES_MAX // 2) for number in (1, 2, 3)]) == 3
    assert scene.trial.sent == [1, 2]
    scene.answer_all({1: None, 2: None})
    assert scene.trial.sent == [1, 2, 3]


def test_a_suspect_that_the_broker_refuses_did_not_kill_and_goes_as_all_others_do() -> None:
    scene = Scene(suspects=[1])
    scene.publish(ROWS)
    scene.answer(1, DeliveryFault(fault_of(10), "too large"))
    scene.careful.rebuild()

    scene.publish(ROWS)
    scene.journal.written = True
    assert scene.publish(ROWS) == 6
    assert scene.publisher.published == [1, 2, 3, 4, 5, 6]


def test_a_suspect_whose_topic_is_missing_was_not_given_to_the_client_and_stays_recorded() -> None:
    scene = Scene(suspects=[1])
    scene.publish(ROWS[:1])
    scene.answer(1, DeliveryFault(fault_of(3), "no such topic"))
    scene.careful.rebuild()

    scene.publish([row(2)])
    assert scene.journal.record_ids == [1, 2]
    scene.journal.written = True
    scene.publish([row(2)])
    scene.commit([row(2)])
    scene.publish([row(1)])
    assert scene.journal.record_ids == [1]
    scene.journal.written = True
    assert scene.publish([row(1)]) == 1
    assert (scene.publisher.published, scene.trial.sent) == ([2, 1], [1])
    scene.commit([row(1)])
    scene.settle()
    scene.end_care()
    assert scene.journal.record_ids == [1]


def test_a_suspect_whose_process_lost_the_brokers_stays_one() -> None:
    scene = Scene(suspects=[1])
    scene.publish(ROWS)
    scene.answer(1, DeliveryFault(own_fault("NEVER_REPORTED"), "no broker"))
    scene.careful.rebuild()

    assert scene.publish(ROWS) == 1
    assert scene.trial.sent == [1, 1]


def test_a_session_has_no_more_rows_than_may_be_unsettled() -> None:
    scene = Scene(suspects=range(1, 501))

    assert scene.publish([row(number) for number in range(1, 501)]) == SESSION_ROWS_MAX


def test_a_lost_lease_ends_a_session() -> None:
    scene = Scene(suspects=[1])
    scene.publish(ROWS)
    scene.careful.purge()
    scene.careful.rebuild()

    assert scene.trial.abandoned
    scene.journal.now = Opening(True)
    assert scene.publish(ROWS) == 6


def test_a_suspect_of_a_batch_of_its_own_goes_apart_too() -> None:
    scene = Scene(suspects=[1])

    assert scene.careful.publish_alone(row(1))
    assert scene.trial.sent == [1]
    scene.answer(1)
    scene.careful.rebuild()
    assert not scene.careful.publish_alone(row(2))
    scene.journal.written = True
    assert scene.careful.publish_alone(row(2))
    assert scene.publisher.alone == [2]


def test_a_suspect_whose_turn_comes_after_the_end_of_care_goes_apart_once_all_that_went_freely_is_settled() -> None:
    scene = Scene(suspects=[3])
    scene.end_care()
    assert scene.journal.record_ids == [3]

    assert scene.publish(ROWS) == 2, "without a window"
    assert scene.publisher.published == [90, 1, 2]
    assert scene.publish(ROWS[2:]) == 0, "the first two are in the air"
    scene.commit(ROWS[:2])
    assert scene.publish(ROWS[2:]) == 0, "they are not settled"
    scene.settle()
    assert scene.publish(ROWS[2:]) == 1
    assert (scene.publisher.rebuilt, scene.trial.sent) == (1, [3])
    scene.answer(3)
    assert isinstance(scene.careful.failure(), PlannedEnd)

    scene.careful.rebuild()
    assert scene.publish(ROWS) == 6
    assert scene.careful.publish_alone(row(7))
    assert (scene.publisher.alone, scene.trial.sent) == ([7], [3])


def test_a_killer_that_was_committed_before_it_killed_again_is_never_given_again_and_care_ends_all_the_same() -> None:
    scene = Scene(suspects=[3])
    scene.publish(ROWS[2:])
    scene.answer(3, CRASHED)
    scene.careful.rebuild()

    scene.end_care()

    assert scene.publish(ROWS[3:]) == 3
    # Were it given again, it would be refused.
    assert scene.publish(ROWS[2:3]) == 1
    assert [(report.record.id, report.error) for report in scene.reports] == [(3, CRASHED)]


def test_what_a_session_committed_that_lasted_to_the_end_of_care_is_read() -> None:
    scene = Scene(suspects=[2])
    scene.publish(ROWS[:1])
    scene.journal.written = True
    scene.publish(ROWS[:1])
    scene.commit(ROWS[:1])
    scene.settle()
    assert scene.publish(ROWS[1:2]) == 1
    scene.now += CAREFUL_SECONDS
    scene.journal.written = True

    scene.answer(2)

    assert isinstance(scene.careful.failure(), PlannedEnd)


def test_suspects_do_not_wait_for_a_transaction_that_a_refused_row_keeps_from_being_settled() -> None:
    """It is stated by the progress records that come after it, whatever the other process does."""
    scene = Scene(suspects=[3])
    scene.publish(ROWS)
    scene.journal.written = True
    assert scene.publish(ROWS) == 2
    scene.commit(ROWS[:2])
    refused = [ProgressRow(1, 0, 1, False, 17)]
    scene.careful.restate(refused)
    assert scene.publisher.stated == [refused]

    scene.careful.restate([])
    assert scene.publish(ROWS[2:]) == 0, "all can be settled, so all is awaited"
    scene.careful.restate(refused)

    assert scene.publish(ROWS[2:]) == 1
    assert (scene.trial.sent, scene.trial.begun) == ([3], [(5, "line")])
