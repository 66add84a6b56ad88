"""Ports: what the relay asks of the database, the broker and the clock, as Protocols beside their user; and the values
that go through them.
"""

from __future__ import annotations

from outboxd.policy.exchange.messages import (
    ChainFailure,
    DeliveryFault,
    Event,
    LeaseGranted,
    LeaseLost,
    Listening,
    ProgressRow,
    Reconfigured,
    Recovered,
    RecoverFailed,
    Report,
    Settled,
    SettleFailed,
    StopRequested,
    TopicsChanged,
    TransactionEnded,
    Woken,
)
from outboxd.policy.exchange.reads import (
    Arrived,
    DueReplay,
    Fetched,
    FetchFailed,
    HoldingLetters,
    KeyHolder,
    Loaded,
    Pause,
    Swept,
)
from outboxd.policy.exchange.requests import IMPATIENT, FetchRequest, Patience, Settlement, SweepRequest
from outboxd.relay.ports.broker import Publisher
from outboxd.relay.ports.database import Lease, OutboxStore
from outboxd.relay.ports.observer import Observer
from outboxd.relay.ports.surroundings import Clock, Dice, Mailbox

__all__ = [
    "IMPATIENT",
    "Arrived",
    "ChainFailure",
    "Clock",
    "DeliveryFault",
    "Dice",
    "DueReplay",
    "Event",
    "FetchFailed",
    "FetchRequest",
    "Fetched",
    "HoldingLetters",
    "KeyHolder",
    "Lease",
    "LeaseGranted",
    "LeaseLost",
    "Listening",
    "Loaded",
    "Mailbox",
    "Observer",
    "OutboxStore",
    "Patience",
    "Pause",
    "ProgressRow",
    "Publisher",
    "Reconfigured",
    "RecoverFailed",
    "Recovered",
    "Report",
    "SettleFailed",
    "Settled",
    "Settlement",
    "StopRequested",
    "SweepRequest",
    "Swept",
    "TopicsChanged",
    "TransactionEnded",
    "Woken",
]
