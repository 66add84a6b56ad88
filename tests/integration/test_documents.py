"""What the guides show is run: SQL, commands of outboxd, and the installation from wheel to service."""

from __future__ import annotations

import os
import re
import shlex
import signal
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.children import end, free_ports, spawn
from tests.support.daemon import write_config
from tests.support.documents import GUIDES, ROOT, Block, blocks
from tests.support.notify_socket import NotifySocket
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig
from tests.support.rows import value

INSTALL = ROOT / "docs" / "install.md"
OTHERS = [guide for guide in GUIDES if guide != INSTALL]
#: These need a running systemd, or belong to other programs and machines.
NOT_HERE = ("systemctl ", "apt-get ", "make ", "outboxd run")


@pytest.mark.parametrize("block", blocks("sql"), ids=lambda block: block.place)
def test_sql_that_is_shown_runs(block: Block, database: Database) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, status text)")
        connection.execute("CREATE ROLE outboxd LOGIN")
        try:
            connection.execute(block.text.encode())
        finally:
            connection.execute("ROLLBACK; DROP ROLE outboxd")


def test_commands_that_are_shown_run(rig: Rig, tmp_path: Path) -> None:
    rig.kafka.create_topic("orders")
    config = write_config(
        tmp_path / "shown.toml",
        {
            "database": {"url": rig.database.url},
            "kafka": {"bootstrap.servers": rig.kafka.bootstrap},
            "http": {"listen": ""},
        },
    )
    environ = {name: text for name, text in os.environ.items() if not name.startswith(("OUTBOXD_", "PG"))}
    shown = [(block.place, command) for block in blocks("sh", *OTHERS) for command in block.commands]
    assert len(shown) > 12
    for place, command in shown:
        if command.startswith(NOT_HERE):
            continue
        program, *arguments = shlex.split(command)
        assert program == "outboxd", (place, command)
        done = subprocess.run(
            [sys.executable, "-m", "outboxd", *arguments],
            capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
            env={**environ, "OUTBOXD_CONFIG": str(config), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, (place, command, done.stdout, done.stderr)


# --- The installation, step by step.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", directory, ROOT],
        check=True, timeout=100,
    )  # fmt: skip
    (built,) = directory.glob("*.whl")
    return built


class Machine:
    """A directory that stands for a machine: the paths of the guide lead into it, and its commands run there."""

    def __init__(self, root: Path, rig: Rig, wheel: Path) -> None:
        self.root = root
        self._rig = rig
        postgres = rig.database.url
        self._there = {
            "/opt/outboxd/bin/pip install outboxd-*.whl": f"{root}/opt/outboxd/bin/pip install --no-deps {wheel}",
            "postgresql://postgres@localhost/app": postgres,
            "postgresql://outboxd@localhost/app?sslmode=prefer": rig.database.url_as("outboxd"),
            "localhost:9092": rig.kafka.bootstrap,
            "/usr/local": f"{root}/usr/local",
            "/opt/": f"{root}/opt/",
            "/etc/": f"{root}/etc/",
        }
        for directory in ("usr/local/bin", "etc/systemd/system"):
            (root / directory).mkdir(parents=True)
        self._path = f"{root}/usr/local/bin:{rig.database.server.installation.bin_dir}:{os.environ['PATH']}"
        self._variables = ""

    def here(self, text: str) -> str:
        """The text with the machine's paths and addresses in place of the guide's."""
        pattern = "|".join(re.escape(each) for each in sorted(self._there, key=len, reverse=True))
        return re.sub(pattern, lambda match: self._there[match[0]], text)

    def run(self, command: str) -> str:
        """Run one line as the guide has it; a variable that it sets stays."""
        line = self.here(command)
        if re.match(r"[A-Z]+=", line):
            self._variables += f"{line}\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{self._variables}{line}"],
            capture_output=True, text=True, timeout=100, check=False, cwd=self.root,
            env={"PATH": self._path, "HOME": str(self.root), "LANG": "C.UTF-8"},
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def bring_dependencies(self) -> None:
        """The index is not asked: what the wheel needs comes from where the tests run."""
        (packages,) = (self.root / "opt/outboxd/lib").glob("python3*/site-packages")
        (packages / "dependencies.pth").write_text("\n".join([sysconfig.get_path("purelib"), *site.getsitepackages()]))

    def move_units(self) -> None:
        """The units name where outboxd is on a machine of its own."""
        for unit in (self.root / "etc/systemd/system").glob("*.service"):
            unit.write_text(self.here(unit.read_text()))


