"""docs/install.md by the letter on a machine of its own, and then the service in a real systemd's hands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.documents import ROOT, blocks
from tests.support.kafka_jars import kafka_jars
from tests.systemd.machine import Machine, why_not
from tests.systemd.servers import create_topic, run_postgres, start_kafka, start_postgres

INSTALL = ROOT / "docs" / "install.md"
CONFIG = "/etc/outboxd/outboxd.toml"
UNIT = "outboxd"
DROP_IN = f"/etc/systemd/system/{UNIT}.service.d/test.conf"
APP = "psql -qAtX -v ON_ERROR_STOP=1 postgresql://postgres@localhost/app"
#: What is fetched comes by this system's network; the machine's own has loopback alone.
FETCHING = ("apt-get ", "/opt/outboxd/bin/pip ")

# A machine, a virtual environment from the index and two servers take their time.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine with the wheel of this checkout in root's home, and nothing else of outboxd."""
    reason = why_not()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("machine")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", directory, ROOT],
        check=True, timeout=100,
    )  # fmt: skip
    (wheel,) = directory.glob("*.whl")
    made = Machine(directory, kafka_jars())
    try:
        made.boot()
        made.copy(wheel, f"/root/{wheel.name}")
        yield made
    finally:
        made.destroy()


@pytest.fixture(scope="module")
def outputs(machine: Machine) -> dict[str, str]:
    """Every command of the guide, run as printed, with what it said."""
    (wanted,) = (block.text for block in blocks("toml", INSTALL))
    said: dict[str, str] = {}
    variables = ""
    for block in blocks("sh", INSTALL):
        for command in block.commands:
            if command.startswith("outboxd migrate"):
                # They are "elsewhere or here".
                start_postgres(machine)
                start_kafka(machine)
            if re.match(r"[A-Z]+=", command):
                variables += f"{command}\n"
            said[command] = machine.run(variables + command, this_network=command.startswith(FETCHING))
            if command.startswith("outboxd config init"):
                fill_in(machine, wanted)
    create_topic(machine, "hello")
    return said


def fill_in(machine: Machine, wanted: str) -> None:
    """Take the # away from these options and change their values, as a person with an editor does."""
    text = machine.read(CONFIG)
    for line in wanted.splitlines():
        name, is_option, _ = line.partition(" = ")
        if is_option:
            assert f"\n#{name} = " in text, name
            text = re.sub(rf"(?m)^#{re.escape(name)} = .*$", line, text, count=1)
    machine.write(CONFIG, text + "\n")


@pytest.fixture
def service(machine: Machine, outputs: dict[str, str]) -> Iterator[Machine]:
    """The machine with the service running as the guide left it; what a test changes is undone."""
    config = machine.read(CONFIG)
    yield machine
    machine.write(CONFIG, config + "\n")
    machine.run(f"rm -f {DROP_IN}; systemctl daemon-reload; systemctl reset-failed; systemctl restart {UNIT}")


def state(machine: Machine) -> tuple[str, str, int]:
    """What systemd says of the service: its state, how the last process ended, how often it was restarted."""
    names = ("ActiveState", "Result", "NRestarts")
    active, result, restarts = (machine.property(UNIT, name) for name in names)
    return active, result, int(restarts)


def wait_for_owner(machine: Machine) -> None:
    """Wait until the daemon relays: one that was killed before it may have left its lease."""
    machine.wait("systemctl show --value --property=StatusText outboxd | grep -q '^relaying'", "it relays")


def settle(machine: Machine) -> None:
    """Wait until nothing is pending."""
    pending = "SELECT 1 / (count(*) = 0)::int FROM outboxd.outbox WHERE published_at IS NULL"
    machine.wait(f'{APP} -c "{pending}"', "nothing is pending")


def test_the_guide_leads_to_a_running_hardened_service(service: Machine, outputs: dict[str, str]) -> None:
    assert state(service) == ("active", "success", 0)
    assert "Active: active (running)" in outputs["systemctl status outboxd"]
    assert 'Status: "relaying' in outputs["systemctl status outboxd"]
    (exposure,) = re.findall(r"exposure level for outboxd.service: ([0-9.]+)", "".join(outputs.values()))
    assert float(exposure) <= 1.2
    assert outputs["systemd-analyze verify --man=no /etc/systemd/system/outboxd.service"] == ""
    assert "/share/man/man8/outboxd.8" in service.run("man --where 8 outboxd")
    settle(service)
    assert service.run(f'{APP} -c "SELECT published_partition, published_offset FROM outboxd.outbox"') == "0|0"
    with_password = "--set database.password_file=/etc/credstore/outboxd.database.password"
    assert service.run(f"outboxd audit -c {CONFIG} {with_password}")


