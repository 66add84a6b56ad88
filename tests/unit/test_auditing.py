"""What an audit says of a row, and in which order lost rows go again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from outboxd.cli import audit
from outboxd.errors import BrokerUnavailableError
from outboxd.maintenance.audit import republish
from outboxd.policy.exchange.auditing import Bounds, Identity, LostRow, Place, PublishedRow, Tally, look, newer_in_log
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import fault_of
from outboxd.policy.rows.records import Record

ROW = PublishedRow(7, "e7", "orders", "k", 0, 100, 1_000)
OURS, OTHER = Identity(7, "e7"), Identity(9, "e9")
KEPT = Bounds(50, 200)


@pytest.mark.parametrize(
    ("bounds", "found", "is_read", "is_compacted", "expected"),
    [
        (KEPT, OURS, True, False, Place.FINE),
        (KEPT, OTHER, True, False, Place.OTHER_RECORD),
        (KEPT, Identity(7, "of another database"), True, False, Place.OTHER_RECORD),
        (KEPT, None, True, False, Place.OTHER_RECORD),
        (KEPT, None, False, False, Place.NO_RECORD),
        (KEPT, None, False, True, Place.BEYOND_RETENTION),
        (KEPT, OTHER, True, True, Place.OTHER_RECORD),
        (Bounds(101, 200), None, False, False, Place.BEYOND_RETENTION),
        (Bounds(100, 101), OURS, True, False, Place.FINE),
        (Bounds(0, 100), None, False, False, Place.LOG_ENDS_BEFORE),
        (Bounds(0, 100), None, False, True, Place.LOG_ENDS_BEFORE),
        (Bounds(0, 100, 200), None, False, False, Place.NOT_READABLE),
        (Bounds(0, 50, 100), None, False, False, Place.LOG_ENDS_BEFORE),
        (None, None, False, False, Place.NO_PARTITION),
    ],
)
def test_each_place_has_its_outcome(
    bounds: Bounds | None, found: Identity | None, is_read: bool, is_compacted: bool, expected: Place
) -> None:
    assert look(ROW, bounds, found, is_read=is_read, is_compacted=is_compacted) is expected
    assert expected.is_missing is (expected not in (Place.FINE, Place.BEYOND_RETENTION, Place.NOT_READABLE))


def test_only_a_newer_row_of_the_same_topic_and_key_stands_in_the_way() -> None:
    assert newer_in_log(ROW, {("orders", "k"): 8}) == 8
    assert newer_in_log(ROW, {("orders", "k"): 7}) is None
    assert newer_in_log(ROW, {("orders", "other"): 8, ("other", "k"): 8}) is None
    assert newer_in_log(ROW._replace(key=None), {("orders", "k"): 8}) is None


class RecordingSender:
    """Takes a few records at a time and reports them at the next poll, but for one that it refuses."""

    def __init__(self, refuses: int | None = None) -> None:
        self.batches: list[list[int]] = [[]]
        self._refuses = refuses
        self._reports: list[Report] = []

    def publish(self, records: Sequence[Record], start: int) -> int:
        end = min(len(records), start + 3)
        for record in records[start:end]:
            self.batches[-1].append(record.id)
            refusal = DeliveryFault(fault_of(29), "not authorised") if record.id == self._refuses else None
            self._reports.append(Report(record, refusal, 0, record.id))
        return end

    def poll(self, timeout_seconds: float) -> None: ...

    def flush(self, timeout_seconds: float) -> None: ...

    def take_reports(self) -> list[Report]:
        taken, self._reports = self._reports, []
        if not taken:
            self.batches.append([])
        return taken

    def failure(self) -> DeliveryFault | None:
        return None


def record(record_id: int, key: str | None) -> Record:
    return Record(2, record_id, "event", "orders", key, b"x", "{}", None, 1, 1)


def test_lost_rows_go_in_id_order_and_one_of_each_key_at_a_time() -> None:
    sender = RecordingSender()
    told: list[int] = []
    keys = ["a", "b", None, None, "a", "c", "a"]
    records = [record(number, key) for number, key in enumerate(keys)]

    assert republish(records, sender, lambda: 0.0, told.append) == 7

    assert [row_id for batch in sender.batches for row_id in batch] == list(range(7))
    assert told == [4, 6, 7]


def test_nothing_goes_after_a_row_that_was_refused() -> None:
    sender = RecordingSender(refuses=1)
    with pytest.raises(BrokerUnavailableError, match="row 1 could not be sent again"):
        republish([record(0, "a"), record(1, "b"), record(2, "b")], sender, lambda: 0.0)
    assert 2 not in [row_id for batch in sender.batches for row_id in batch]


def test_a_broker_that_never_answers_is_not_waited_for_for_ever() -> None:
    class Silent(RecordingSender):
        def take_reports(self) -> list[Report]:
            return []

    clock = iter(range(0, 10_000, 10))
    with pytest.raises(BrokerUnavailableError, match="had no answer"):
        republish([record(0, "a")], Silent(), lambda: float(next(clock)))


def test_keys_of_rows_that_are_left_drive_no_terminal_and_an_empty_one_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = ["", "a\nb", "\x1b[2J", None]
    left = [LostRow(ROW._replace(key=key), Place.NO_RECORD, 9) for key in keys]
    audit._tell(Tally(), left, 0, again=False, as_json=False)
    assert capsys.readouterr().out.splitlines()[-1].endswith('Keys: orders/-, orders/"", orders/[2J, orders/a b')
