"""Event pieces: eight bytes of an event id, which tell one row from another that was given the same id later.

A database that loses its latest commits, as after an asynchronous failover, may draw ids again that it had drawn. A
progress record that names rows by id alone would then settle a new row which nobody sent. The piece is the exclusive
or of the event id's two halves: whatever version of UUID an application brings, one of them varies.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from sys import byteorder

_UUID_BYTES = 16
_NONE = "0" * 2 * _UUID_BYTES


def event_pieces(event_ids: Sequence[str]) -> array[int]:
    """Return the piece of each event id, as signed numbers of 64 bits: the same as `piece_text` gives in SQL.

    All ids are worked on at once, since a transaction has thousands. An empty one, of a row of somebody's own table
    that has none, has the piece 0.

    Raises:
        ValueError: one of them is no UUID.
    """
    joined = bytes.fromhex("".join(event_ids).replace("-", ""))
    if len(joined) != _UUID_BYTES * len(event_ids):
        if "" in event_ids:
            return event_pieces([event_id or _NONE for event_id in event_ids])
        raise ValueError("an event id is no UUID")
    number = int.from_bytes(joined)
    # Every other number of 64 bits is a first half with its second half laid over it.
    folded = array("q", (number ^ (number << 64)).to_bytes(len(joined) + 8)[8:])
    if byteorder == "little":
        folded.byteswap()
    return folded[::2]
