"""What is kept of a campaign: one JSON line a fault, a line of progress now and then, and a summary for people."""

from __future__ import annotations

import collections
import json
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class FaultLine:
    """One fault. `seen` is its observed effect; None: there was none, for the reason in `why`."""

    number: int
    began_at: float
    seconds: float
    kind: str
    seen: Mapping[str, Any] | None
    why: str
    overlapped: Sequence[str]


@dataclass(frozen=True, slots=True)
class Drain:
    """How long the backlog took to be gone after everything was healed."""

    at_seconds: float
    backlog_rows: int
    drained_after_seconds: float


class CampaignLog:
    """Writes into a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.began_at = time.time()
        self.lines: list[FaultLine] = []
        self.drains: list[Drain] = []
        self._faults = (directory / "faults.jsonl").open("w")
        self._progress = (directory / "progress.txt").open("w")
        self._lock = threading.Lock()

    def fault(self, line: FaultLine) -> None:
        """Keep a fault."""
        shown: dict[str, Any] = {
            "at": round(line.began_at - self.began_at, 1),
            "kind": line.kind,
            "observed": line.seen is not None,
            "seconds": round(line.seconds, 1),
        }
        shown |= {"why": line.why[:160]} if line.seen is None else {"effect": line.seen}
        if line.overlapped:
            shown["overlapping"] = len(line.overlapped)
        with self._lock:
            self.lines.append(line)
            self._faults.write(json.dumps(shown, ensure_ascii=False) + "\n")
            self._faults.flush()

    def say(self, text: str) -> None:
        """A line of progress, on the terminal too."""
        line = f"{time.time() - self.began_at:7.1f} s  {text}"
        with self._lock:
            self._progress.write(line + "\n")
            self._progress.flush()
        print(line, flush=True)  # noqa: T201 - shown while it runs

    def close(self) -> None:
        """Close the files."""
        self._faults.close()
        self._progress.close()

    # --- Figures

    @property
    def observed(self) -> list[FaultLine]:
        """The faults that count."""
        return [line for line in list(self.lines) if line.seen is not None]

    @property
    def kinds(self) -> set[str]:
        """Their kinds."""
        return {line.kind for line in self.observed}

    def takeovers(self, *kinds: str, hindered: bool = False, from_end: bool = False) -> list[float]:
        """Seconds of the takeovers after faults of these kinds, those that something else hindered apart.

        They count from the fault, or `from_end` of an owner that ended in order.
        """
        return sorted(
            float(line.seen["takeover_seconds"]) - (float(line.seen["ended_after_seconds"]) if from_end else 0.0)
            for line in self.observed
            if line.kind in kinds
            and line.seen is not None
            and "takeover_seconds" in line.seen
            and bool(line.seen["hindered_by"]) == hindered
            and not (from_end and "ended_after_seconds" not in line.seen)
        )

    def by_kind(self) -> list[tuple[str, int, int, str]]:
        """Each kind with how many of it were observed, how many were not, and one effect as a sample."""
        observed = collections.Counter(line.kind for line in self.observed)
        unseen = collections.Counter(line.kind for line in self.lines if line.seen is None)
        samples = {line.kind: line.seen for line in self.observed}
        return [
            (kind, observed[kind], unseen[kind], _sample(samples.get(kind) or {}))
            for kind in sorted({*observed, *unseen})
        ]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the sorted values does not exceed; 0 for none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def spread(values: Sequence[float]) -> str:
    """Median, 99 %, largest and count of sorted values, as a line of a table."""
    if not values:
        return "– | – | – | 0"
    return f"{statistics.median(values):.2f} | {percentile(values, 0.99):.2f} | {values[-1]:.2f} | {len(values)}"


def _sample(seen: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in seen.items() if value not in ({}, [], None)}
    return json.dumps(shown, ensure_ascii=False)[1:-1].replace("|", "\\|")[:240]
