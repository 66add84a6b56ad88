"""The alert rules and the dashboard name metrics, labels and events that the daemon has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric

from outboxd.observability.events import CATALOGUE
from outboxd.observability.metrics import Metrics
from outboxd.observability.status import StatusBoard

CONFIG = Path(__file__).parents[2] / "config"
RULES = (CONFIG / "prometheus-alerts.yml").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((CONFIG / "grafana-dashboard.json").read_text(encoding="utf-8"))

RULE_EXPRESSIONS = re.findall(r"(?m)^ +expr: (.+)$", RULES)
PANEL_EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
#: Labels that Prometheus itself adds.
ADDED_LABELS = {"job", "instance", "le"}


def series() -> dict[str, set[str]]:
    """Every series that /metrics can show, with the labels of its kind."""
    metrics = Metrics(StatusBoard())
    labels: dict[str, set[str]] = {}
    for collector in list(metrics.registry._collector_to_names):
        names = set(getattr(collector, "_labelnames", ())) | set(getattr(collector, "_labels", ()))
        for family in collector.collect():
            for name in _names_of(family):
                # A family that is made when somebody asks knows its labels itself.
                labels[name] = names | set(getattr(family, "_labelnames", ()))
    return labels


def _names_of(family: Metric) -> Iterator[str]:
    match family.type:
        case "counter":
            yield f"{family.name}_total"
        case "histogram":
            yield from (f"{family.name}_{part}" for part in ("bucket", "sum", "count"))
        case _:
            yield family.name


SERIES = series()


def named(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:outboxd|process)_[a-z_]+", expression))


@pytest.mark.parametrize("expression", RULE_EXPRESSIONS + PANEL_EXPRESSIONS)
def test_every_metric_that_is_named_exists(expression: str) -> None:
    names = named(expression)
    assert names
    assert names <= set(SERIES)


@pytest.mark.parametrize("expression", RULE_EXPRESSIONS + PANEL_EXPRESSIONS)
def test_every_label_that_is_grouped_by_or_asked_for_exists(expression: str) -> None:
    known = ADDED_LABELS.union(*(SERIES[name] for name in named(expression)))
    grouped = re.findall(r"\b(?:by|on|without) \(([^)]*)\)", expression)
    asked = re.findall(r"[{,]([a-z_]+)=", expression)
    assert {label.strip() for group in grouped for label in group.split(",")} | set(asked) <= known


def test_every_agreed_metric_is_on_the_dashboard_or_in_a_rule() -> None:
    used = set[str]().union(*(named(expression) for expression in RULE_EXPRESSIONS + PANEL_EXPRESSIONS))
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in SERIES if name.startswith("outboxd_")}
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert ours - used == {"outboxd_late_rows_total", "outboxd_log_lines_dropped"}


@pytest.mark.parametrize("expression", [each for each in RULE_EXPRESSIONS if re.search(r"increase\(.*\) > 0", each)])
def test_a_rule_that_one_count_is_to_fire_sees_a_series_which_begins_with_it(expression: str) -> None:
    for name, selected, window in re.findall(r"increase\(([a-z_]+)((?:\{[^}]*\})?)\[(\w+)\]\)", expression):
        # A counter without labels is there from the start, at 0.
        if SERIES[name]:
            assert f"unless {name}{selected} offset {window}" in expression


def test_no_rule_takes_the_daemons_of_one_outbox_for_those_of_another() -> None:
    for expression in RULE_EXPRESSIONS:
        assert not re.search(r"\b(sum|max|min|count) ?\(outboxd_leader", expression), expression
    # A job for each outbox, as the rule for two leaders asks.
    assert 'up{job=~"outboxd.*"} == 0' in RULES


def test_every_event_that_a_rule_waits_for_is_in_the_catalogue() -> None:
    events = re.findall(r'event="([a-z_]+)"', RULES)
    assert events
    assert set(events) <= set(CATALOGUE)


def test_every_rule_has_a_severity_a_summary_and_what_to_do() -> None:
    rules = re.split(r"(?m)^ +- alert: ", RULES)[1:]
    assert len(rules) == len(RULE_EXPRESSIONS) > 10
    for rule in rules:
        assert re.search(r"severity: (critical|warning|info)\n", rule), rule
        assert "summary: " in rule
        assert re.search(r"description: .{20,}\.\n", rule), rule


def test_promtool_takes_the_rules_where_it_is_installed() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        # Then the form that the other tests read is all that is known: two spaces a level, one line an expression.
        assert all(not line or re.match(r"( {2})*(- )?[\w\"#]", line) for line in RULES.splitlines())
        return
    checked = subprocess.run(
        [promtool, "check", "rules", CONFIG / "prometheus-alerts.yml"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_panels_fill_a_grid_and_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_the_document_lists_every_metric_with_its_labels_and_kind() -> None:
    text = (CONFIG.parent / "docs" / "monitoring.md").read_text(encoding="utf-8")
    told: dict[str, set[str]] = {}
    for line in re.findall(r"(?m)^\| (`outboxd_.*?) \| (?:counter|gauge|histogram) \|", text):
        for name, labels in re.findall(r"`(outboxd_[a-z_]+)(?:\{([a-z_,]+)\})?`", line):
            told[name] = set(labels.split(",")) - {""}
    ours = {
        re.sub(r"_(bucket|sum|count)$", "", name): labels
        for name, labels in SERIES.items()
        if name.startswith("outboxd_")
    }
    assert told == ours
