"""What the next settlement has, and since when what is left of it waits."""

from __future__ import annotations

from outboxd.relay.memory.settling import Settling


def test_what_one_settlement_has_no_room_for_is_due_as_of_its_own_delivery() -> None:
    settling = Settling(rows_max=2)
    settling.ids += [1, 2, 3]
    settling.partitions += [0, 0, 0]
    settling.offsets += [7, 8, 9]
    settling.first_at = 1.0

    first = settling.take()
    assert first is not None
    assert first.delivered_ids == [1, 2]
    assert settling.first_at == 1.0, "a row that waits without a beginning would wait for ever"
    settling.done()

    second = settling.take()
    assert second is not None
    assert (second.delivered_ids, second.delivered_offsets) == ([3], [9])
    assert settling.first_at is None
