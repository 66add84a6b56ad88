"""Restating: rows that Kafka has and PostgreSQL refuses to settle are stated again by later progress records.

A transaction is settled once all of its rows are, and only so many may be unsettled. So what is set aside is given to
the publisher, which states it in the progress record of a later transaction too. From then on the earlier ones may be
settled: whoever comes next finds the row there, and does not send it again.
"""

from __future__ import annotations

from outboxd.policy.exchange.messages import ProgressRow
from outboxd.policy.rows.content import PIECE_DIGITS
from outboxd.policy.rows.event_pieces import event_pieces
from outboxd.policy.rows.records import Arm, Record
from outboxd.relay.ports import Settlement
from outboxd.relay.state import State


def progress_row(state: State, settlement: Settlement) -> ProgressRow | None:
    """Return the one outcome of the settlement as progress records have it, None where they have not."""
    if not state.pipelined or settlement.entries != 1:
        return None
    if settlement.recovered_replays:
        record_id, place, offset, its_piece, its_content = settlement.recovered_replays[0]
        return None if its_piece is None else ProgressRow(record_id, place, offset, True, its_piece, its_content)
    content: str | None = None
    partition: int | None
    record_offset: int | None
    if settlement.delivered_ids:
        row_id: int | None = settlement.delivered_ids[0]
        partition, record_offset = settlement.delivered_partitions[0], settlement.delivered_offsets[0]
    elif settlement.replayed:
        dead_letter_id, partition, record_offset, digest = settlement.replayed[0]
        content = digest[:PIECE_DIGITS]
        row_id = state.settling.record_of(dead_letter_id)
    else:
        return None
    record = None if row_id is None else state.ledger.records.get(row_id)
    if settlement.delivered_pieces:
        piece = settlement.delivered_pieces[0]
    else:
        piece = None if record is None else event_pieces([record.event_id])[0]
    if row_id is None or partition is None or record_offset is None or piece is None:
        return None
    return ProgressRow(row_id, partition, record_offset, bool(settlement.replayed), piece, content)


def keep_from_reading(state: State, settlement: Settlement) -> None:
    """The row or dead letter was delivered by an owner before and is set aside: what reads it as pending, or to be
    replayed, is not to send it again.
    """
    for record_id in settlement.outbox_ids if settlement.is_recovered else ():
        if record_id not in state.ledger.records:
            now_ms = state.aftermath.now_ms
            state.ledger.enter([Record(int(Arm.META), record_id, "", "", None, None, "", None, now_ms, 0)])