@pytest.fixture
def machine(rig: Rig, tmp_path: Path, wheel: Path) -> Iterator[Machine]:
    # The installation makes the tables itself.
    rig.sql.execute("DROP SCHEMA outboxd CASCADE")
    made = Machine(tmp_path / "machine", rig, wheel)
    try:
        yield made
    finally:
        roles = [f"outboxd_{name}" for name in ("writer", "relay", "operator", "reader")]
        for role in ["outboxd", *roles]:
            if value(rig.sql, "SELECT count(*) FROM pg_roles WHERE rolname = %s", role):
                rig.sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_the_installation_leads_to_a_running_service(
    machine: Machine, rig: Rig, notify_socket: NotifySocket, tmp_path: Path
) -> None:
    rig.topics.append(rig.kafka.create_topic("hello"))
    config = machine.root / "etc/outboxd/outboxd.toml"
    port = free_ports(1)[0]
    child: subprocess.Popen[bytes] | None = None
    outputs: dict[str, str] = {}
    try:
        for block in blocks("sh", INSTALL):
            for command in block.commands:
                if command.startswith("systemctl enable --now outboxd"):
                    child = start_unit(machine, tmp_path)
                    notify_socket.wait_for("READY=1", timeout_seconds=30)
                if not command.startswith(NOT_HERE):
                    outputs[command] = machine.run(command)
                if command.startswith("cp $DATA/systemd"):
                    machine.move_units()
                if "venv" in command and "python3 -m" in command:
                    machine.bring_dependencies()
                if command.startswith("outboxd config init"):
                    (wanted,) = (each.text for each in blocks("toml", INSTALL))
                    config.write_text(f'{machine.here(wanted)}\n[http]\nlisten = "127.0.0.1:{port}"\n')
        assert child is not None
        rig.wait_until_settled()
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    finally:
        if child is not None:
            end(child, grace_seconds=0)
    (exposure,) = re.findall(r"exposure level for outboxd.service: ([0-9.]+)", "".join(outputs.values()))
    assert float(exposure) <= 1.2
    assert [record.value for record in rig.kafka.consume("hello")] == [b'{"hello": "world"}']
    assert (machine.root / "usr/local/share/man/man8/outboxd.8").resolve().exists()


def start_unit(machine: Machine, directory: Path) -> subprocess.Popen[bytes]:
    """Do what systemd does with the unit: its credentials, where there are any, and its command."""
    unit = (machine.root / "etc/systemd/system/outboxd.service").read_text()
    credentials = directory / "credentials"
    credentials.mkdir()
    for name, source in re.findall(r"(?m)^LoadCredential=([^:]+):(.+)$", unit):
        stored = machine.root / "etc/credstore" / source
        if stored.exists():
            (credentials / name).write_bytes(stored.read_bytes())
    environ = {"PATH": os.environ["PATH"], "CREDENTIALS_DIRECTORY": str(credentials)}
    for command in re.findall(r"(?m)^Exec(?:StartPre=-|Reload=\+\S+ \S+ )(.+/outboxd .+)$", unit):
        done = subprocess.run(
            shlex.split(command), env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    (command,) = re.findall(r"(?m)^ExecStart=(.+)$", unit)
    environ["NOTIFY_SOCKET"] = os.environ["NOTIFY_SOCKET"]
    return spawn(shlex.split(command), log=directory / "service.log", env=environ)
