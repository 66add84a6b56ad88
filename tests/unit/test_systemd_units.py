"""The units of systemd/: they agree with the code, with each other, and with systemd's own judgement."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from outboxd import errors
from outboxd.config.librdkafka import COMMON_PROPERTIES
from outboxd.config.model import SECTIONS
from outboxd.config.redaction import is_secret
from outboxd.config.section import kind_of
from outboxd.config.sections import RelaySettings

ROOT = Path(__file__).parents[2]
UNITS = (ROOT / "systemd" / "outboxd.service", ROOT / "systemd" / "outboxd@.service")
EXPOSURE_MAX = 1.5


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^([A-Za-z]+)=(.*)$", unit.read_text()):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def analyze() -> str:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-analyze is missing; .ci/run installs it")
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    return tool


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_little_exposed(unit: Path, analyze: str) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX * 10:.0f}", unit],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    (level,) = re.findall(r"exposure level for .*: ([0-9.]+)", done.stdout)
    assert float(level) <= EXPOSURE_MAX, done.stdout
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_no_mistake(unit: Path, analyze: str, tmp_path: Path) -> None:
    # Here outboxd is elsewhere than where docs/install.md puts it.
    here = shutil.which("outboxd", path=str(Path(sys.executable).parent)) or sys.executable
    name = unit.name.replace("@.", "@orders.")
    (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/outboxd/bin/outboxd", here))
    done = subprocess.run(
        [analyze, "verify", "--man=no", tmp_path / name], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_start_is_not_repeated_where_it_would_end_the_same_way(unit: Path) -> None:
    given = settings(unit)
    assert given["Restart"] == ["always"]
    assert {int(code) for code in given["RestartPreventExitStatus"][0].split()} == {
        errors.EXIT_USAGE,
        errors.EXIT_PERMISSION,
        errors.EXIT_CONFIG,
    }


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_secret_can_come_as_a_credential(unit: Path) -> None:
    credentials = {line.partition(":")[0] for line in settings(unit)["LoadCredential"]}
    ours = {
        f"{name}.{key}"
        for name, model in SECTIONS.items()
        for key, (_, info) in model.fields_by_key().items()
        if getattr(kind_of(info), "secret", False)
    }
    clients = {f"kafka.{name}" for name in COMMON_PROPERTIES if is_secret(name)}
    # What everybody may see need not be loaded as a secret.
    assert ours | clients - {"kafka.ssl.ca.pem"} <= credentials


def test_the_template_is_the_same_but_for_its_names() -> None:
    single, template = (settings(unit) for unit in UNITS)
    named = ("Description", "Documentation")
    text = "\n".join(f"{name}={value}" for name, values in template.items() for value in values)
    assert [line for line in text.splitlines() if not line.startswith(named)] == [
        f"{name}={value}".replace("/etc/outboxd/outboxd.toml", "/etc/outboxd/%i.toml").replace(
            ":outboxd.", ":outboxd.%i."
        )
        for name, values in single.items()
        for value in values
        if name not in named
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_it_is_given_the_time_to_drain(unit: Path) -> None:
    (seconds,) = (int(value.removesuffix("s")) for value in settings(unit)["TimeoutStopSec"])
    assert seconds > RelaySettings().shutdown_timeout_seconds + 10
