"""The order in which a daemon's parts come to their end."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.daemon.assembly import Assembly


def test_nothing_is_left_to_be_sent_when_the_lease_is_given_up() -> None:
    calls: list[str] = []

    def part(name: str) -> Any:
        return SimpleNamespace(
            **{call: lambda *_, call=call: calls.append(f"{name}.{call}") for call in ("close", "purge", "dispose")}
        )

    Assembly(**cast(Any, {field.name: part(field.name) for field in fields(Assembly)})).close(5.0)
    assert calls.index("publisher.purge") < calls.index("lease.close")
    assert {"publisher.close", "store.close", "trial.close", "starts.close", "engine.dispose"} < set(calls)


def test_all_threads_are_told_to_end_before_any_is_waited_for_and_all_together_as_long_as_the_end_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    waits: list[float] = []

    def close(timeout_seconds: float = 0.0) -> None:
        nonlocal now
        waits.append(timeout_seconds)
        now += min(timeout_seconds, 2.0)

    monkeypatch.setattr("outboxd.daemon.assembly.time.monotonic", lambda: now)
    part = SimpleNamespace(close=close, purge=lambda: None, dispose=lambda: None)
    Assembly(**cast(Any, {field.name: part for field in fields(Assembly)})).close(5.0)
    *waits_for_threads, _publisher = waits
    assert waits_for_threads == [0.0] * 4 + [5.0, 3.0, 1.0, 0.0]
