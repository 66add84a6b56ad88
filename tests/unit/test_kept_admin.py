"""The client that questions to the cluster share: made when it is needed, and let go of when nobody asks any more."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from outboxd.kafka.client import kept_admin
from outboxd.kafka.client.kept_admin import KEPT_SECONDS, KeptAdmin


class Bench:
    """Makes stand-ins of clients, which no thread belongs to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.properties: Mapping[str, str] = {"client.id": "mine", "debug": "all"}
        self.made: list[Mapping[str, object]] = []
        self.let_go: list[object] = []
        monkeypatch.setattr(kept_admin, "AdminClient", self._make)
        monkeypatch.setattr(kept_admin, "destroy", self.let_go.extend)
        self.admin = KeptAdmin(lambda: self.properties, "topics", monotonic=lambda: self.now)

    def _make(self, config: Mapping[str, object]) -> object:
        self.made.append(config)
        return object()


def test_one_client_answers_all_questions_until_none_was_asked_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    first = bench.admin.client()
    assert bench.made == [{"client.id": "mine-topics", "log_level": "0", "allow.auto.create.topics": "false"}]
    for _ in range(3):
        bench.now += KEPT_SECONDS - 1
        bench.admin.rest()
        assert bench.admin.client() is first
    bench.now += KEPT_SECONDS
    bench.admin.rest()
    assert bench.let_go == [first]
    assert bench.admin.client() is not first


def test_other_properties_and_a_question_in_vain_take_another_client(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    first = bench.admin.client()
    bench.properties = dict(bench.properties)
    second = bench.admin.client()
    assert second is not first
    bench.admin.drop()
    bench.admin.drop()
    assert bench.let_go == [first, second]
