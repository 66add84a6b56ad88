"""What a benchmark says bounds a drain, and which option it says to turn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outboxd.bench.run import Report
from outboxd.bench.verdict import Drain, Latency, Tuning, judge, judge_latency, percentile
from outboxd.cli.bench import as_document, print_report

TUNING = Tuning(batch_rows=5_000, poll_interval_max_seconds=0.1, listen=False)
IDLE = Drain(
    name="drain, mark",
    rows=100_000,
    is_whole=True,
    seconds=10.0,
    bare_rows_per_second=100_000.0,
    daemon_cpu_seconds=2.0,
    fetch_seconds=1.0,
    settle_seconds=2.0,
    machine_busy_share=0.3,
    daemon_memory_bytes=100 << 20,
)
QUICK = Latency(2_000, 200.0, 200.0, 0.004, 0.006, 0.01, 0.02, 0.1)


def test_the_ratio_is_that_of_the_rates() -> None:
    assert IDLE.rows_per_second == 10_000
    assert IDLE.ratio == 0.1


@pytest.mark.parametrize(
    ("drain", "bound", "advice"),
    [
        (replace(IDLE, bare_rows_per_second=11_000.0), "broker", "partitions"),
        (replace(IDLE, machine_busy_share=0.97), "machine CPU", "machines of their own"),
        (replace(IDLE, daemon_cpu_seconds=9.5), "daemon CPU", "after_publish"),
        (replace(IDLE, daemon_cpu_seconds=9.5, machine_busy_share=None), "daemon CPU", "quicker core"),
        (replace(IDLE, settle_seconds=9.0, fetch_seconds=8.0), "database settle", "WAL"),
        (replace(IDLE, fetch_seconds=9.0), "database fetch", "batch_rows"),
        (IDLE, "round trips", "max_in_flight_rows"),
    ],
)
def test_what_is_busy_all_the_time_bounds_the_drain(drain: Drain, bound: str, advice: str) -> None:
    verdict = judge(drain, TUNING)
    assert verdict.bound == bound
    assert advice in verdict.advice


@pytest.mark.parametrize("count", [1, 2, 40, 100, 3_000])
def test_no_percentile_is_beyond_what_was_measured(count: int) -> None:
    ages = [float(age) for age in range(1, count + 1)]
    p50, p90, p99 = (percentile(ages, percent) for percent in (50, 90, 99))
    assert (p50, p90, p99) == tuple(float(-(-count * percent // 100)) for percent in (50, 90, 99))
    assert ages[0] <= p50 <= p90 <= p99 <= ages[-1]


def test_who_deletes_already_is_not_told_to_delete() -> None:
    assert "after_publish" in judge(replace(IDLE, settle_seconds=9.0), TUNING).advice
    assert "after_publish" not in judge(replace(IDLE, settle_seconds=9.0, name="drain, delete"), TUNING).advice


@pytest.mark.parametrize(
    ("latency", "tuning", "said"),
    [
        (QUICK, TUNING, "little else"),
        (replace(QUICK, p50_seconds=0.06), TUNING, "poll_interval_max"),
        (replace(QUICK, p50_seconds=0.06), replace(TUNING, listen=True), "little else"),
        (replace(QUICK, p99_seconds=0.5), TUNING, "few are slow"),
        (replace(QUICK, rows_per_second=50.0), TUNING, "takes 20.0 ms here"),
    ],
)
def test_the_latency_is_explained(latency: Latency, tuning: Tuning, said: str) -> None:
    assert said in judge_latency(latency, tuning)


def test_people_read_what_was_measured_what_bounds_it_and_what_to_turn(capsys: pytest.CaptureFixture[str]) -> None:
    drains = (IDLE, replace(IDLE, name="drain, delete", settle_seconds=9.0, rows=40_000, is_whole=False))
    report = Report(drains, tuple(judge(drain, TUNING) for drain in drains), QUICK, judge_latency(QUICK, TUNING))
    print_report(report, 100_000)
    told = capsys.readouterr().out
    assert "10,000" in told
    assert "p50 4.0 ms" in told
    assert "drain, delete: bound by database settle: writing the outcomes took 90% of the time" in told
    assert "the time was up after 40,000 of 100,000 rows" in told
    assert "every row was read back" not in told
    assert as_document(report)["drains"][1]["rows_per_second"] == 4_000
