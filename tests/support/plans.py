"""How PostgreSQL went about every statement that code under test executed, as its own `auto_explain` tells it.

    engine = make_engine(url)
    watch(engine, plans)
    ...
    assert not [fault for plan in plans for fault in faults(plan, Bound(rows_max=1_000, buffers_max=5_000))]

The statements are those that were really sent, with their parameters and as they were prepared: nothing is explained
apart, which PostgreSQL might plan otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from sqlalchemy import Engine, event

PlanMode = Literal["force_custom_plan", "force_generic_plan"]
"""A prepared statement is planned for the values at hand, or once for all; PostgreSQL chooses by what it expects."""

_SETTINGS = {
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "notice",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_min_duration": "0",
}
_SHOWN = (
    *("Relation Name", "Index Name", "Plan Rows", "Total Cost", "Actual Rows", "Actual Loops"),
    *("Shared Hit Blocks", "Shared Read Blocks"),
)


@dataclass(frozen=True)
class Node:
    """One node of a plan, with what it did in all its loops."""

    kind: str
    relation: str
    index: str
    rows: float
    """Rows that it gave, and those that it looked at and dropped."""


@dataclass(frozen=True)
class Plan:
    """One statement, as it was executed."""

    statement: str
    root: Mapping[str, Any]

    def nodes(self) -> Iterator[Node]:
        """Every node, the subplans' too."""
        yield from _nodes(self.root)

    @property
    def buffers(self) -> int:
        """Pages that it looked at, each time that it did."""
        return int(self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"])

    def __str__(self) -> str:
        return "\n".join([self.statement, *_lines(self.root, 0)])


@dataclass(frozen=True)
class Bound:
    """What a statement may cost: rows through any one node of its plan, and pages."""

    rows_max: int
    buffers_max: int


def watch(engine: Engine, plans: list[Plan], mode: PlanMode = "force_custom_plan") -> None:
    """Have every connection of the engine tell its plans; they are added to `plans` as they come."""

    def told(notice: psycopg.errors.Diagnostic) -> None:
        _, found, text = (notice.message_primary or "").partition("plan:\n")
        if found:
            document = json.loads(text)
            plans.append(Plan(document["Query Text"], document["Plan"]))

    def connected(connection: psycopg.Connection[Any], record: object) -> None:
        connection.execute("LOAD 'auto_explain'")
        connection.execute(f"SET plan_cache_mode = {mode}".encode())
        for name, value in _SETTINGS.items():
            connection.execute(f"SET {name} = {value}".encode())
        connection.add_notice_handler(told)

    event.listen(engine, "connect", connected)


def faults(plan: Plan, bound: Bound, *, large: str = "outbox") -> list[str]:
    """What is wrong with how a statement was executed, in sentences.

    A sort, a hash or a window over more than `rows_max` rows shows by the node that feeds it.
    """
    found = []
    for node in plan.nodes():
        if node.kind == "Seq Scan" and node.relation == large:
            found.append(f"the whole of {large} is read")
        if node.rows > bound.rows_max:
            place = f" of {node.index or node.relation}" if node.index or node.relation else ""
            found.append(f"{node.rows:.0f} rows go through {node.kind}{place}, {bound.rows_max} may")
    if plan.buffers > bound.buffers_max:
        found.append(f"{plan.buffers} pages are looked at, {bound.buffers_max} may be")
    return found


def _nodes(node: Mapping[str, Any]) -> Iterator[Node]:
    loops = node["Actual Loops"]
    dropped = sum(value for name, value in node.items() if name.startswith("Rows Removed by"))
    yield Node(
        kind=node["Node Type"],
        relation=node.get("Relation Name", ""),
        index=node.get("Index Name", ""),
        rows=loops * (node["Actual Rows"] + dropped),
    )
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _lines(node: Mapping[str, Any], depth: int) -> Iterator[str]:
    shown = " ".join(f"{name}={node[name]}" for name in _SHOWN if name in node)
    removed = " ".join(f"{name}={value}" for name, value in node.items() if name.startswith("Rows Removed by"))
    yield f"{'  ' * depth}{node['Node Type']} {shown} {removed}".rstrip()
    for child in node.get("Plans", ()):
        yield from _lines(child, depth + 1)