def test_it_runs_as_a_user_of_its_own_without_rights_and_its_secret_is_nowhere_to_be_seen(service: Machine) -> None:
    pid = service.property(UNIT, "MainPID")
    process = service.read(f"/proc/{pid}/status")
    assert re.search(r"CapEff:\s0+$", process, re.MULTILINE)
    assert re.search(r"CapBnd:\s0+$", process, re.MULTILINE)
    assert re.search(r"NoNewPrivs:\s1$", process, re.MULTILINE)
    assert re.search(r"Seccomp:\s2$", process, re.MULTILINE)
    assert service.run(f"ps -o user= -p {pid}") == "outboxd"
    secret = service.read("/etc/credstore/outboxd.database.password")
    assert secret
    environ = f"tr '\\0' '\\n' </proc/{pid}/environ"
    everywhere = f"ps axeww; {environ}; systemctl show {UNIT}; journalctl --no-pager --output=json --all --unit={UNIT}"
    assert secret not in service.run(everywhere)
    assert "url" in service.run(f"CREDENTIALS_DIRECTORY= outboxd config show -c {CONFIG}")
    assert (
        service.run(
            f"{APP} -c \"SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name LIKE 'outboxd%'\""
        )
        == "outboxd"
    )


def test_the_journal_has_the_events_with_their_fields(service: Machine) -> None:
    service.run(f"systemctl restart {UNIT}")
    service.wait(f"journalctl --unit={UNIT} OUTBOXD_EVENT=owner --output=json -n 1 | grep -q owner", "an owner")
    lines = service.run(f"journalctl --unit={UNIT} OUTBOXD_EVENT=owner --output=json -n 1")
    entry = json.loads(lines)
    assert entry["PRIORITY"] == "6"
    assert entry["SYSLOG_IDENTIFIER"] == "outboxd"
    assert int(entry["OUTBOXD_TOKEN"]) >= 1
    assert entry["MESSAGE"].startswith("This daemon relays the outbox now")


def test_the_status_is_a_sentence_that_follows_what_happens(service: Machine) -> None:
    wait_for_owner(service)
    service.run("systemctl stop database")
    service.wait(
        "systemctl show --value --property=StatusText outboxd | grep -q 'the database does not answer'", "an outage"
    )
    assert state(service)[0] == "active"
    run_postgres(service)
    service.wait("systemctl show --value --property=StatusText outboxd | grep -q '^relaying, idle$'", "it is over")


def test_a_reload_takes_what_changed(service: Machine) -> None:
    pid = service.property(UNIT, "MainPID")
    service.run(f"sed -i 's/^#batch_rows = .*/batch_rows = 1234/' {CONFIG} && systemctl reload {UNIT}")
    service.wait(f"journalctl --unit={UNIT} --output=cat | grep -q 'in effect now: relay.batch_rows'", "it was taken")
    assert state(service)[0] == "active"
    assert service.property(UNIT, "MainPID") == pid


def test_a_reload_of_a_file_with_a_mistake_fails_in_words_and_the_daemon_goes_on(service: Machine) -> None:
    pid = service.property(UNIT, "MainPID")
    service.run(f"sed -i 's/^#batch_rows = .*/batch_rowz = 1/' {CONFIG}")
    assert "failed" in service.fails(f"systemctl reload {UNIT}")
    assert "relay.batch_rowz: no such key; did you mean batch_rows?" in service.journal(UNIT, "--lines=5")
    assert state(service)[0] == "active"
    assert service.property(UNIT, "MainPID") == pid


def test_a_reload_sees_the_token_that_is_a_credential(service: Machine) -> None:
    service.write("/etc/credstore/outboxd.http.token", "0123456789abcdef")
    service.run(f'sed -i \'s/^#listen = "127.*/listen = "0.0.0.0:9464"/\' {CONFIG} && systemctl restart {UNIT}')
    try:
        service.run(f"systemctl reload {UNIT}")
        service.wait("curl -sf http://127.0.0.1:9464/readyz >/dev/null", "it listens")
    finally:
        service.run("rm /etc/credstore/outboxd.http.token")


def test_a_frozen_daemon_is_killed_by_the_watchdog_and_started_again(service: Machine) -> None:
    service.write(DROP_IN, "[Service]\nWatchdogSec=2s\n")
    service.run(f"systemctl daemon-reload; systemctl restart {UNIT}; systemctl kill --signal=STOP {UNIT}")
    service.wait(f"test $(systemctl show --value --property=NRestarts {UNIT}) = 1", "it is started again")
    service.wait(f"systemctl is-active {UNIT}", "it is ready again")
    assert "Watchdog timeout" in service.journal(UNIT)


