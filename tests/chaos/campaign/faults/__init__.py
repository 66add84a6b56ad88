"""The menu of faults: a module for each thing that breaks, a function for each way to break it."""

from __future__ import annotations

from tests.chaos.campaign.faults import of_brokers, of_daemons, of_networks, of_postgres, of_rows, of_surroundings
from tests.chaos.campaign.faults.kind import Kind

MENU: tuple[Kind, ...] = (
    *of_daemons.KINDS,
    *of_brokers.KINDS,
    *of_networks.KINDS,
    *of_postgres.KINDS,
    *of_rows.KINDS,
    *of_surroundings.KINDS,
)
"""Every kind, by which the schedule draws."""
