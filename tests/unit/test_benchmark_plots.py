"""The benchmarks' plots, from the results that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.plots import PLOTS
from benchmarks.results import read_results

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_all_results_that_are_kept_can_be_drawn(path: Path) -> None:
    results = read_results(path)
    charts = [draw(results) for draw in PLOTS.values()]
    assert any(charts)
    assert all(chart is None or chart.startswith("<svg") for chart in charts)
