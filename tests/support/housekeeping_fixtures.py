"""Housekeeping of a fresh database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.upkeep.housekeeping import Housekeeping
from tests.support.postgres_fixtures import Database


@pytest.fixture
def housekeeping(database: Database) -> Iterator[Housekeeping]:
    engine = make_engine(database.url)
    yield Housekeeping(engine, "outboxd", "outbox", "default")
    engine.dispose()
