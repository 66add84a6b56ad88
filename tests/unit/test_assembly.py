"""The order in which a daemon's parts come to their end."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any, cast

from outboxd.daemon.assembly import Assembly


def test_nothing_is_left_to_be_sent_when_the_lease_is_given_up() -> None:
    calls: list[str] = []

    def part(name: str) -> Any:
        return SimpleNamespace(
            **{call: lambda call=call: calls.append(f"{name}.{call}") for call in ("close", "purge", "dispose")}
        )

    Assembly(**cast(Any, {field.name: part(field.name) for field in fields(Assembly)})).close()
    assert calls.index("publisher.purge") < calls.index("lease.close")
    assert {"publisher.close", "store.close", "trial.close", "starts.close", "engine.dispose"} < set(calls)
