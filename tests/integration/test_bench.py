"""`outboxd bench` on real servers: it measures, says what bounds it, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.support.children import end, free_ports, wait_for
from tests.support.daemon import ROOT, write_config
from tests.support.rig import Rig

SMALL = ("--yes", "--rows", "2000", "--seconds", "3", "--rate", "100")


@pytest.fixture
def config(rig: Rig, tmp_path: Path) -> Path:
    sections = {"database": {"url": rig.database.url}, "kafka": {"bootstrap.servers": rig.kafka.bootstrap}}
    return write_config(tmp_path / "bench.toml", sections)


@pytest.fixture
def environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOXD_", "PG"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def scratch(rig: Rig) -> tuple[int, list[str]]:
    """How many schemas of a benchmark there are, and the topics."""
    schemas = rig.count(r"SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'outboxd\_bench\_%%'")
    # The admin client has to outlive its answer.
    admin = AdminClient({"bootstrap.servers": rig.kafka.bootstrap})
    topics = admin.list_topics(timeout=10).topics
    return schemas, [name for name in topics if "bench" in name]


def bench(config: Path, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "outboxd", "bench", "-c", str(config), *arguments],
        env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_it_measures_touches_no_row_of_the_users_and_leaves_nothing_behind(
    rig: Rig, config: Path, environ: dict[str, str]
) -> None:
    rig.insert(rig.topic())
    done = bench(config, environ, *SMALL, "--exactly-once", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [drain["name"] for drain in found["drains"]] == [
        "drain, mark", "drain, delete", "drain, exactly-once, delete",
    ]  # fmt: skip
    for drain in found["drains"]:
        assert (drain["rows"], drain["is_whole"]) == (2_000, True)
        assert 0 < drain["ratio"] == pytest.approx(drain["rows_per_second"] / drain["bare_rows_per_second"])
        assert drain["daemon_cpu_seconds"] > 0
        assert drain["verdict"]["bound"]
    assert 0 < found["latency"]["p50_seconds"] <= found["latency"]["p99_seconds"] < 5
    assert rig.pending() == 1
    assert scratch(rig) == (0, [])


@pytest.fixture
def running(config: Path, environ: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (tmp_path / "bench.out").open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "outboxd", "bench", "-c", str(config), "--yes", "--rows", "300000"],
            env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    yield child
    end(child, grace_seconds=0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_removes_everything(
    rig: Rig, running: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals
) -> None:
    def relays() -> bool:
        leases = rig.count(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'outboxd' AND query LIKE '%%outboxd_bench%%'"
        )
        return leases > 0 and bool(scratch(rig)[1])

    wait_for(relays, timeout_seconds=60, what=f"its daemon; it said {(tmp_path / 'bench.out').read_text()}")
    # To the whole group, as a terminal does with Ctrl+C.
    os.killpg(running.pid, number)
    assert running.wait(60) == 130
    assert (tmp_path / "bench.out").read_text() == ""
    assert scratch(rig) == (0, [])
    left = subprocess.run(
        ["ps", "-o", "pid,args", "--sid", str(running.pid)], capture_output=True, text=True, check=False
    )
    assert "outboxd" not in left.stdout


def test_without_a_terminal_it_wants_a_yes(config: Path, environ: dict[str, str]) -> None:
    done = bench(config, environ)
    assert done.returncode == 64
    assert "--yes" in done.stderr


def test_one_document_has_no_question_before_it(config: Path, environ: dict[str, str]) -> None:
    done = bench(config, environ, "--json")
    assert (done.returncode, done.stdout) == (64, "")
    assert "--json needs --yes" in done.stderr


def test_a_client_that_cannot_be_made_is_a_matter_of_configuration(
    rig: Rig, tmp_path: Path, environ: dict[str, str]
) -> None:
    kafka = {"bootstrap.servers": "127.0.0.1:1", "security.protocol": "SSL", "ssl.ca.location": "/nowhere.pem"}
    done = bench(
        write_config(tmp_path / "tls.toml", {"database": {"url": rig.database.url}, "kafka": kafka}), environ, *SMALL
    )
    assert done.returncode == 78
    assert "the client refuses [kafka]" in done.stderr


def test_a_broker_that_is_away_is_said_and_nothing_is_left(
    rig: Rig, tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {
        "database": {"url": rig.database.url},
        "kafka": {"bootstrap.servers": f"127.0.0.1:{free_ports(1)[0]}"},
    }
    done = bench(write_config(tmp_path / "away.toml", sections), environ, *SMALL)
    assert done.returncode == 69
    assert done.stderr.startswith("outboxd: Kafka did not ask the brokers")
    assert scratch(rig) == (0, [])
