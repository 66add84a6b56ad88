"""The results' file, and the tables that people read."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.goals import GOALS
from benchmarks.suite import Sizes

DIRECTORY = Path(__file__).parent / "results"


@dataclass
class Results:
    """What was measured, by benchmark: each run's figures, and why runs failed; written after each run."""

    path: Path | None
    machine: Mapping[str, object]
    sizes: Mapping[str, object]
    runs: dict[str, list[Mapping[str, object]]] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)

    def forget(self, names: Sequence[str]) -> None:
        """Drop what an earlier run had of these."""
        for name in names:
            self.runs.pop(name, None)
            self.failures.pop(name, None)

    def add(self, name: str, figures: Mapping[str, object]) -> None:
        self.runs.setdefault(name, []).append(figures)
        self.write()

    def add_failure(self, name: str, reason: str) -> None:
        self.failures.setdefault(name, []).append(reason)
        self.write()

    def write(self) -> None:
        """Write the file whole, so that a long run which is broken off leaves what it has."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "machine": self.machine,
            "sizes": self.sizes,
            "results": self.runs,
            "failures": self.failures,
        }
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        partial.replace(self.path)


def fresh_path(*, quick: bool) -> Path:
    """Where a run's results go; quick ones say little and are not kept under version control."""
    return DIRECTORY / f"{'quick-' if quick else ''}{time.strftime('%Y-%m-%dT%H%M', time.gmtime())}.json"


def new_results(path: Path | None, machine: Mapping[str, object], sizes: Sizes) -> Results:
    """Begin anew, or go on with the results that are at `path`; its machine's facts and sizes are then the older."""
    if path is not None and path.exists():
        return read_results(path)
    return Results(path, machine, asdict(sizes))


def read_results(path: Path) -> Results:
    """Read a file of results."""
    document = json.loads(path.read_text())
    return Results(path, document["machine"], document["sizes"], document["results"], document["failures"])


def goals_table(results: Results, *, only_measured: bool = False) -> str:
    """Name, goal, seen, and whether it was reached, a line a goal."""
    lines = [("benchmark", "what", "goal", "seen", "")]
    for goal in GOALS:
        runs, failed = results.runs.get(goal.benchmark, []), goal.benchmark in results.failures
        if only_measured and not runs and not failed:
            continue
        seen = goal.seen_text(runs) if runs else "–"
        lines.append((goal.benchmark, goal.what, goal.bound_text, seen, goal.verdict(runs, failed=failed)))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