def test_a_daemon_whose_fetch_is_stuck_is_ended_by_the_watchdog(service: Machine) -> None:
    service.write(DROP_IN, "[Service]\nWatchdogSec=2s\n")
    # Lock waits end within a third of the lease; here they last.
    service.run(f"sed -i 's/^#lease_ttl = .*/lease_ttl = \"60s\"/' {CONFIG}")
    service.run(f"systemctl daemon-reload; systemctl restart {UNIT}")
    wait_for_owner(service)
    lock = "BEGIN; LOCK TABLE outboxd.outbox IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)"
    service.run(f'systemd-run --quiet --unit=lock {APP} -c "{lock}"')
    try:
        service.wait(f"test $(systemctl show --value --property=NRestarts {UNIT}) -ge 1", "it is started again")
    finally:
        service.run(
            f"{APP} -c \"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'\""
        )
    assert "Watchdog timeout" in service.journal(UNIT, "--lines=40")


def test_a_crash_is_followed_by_another_start(service: Machine) -> None:
    service.run(f"systemctl kill --signal=KILL {UNIT}")
    service.wait(f"test $(systemctl show --value --property=NRestarts {UNIT}) = 1", "it is started again")
    service.wait(f"systemctl is-active {UNIT}", "it is ready again")


def test_a_mistake_in_the_configuration_is_final_until_somebody_mends_it(service: Machine) -> None:
    config = service.read(CONFIG)
    service.write(CONFIG, config + "\n[relai]\n")
    service.fails(f"systemctl restart {UNIT}")
    assert state(service) == ("failed", "exit-code", 0)
    assert service.property(UNIT, "ExecMainStatus") == "78"
    assert "relai: no such section; did you mean relay?" in service.journal(UNIT, "--lines=5")


def test_a_server_that_is_away_at_the_start_is_waited_for(service: Machine) -> None:
    service.run(f"systemctl stop {UNIT} database")
    service.run(f"systemctl start --no-block {UNIT}")
    service.wait(f"test $(systemctl show --value --property=NRestarts {UNIT}) -ge 1", "it is tried again")
    assert state(service)[0] == "activating"
    run_postgres(service)
    service.wait(f"systemctl is-active {UNIT}", "it is ready")


def test_it_logs_in_over_the_socket_by_its_name_alone(service: Machine) -> None:
    service.run(f"sed -i 's|^url = .*|url = \"postgresql:///app?host=/run/postgresql\"|' {CONFIG}")
    service.run("mv /etc/credstore/outboxd.database.password /root/password")
    try:
        service.run(f"systemctl restart {UNIT}")
        assert service.run(f"{APP} -c \"SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'outboxd'\"") == "t"
        service.run(f"systemctl reload {UNIT}")
    finally:
        service.run("mv /root/password /etc/credstore/outboxd.database.password")


def test_a_second_outbox_has_a_service_of_the_template(service: Machine) -> None:
    table = "CREATE TABLE outboxd.orders (LIKE outboxd.outbox INCLUDING ALL)"
    grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON outboxd.orders TO outboxd_relay"
    service.run(f"{APP} -c '{table}' -c '{grant}'")
    changes = (
        's/^#name = .*/name = "orders"/',
        's/^#table = .*/table = "orders"/',
        's/:9464"/:9465"/',
        "s/^#listen/listen/",
    )
    script = "; ".join(changes)
    service.run(f"sed '{script}' {CONFIG} >/etc/outboxd/orders.toml")
    service.run("cp /etc/credstore/outboxd.database.password /etc/credstore/outboxd.orders.database.password")
    service.run("systemctl enable --now outboxd@orders")
    assert service.property("outboxd@orders", "ActiveState") == "active"
    service.run("systemctl reload outboxd@orders")
    service.run("systemctl disable --now outboxd@orders")
    assert service.property("outboxd@orders", "Result") == "success"


def test_a_stop_drains_and_leaves_nothing_behind(service: Machine) -> None:
    create_topic(service, "many")
    wait_for_owner(service)
    rows = (
        "INSERT INTO outboxd.outbox (topic, key, payload)"
        " SELECT 'many', 'k' || i % 100, 'x' FROM generate_series(1, 20000) AS i"
    )
    service.run(f'{APP} -c "{rows}"; systemctl stop {UNIT}')
    assert state(service)[:2] == ("inactive", "success")
    assert service.property(UNIT, "ExecMainStatus") == "0"
    assert service.run(f"{APP} -c 'SELECT outbox FROM outboxd.lease WHERE expires_at > now()'") == ""
    assert "ls:" in service.fails("ls /run/credentials/outboxd.service")
    service.run(f"systemctl start {UNIT}")
    settle(service)
    # Each row has an offset of its own, and the topic ends right after the last: nothing was sent twice.
    assert (
        service.run(f"{APP} -c \"SELECT count(*), max(published_offset) FROM outboxd.outbox WHERE topic = 'many'\"")
        == "20000|19999"
    )
