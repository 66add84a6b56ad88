"""Transactions on a client and a broker of the test's own: who is blamed, who goes again, and when none goes at all."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd.kafka.client.client_config import ANY_PARTITION, empty_key_partition
from outboxd.kafka.messages import MessageChecks
from outboxd.kafka.transactional import transaction_client as module
from outboxd.kafka.transactional import transactional_producer
from outboxd.kafka.transactional.progress import ProgressRecord, decode
from outboxd.kafka.transactional.transaction_client import TransactionClient
from outboxd.kafka.transactional.transactional_producer import TransactionalProducer, TransactionsEndedError
from outboxd.kafka.transactional.transactional_publisher import TransactionalPublisher
from outboxd.kafka.transactional.transactions import Transactions
from outboxd.kafka.transactional.verdicts import Way
from outboxd.policy.blame.fencings import FENCED_CODES
from outboxd.policy.exchange.messages import Report
from outboxd.policy.rows.records import Arm, Record

PROGRESS = "progress"
TOO_LARGE_BYTES = 1_000


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OTHERS_SECONDS", 0.0)
    monkeypatch.setattr(module, "REPORTS_SECONDS_MAX", 0.05)
    monkeypatch.setattr(module, "PROBE_SECONDS_MAX", 0.05)


@dataclass
class Broker:
    """What was committed, in its order, and what the transactions were."""

    committed: list[int] = field(default_factory=list)
    progress: list[ProgressRecord] = field(default_factory=list)
    transactions: list[tuple[Way, str, int]] = field(default_factory=list)
    epoch: int = 0
    refuses: Callable[[str, bytes], int | None] = lambda _topic, payload: (
        KafkaError.MSG_SIZE_TOO_LARGE if len(payload) > TOO_LARGE_BYTES else None
    )
    missing: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    causeless_aborts: int = 0
    partitions_by_key: dict[str | None, int] = field(default_factory=dict)
    """What `produce()` was told."""


class Client:
    """A transactional producer as librdkafka behaves: a batch shares its verdict, after which nothing more is sent."""

    def __init__(self, broker: Broker, way: Way) -> None:
        self.broker, self.way = broker, way
        self.queue: list[tuple[str, bytes, Any]] = []
        self.open: list[tuple[str, bytes, Any]] = []
        self.failed = False

    def init_transactions(self, _seconds: float) -> None:
        self.broker.epoch += 1
        self.epoch = self.broker.epoch

    def begin_transaction(self) -> None:
        self.queue, self.open, self.failed = [], [], False

    def produce(self, topic: str, payload: bytes, *rest: Any, **_: Any) -> None:
        if topic == PROGRESS:
            self.open.append((topic, payload, None))
        else:
            self.broker.partitions_by_key[rest[0]] = rest[1]
            self.queue.append((topic, payload, rest[2]))

    def flush(self, seconds: float) -> None:
        self.poll(seconds)

    def poll(self, _seconds: float) -> None:
        queue, self.queue = self.queue, []
        if self.failed:
            return
        if self.way is Way.LONE:
            batches = [[entry] for entry in queue]
        else:
            batches = [list(group) for _, group in itertools.groupby(sorted(queue, key=lambda e: e[0]), lambda e: e[0])]
        for batch in batches:
            topic = batch[0][0]
            if topic in self.broker.silent or self.failed:
                continue
            code = next((c for t, payload, _ in batch if (c := self.broker.refuses(t, payload)) is not None), None)
            if code is not None:
                self.failed = True
            for entry in batch:
                error = None if code is None else KafkaError(code)
                entry[2](error, SimpleNamespace(partition=lambda: 0, offset=lambda: 7))
                if error is None:
                    self.open.append(entry)

    def commit_transaction(self, _seconds: float) -> None:
        if self.epoch != self.broker.epoch:
            raise KafkaException(KafkaError(KafkaError._FENCED, "fenced", True))
        if self.broker.causeless_aborts:
            self.broker.causeless_aborts -= 1
            raise KafkaException(KafkaError(KafkaError._STATE, "abort it", False, False, True))
        for topic, payload, record in self.open:
            if topic == PROGRESS:
                self.broker.progress.append(decode(payload))
            else:
                self.broker.committed.append(record.id)
        self.broker.transactions.append((self.way, "commit", len(self.open) - 1))

    def abort_transaction(self, _seconds: float) -> None:
        self.broker.transactions.append((self.way, "abort", len(self.open)))
        self.open = []

    def purge(self, **_: Any) -> None: ...

    def __len__(self) -> int:
        return len(self.queue)

    def list_topics(self, topic: str, timeout: float) -> Any:
        del timeout
        error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if topic in self.broker.missing else None
        return SimpleNamespace(topics={topic: SimpleNamespace(error=error, partitions={0: None})})


def transactions_on(broker: Broker, **options: Any) -> Transactions:
    make: type[Client] = options.pop("make", Client)
    client = TransactionClient(
        lambda way: cast(Any, make(broker, way)),
        MessageChecks("default", 1_000_000, empty_key_partition({})),
        topic=PROGRESS,
        read_above=lambda number, _: [record for record in broker.progress if record.number > number],
        is_wanted=options.pop("is_wanted", lambda: True),
    )
    client.fence()
    client.begin("here", broker.progress[-1].number if broker.progress else 0)
    return Transactions(client)


def deliver(transactions: Transactions, records: Sequence[Record]) -> list[Report]:
    """Deliver them; return all reports, whenever they were told."""
    told: list[Report] = []
    reports = transactions.deliver(records, [], told.extend)
    return told + reports


def record(record_id: int, *, topic: str = "t", key: str | None = None, payload_bytes: int = 10) -> Record:
    payload = b"x" * payload_bytes
    event_id = str(UUID(int=record_id))
    return Record(Arm.FORWARD, record_id, event_id, topic, key, payload, "{}", None, 1_000, payload_bytes)


def split(reports: Sequence[Report]) -> tuple[list[int], dict[int, str], list[int]]:
    """Delivered ids, failed ids with their codes, ids that were sent back."""
    delivered = [report.record.id for report in reports if report.error is None]
    failed = {r.record.id: r.error.fault.name for r in reports if r.error is not None}
    back = [record_id for record_id, name in failed.items() if name == "SENT_BACK"]
    return delivered, {i: name for i, name in failed.items() if name != "SENT_BACK"}, back


def test_records_of_the_empty_key_meet_in_one_partition_and_the_partitioner_places_all_others() -> None:
    broker = Broker()

    deliver(transactions_on(broker), [record(1, key=""), record(2, key="k"), record(3, key=None)])

    assert broker.partitions_by_key == {"": 0, "k": ANY_PARTITION, None: ANY_PARTITION}


def test_one_transaction_delivers_a_sound_batch_and_says_where_each_row_went() -> None:
    broker = Broker()
    reports = deliver(transactions_on(broker), [record(n) for n in range(1, 6)])
    assert split(reports)[0] == broker.committed == [1, 2, 3, 4, 5]
    assert [(row.outbox_id, row.offset) for row in broker.progress[0].rows] == [(n, 7) for n in range(1, 6)]
    assert broker.transactions == [(Way.SHARED, "commit", 5)]


@settings(max_examples=60)
@given(st.data())
def test_only_poison_is_blamed_and_all_others_are_delivered_or_sent_back_behind_it(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 700))
    poison = data.draw(st.sets(st.integers(1, rows), min_size=1, max_size=4))
    broker = Broker()
    batch = [
        record(n, key=None if n % 3 == 0 else f"k{n % 7}", payload_bytes=5_000 if n in poison else 10)
        for n in range(1, rows + 1)
    ]

    delivered, failed, back = split(deliver(transactions_on(broker), batch))

    assert set(failed) <= poison
    assert set(failed.values()) <= {"MSG_SIZE_TOO_LARGE"}
    assert failed, "at least one is found in each call"
    assert sorted([*delivered, *failed, *back]) == list(range(1, rows + 1))
    assert sorted(delivered) == sorted(broker.committed)
    keys_of_failed = {batch[n - 1].key: n for n in sorted(failed, reverse=True)}
    for n in back:
        first = keys_of_failed.get(batch[n - 1].key)
        assert n in poison or (first is not None and first < n)
    for key in {row.key for row in batch if row.key}:
        order = [n for n in broker.committed if batch[n - 1].key == key]
        assert order == sorted(order)


def test_a_poison_row_among_thousands_is_found_in_few_transactions() -> None:
    broker = Broker()
    batch = [record(n, payload_bytes=5_000 if n == 4_321 else 10) for n in range(1, 10_001)]
    delivered, failed, back = split(deliver(transactions_on(broker), batch))
    assert (len(delivered), failed, back) == (9_999, {4_321: "MSG_SIZE_TOO_LARGE"}, [])
    assert sum(outcome == "abort" for _, outcome, _ in broker.transactions) <= 8


def test_of_a_row_that_the_broker_refuses_and_a_later_one_of_its_key_that_the_client_does_the_first_is_blamed() -> None:
    class RefusingClient(Client):
        def produce(self, topic: str, payload: bytes, *rest: Any, **named: Any) -> None:
            if len(payload) > 9_000:
                raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
            super().produce(topic, payload, *rest, **named)

    batch = [
        record(1, key="k"),
        record(2, key="k", payload_bytes=5_000),
        record(3, key="k", payload_bytes=9_500),
        record(4, key="k"),
        record(5, key="other", payload_bytes=9_500),
    ]
    delivered, failed, back = split(deliver(transactions_on(Broker(), make=RefusingClient), batch))
    assert delivered == [1]
    assert failed == {2: "MSG_SIZE_TOO_LARGE", 5: "MSG_SIZE_TOO_LARGE"}
    assert sorted(back) == [3, 4]


def test_what_was_committed_and_who_is_to_die_is_told_before_the_next_transaction_begins() -> None:
    broker = Broker()
    transactions = transactions_on(broker)
    batch = [record(n, key=f"k{n}", payload_bytes=5_000 if n in (5, 9) else 10) for n in range(1, 13)]
    told: list[list[int]] = []
    committed: list[list[int]] = []

    def tell(reports: list[Report]) -> None:
        told.append([report.record.id for report in reports])
        committed.append(list(broker.committed))

    reports = transactions.deliver(batch, [], tell)

    assert told == [[], [5], [1, 2, 3, 4], [9], [6, 7, 8]]
    assert committed == [[], [], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4, 6, 7, 8]]
    assert split(reports) == ([10, 11, 12], {}, [])


def test_who_is_to_die_is_told_with_what_stands_behind_and_no_sooner_than_all_before_it_in_its_key_is_through() -> None:
    broker = Broker()
    transactions = transactions_on(broker)
    key_of = {1: "a", 3: "a", 2: "b", 5: "a", 6: "b"}
    batch = [record(n, key=key_of.get(n, f"k{n}"), payload_bytes=5_000 if n in (2, 3) else 10) for n in range(1, 8)]
    told: list[tuple[list[int], dict[int, str], list[int]]] = []

    reports = transactions.deliver(batch, [], lambda reports: told.append(split(reports)))

    assert told[:3] == [([], {}, []), ([], {2: "MSG_SIZE_TOO_LARGE"}, [6]), ([1], {}, [])]
    assert [each[1:] for each in told[3:]] == [({3: "MSG_SIZE_TOO_LARGE"}, [5])]
    assert split(reports) == ([4, 7], {}, [])


@pytest.mark.parametrize("why", ["a record failed", "the library wants it"])
def test_an_aborted_producer_is_destroyed_where_nobody_waits_for_its_threads(why: str) -> None:
    destroyed_on: SimpleQueue[str] = SimpleQueue()

    class MortalClient(Client):
        def __del__(self) -> None:
            destroyed_on.put(threading.current_thread().name)

    broker = Broker(causeless_aborts=int(why != "a record failed"))
    transactions = transactions_on(broker, make=MortalClient)
    deliver(transactions, [record(1, payload_bytes=5_000 if why == "a record failed" else 10), record(2)])
    assert destroyed_on.get(timeout=10) == "former-producer"


def test_a_producer_that_is_let_go_of_has_reported_all_that_it_had() -> None:
    made: list[Client] = []

    class ClosedClient(Client):
        """Tells nothing before it is purged."""

        is_purged = False

        def __init__(self, broker: Broker, way: Way) -> None:
            super().__init__(broker, way)
            made.append(self)

        def poll(self, _seconds: float) -> None:
            if self.is_purged and self.queue:
                # One at a time, and each with a fatal error behind it.
                self.queue.pop()[2](KafkaError(KafkaError._PURGE_QUEUE), SimpleNamespace(partition=lambda: 0))
                raise KafkaException(KafkaError(KafkaError._FENCED, "fenced", True))

        def purge(self, **_: Any) -> None:
            self.is_purged = True

    transactions = transactions_on(Broker(), make=ClosedClient)
    producer = transactions.client._producer
    assert producer is not None
    deliver(transactions, [record(1), record(2)])
    assert [len(client) for client in made] == [0], "the transaction had no answer and was aborted"
    assert len(producer.inbox) == 0


def test_a_worker_that_is_replaced_lets_go_of_its_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go: SimpleQueue[TransactionClient] = SimpleQueue()

    def note(client: TransactionClient) -> None:
        let_go.put(client)

    monkeypatch.setattr(TransactionClient, "drop_producer", note)
    publisher = TransactionalPublisher({}, lambda _: None, source="default", schema="outboxd")
    former = publisher._client
    publisher.rebuild()
    assert let_go.get(timeout=10) is former
    assert publisher._client is not former
    publisher.close()


@pytest.mark.parametrize("heals", [True, False])
def test_a_row_that_failed_while_its_topic_was_sick_is_asked_again_before_it_is_blamed(heals: bool) -> None:
    def refuses(_topic: str, payload: bytes) -> int | None:
        is_sick = aborts_of(broker) < 2
        return KafkaError.INVALID_TIMESTAMP if is_sick or (len(payload) == 11 and not heals) else None

    broker = Broker(refuses=refuses)
    # The first is refused alone while the topic is sick; once it is not, the others pass.
    batch = [record(1, key="a", payload_bytes=11), record(2, key="b"), record(3, key="a"), record(4, key="c")]

    delivered, failed, back = split(deliver(transactions_on(broker), batch))

    assert (sorted(delivered), back) == ([1, 2, 4] if heals else [2, 4], [3])
    assert failed == ({} if heals else {1: "INVALID_TIMESTAMP"})


def aborts_of(broker: Broker) -> int:
    return sum(outcome == "abort" for _, outcome, _ in broker.transactions)


def test_a_topic_that_is_not_there_keeps_no_transaction_waiting() -> None:
    broker = Broker(missing={"gone"})
    batch = [record(1, topic="gone"), record(2), record(3, topic="gone"), record(4)]
    delivered, failed, back = split(deliver(transactions_on(broker), batch))
    assert (delivered, failed, back) == ([2, 4], {1: "UNKNOWN_TOPIC_OR_PART"}, [3])
    assert broker.transactions == [(Way.SHARED, "commit", 2)]


def test_a_silent_topic_is_blamed_once_and_goes_behind_all_others_from_then_on() -> None:
    broker = Broker(silent={"sick"})
    transactions = transactions_on(broker)
    batch = [record(1, topic="sick"), record(2), record(3, topic="sick"), record(4)]
    delivered, failed, back = split(deliver(transactions, batch))
    assert (delivered, failed, back) == ([2, 4], {1: "_MSG_TIMED_OUT"}, [3])

    broker.transactions.clear()
    assert split(deliver(transactions, [record(1, topic="sick"), record(5)])) == ([5], {1: "_MSG_TIMED_OUT"}, [])
    assert broker.transactions[0] == (Way.SHARED, "commit", 1)

    broker.silent.clear()
    assert sorted(split(deliver(transactions, [record(1, topic="sick"), record(6)]))[0]) == [1, 6]


def test_of_topics_that_are_there_and_of_those_that_are_sick_a_bounded_number_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outboxd.kafka.transactional.transactions.TOPICS_REMEMBERED_MAX", 3)
    broker = Broker(silent={f"sick-{number}" for number in range(9)})
    transactions = transactions_on(broker)
    for number in range(9):
        batch = [record(number + 1, topic=f"sick-{number}"), record(number + 100, topic=f"sound-{number}")]
        delivered, failed, _ = split(deliver(transactions, batch))
        assert (delivered, failed) == ([number + 100], {number + 1: "_MSG_TIMED_OUT"})
        assert max(len(transactions._known_topics), len(transactions._sick_topics)) <= 3


def test_a_bad_time_is_the_rows_fault_where_others_pass_and_the_topics_where_none_does() -> None:
    code = KafkaError.INVALID_TIMESTAMP
    broker = Broker(refuses=lambda _, payload: code if len(payload) > TOO_LARGE_BYTES else None)
    batch = [record(1, payload_bytes=5_000), *[record(n) for n in range(2, 9)]]
    reports = deliver(transactions_on(broker), batch)
    assert [r.error.fault.fault_class.value for r in reports if r.error] == ["row_permanent"]
    assert sorted(broker.committed) == list(range(2, 9))

    broker = Broker(refuses=lambda _, __: code)
    reports = deliver(transactions_on(broker), batch)
    told = [r.error.fault for r in reports if r.error and r.error.fault.name != "SENT_BACK"]
    assert [fault.fault_class.value for fault in told] == ["topic"] * 3
    assert broker.committed == []


def test_aborts_without_a_cause_are_tried_again_and_not_for_ever() -> None:
    broker = Broker(causeless_aborts=3)
    assert split(deliver(transactions_on(broker), [record(1)]))[0] == [1]
    broker = Broker(causeless_aborts=100)
    with pytest.raises(TransactionsEndedError, match="again and again: abort it"):
        deliver(transactions_on(broker), [record(1)])
    assert broker.committed == []


class ClientThatWaits(Client):
    """Does not get to the end of an abort, for a record that is on its way to a topic that was deleted."""

    def abort_transaction(self, _seconds: float) -> None:
        super().abort_transaction(_seconds)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "1 message(s) remaining", False, True))


def test_an_abort_that_waits_for_what_is_on_its_way_is_left_to_the_next_producer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactional_producer, "ABORT_SECONDS_MAX", 0.0)
    monkeypatch.setattr(transactional_producer, "CALLS_SECONDS_MAX", 0.0)
    broker = Broker(silent={"gone"})
    transactions = transactions_on(broker, make=ClientThatWaits)
    delivered, failed, _ = split(deliver(transactions, [record(1, topic="gone"), record(2, topic="there")]))
    assert (delivered, failed) == ([2], {1: "_MSG_TIMED_OUT"})
    assert broker.committed == [2]


def test_an_abort_is_not_waited_for_as_long_as_other_calls_nor_where_nobody_wants_more() -> None:
    seconds = itertools.count()
    broker = Broker()
    client = ClientThatWaits(broker, Way.SHARED)
    is_wanted = [True]
    producer = TransactionalProducer(
        cast(Any, client), is_wanted=lambda: is_wanted[0], monotonic=lambda: float(next(seconds))
    )
    producer.begin()
    producer.abort()
    assert next(seconds) <= transactional_producer.ABORT_SECONDS_MAX + 4
    is_wanted[0] = False
    producer.begin()
    with pytest.raises(TransactionsEndedError, match="_TIMED_OUT"):
        producer.abort()


def test_an_init_that_brokers_are_not_ready_for_is_asked_for_again_soon_and_then_ever_later() -> None:
    calls: list[float] = []

    class EarlyClient(Client):
        """The brokers are still at the end of the transaction before, for a while."""

        def init_transactions(self, seconds: float) -> None:
            calls.append(seconds)
            if len(calls) < 12:
                raise KafkaException(KafkaError(KafkaError.CONCURRENT_TRANSACTIONS, "not yet", False, True))

    client = EarlyClient(Broker(), Way.SHARED)
    TransactionalProducer(cast(Any, client), is_wanted=lambda: True).fence()

    assert calls[0] == transactional_producer.FENCE_CALL_SECONDS < 0.1
    assert all(later == min(2 * earlier, transactional_producer.CALL_SECONDS) for earlier, later in pairwise(calls))
    assert calls[-1] == transactional_producer.CALL_SECONDS


def test_a_zombie_that_takes_a_new_producer_sends_nothing_that_its_successor_committed() -> None:
    broker = Broker()
    zombie = transactions_on(broker)
    batch = [record(1, payload_bytes=5_000), record(2), record(3)]
    # Frozen between its abort and its next producer, while the successor does all of it.
    original = zombie.client.drop_producer

    def frozen() -> None:
        original()
        if not broker.progress:
            deliver(transactions_on(broker), [record(2), record(3)])

    zombie.client.drop_producer = frozen  # type: ignore[method-assign]  # the moment at which it freezes
    with pytest.raises(TransactionsEndedError, match="another producer committed transaction 1"):
        deliver(zombie, batch)
    assert broker.committed == [2, 3]


def test_a_commit_that_went_through_though_the_client_wants_it_aborted_is_no_other_producers() -> None:
    class HastyClient(Client):
        """Wants a transaction aborted that the brokers have committed."""

        def commit_transaction(self, seconds: float) -> None:
            super().commit_transaction(seconds)
            self.open = []
            raise KafkaException(KafkaError(KafkaError._STATE, "abort it", False, False, True))

    broker = Broker()
    with pytest.raises(TransactionsEndedError, match="transaction 1 went through, and was to be aborted") as caught:
        deliver(transactions_on(broker, make=HastyClient), [record(1), record(2)])
    assert broker.committed == [1, 2]
    assert caught.value.fault.fault.name not in FENCED_CODES


def test_a_producer_that_was_fenced_commits_nothing_and_says_so() -> None:
    broker = Broker()
    former = transactions_on(broker)
    transactions_on(broker)
    with pytest.raises(TransactionsEndedError, match="_FENCED"):
        deliver(former, [record(1)])
    assert broker.committed == []


def test_nothing_is_begun_once_nobody_wants_it() -> None:
    broker, wanted = Broker(), [True]
    transactions = transactions_on(broker, is_wanted=lambda: wanted[0])
    wanted[0] = False
    with pytest.raises(TransactionsEndedError):
        deliver(transactions, [record(1)])
    assert broker.committed == []


def test_of_two_rows_of_one_key_that_would_be_refused_the_second_waits_for_what_becomes_of_the_first() -> None:
    publisher = TransactionalPublisher({}, lambda _: None, source="default", schema="outboxd")
    batch = [
        record(n, key=key)._replace(headers="1") for n, key in ((1, "a"), (2, "b"), (3, "a"), (4, None), (5, None))
    ]

    assert publisher.publish(batch, 0) == len(batch)

    _, failed, back = split(publisher.take_reports())
    assert failed == dict.fromkeys((1, 2, 4, 5), "INVALID_HEADERS")
    assert back == [3]
    publisher.close()
