"""Fixtures of the chaos tests: clusters with proxies, with three brokers, with users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.chaos.lengths import IS_LONG
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import started
from tests.support.postgres_fixtures import Database
from tests.support.proxy import TcpProxy
from tests.support.rig import Rig


class MakeRig(Protocol):
    """Makes the rig of a test on a cluster of its choice."""

    def __call__(self, kafka: KafkaCluster, properties: Mapping[str, str] | None = None) -> Rig: ...


@pytest.fixture
def make_rig(database: Database, tmp_path: Path) -> Iterator[MakeRig]:
    rigs: list[Rig] = []

    def make(kafka: KafkaCluster, properties: Mapping[str, str] | None = None) -> Rig:
        rigs.append(Rig(database, kafka, tmp_path, kafka_properties=properties))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture(scope="session")
def kafka_proxied() -> Iterator[KafkaCluster]:
    """One broker behind a proxy."""
    yield from started(lambda: KafkaCluster(brokers=1, proxies=True))


@pytest.fixture(scope="session")
def kafka_guarded() -> Iterator[KafkaCluster]:
    """One broker that asks for a password and grants nothing by itself."""
    yield from started(lambda: KafkaCluster(brokers=1, sasl=True, plain_users={"relay": "right"}))


@pytest.fixture
def proxied_postgres(database: Database) -> Iterator[tuple[TcpProxy, str]]:
    """A proxy before PostgreSQL, and the URL of the test's database through it."""
    with TcpProxy(("127.0.0.1", database.server.port)) as proxy:
        yield proxy, database.url.replace(f":{database.server.port}/", f":{proxy.port}/")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take what only the long form runs out of the short one."""
    if IS_LONG:
        return
    left_out = [item for item in items if getattr(getattr(item, "function", None), "is_long_only", False)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
