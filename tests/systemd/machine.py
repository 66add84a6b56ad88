"""A machine for tests: systemd as process 1 over a layer that is thrown away, with a loopback network of its own.

machine = Machine(directory, kafka_libs)
machine.boot()
machine.run("systemctl start outboxd")
machine.destroy()
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.support.children import end, spawn, wait_for

BOOT = Path(__file__).parent / "boot.sh"
BOOT_SECONDS_MAX = 60.0
COMMAND_SECONDS_MAX = 240.0
_PROGRAMS = ("unshare", "nsenter", "setpriv", "pivot_root", "systemctl")
_NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--cgroup")


def why_not() -> str | None:
    """Why no machine can be booted here, in a sentence; None where it can be tried."""
    if os.geteuid() != 0:
        return "it takes root to boot a systemd of its own: run it by root"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed: apt-get install systemd"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install systemd util-linux"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlay file system"
    if _control_groups() is None:
        return "no cgroup2 is mounted"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else f"no namespaces may be made here: {tried.stderr.decode().strip()}"


def _control_groups() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(place)
    return None


class Machine:
    """One machine; nothing of it outlives the test run, and this system's files stay as they are."""

    def __init__(self, directory: Path, kafka_libs: Path) -> None:
        groups = _control_groups()
        assert groups is not None
        self._group = groups / f"outboxd-test-{os.getpid()}"
        self._layer = directory / "layer"
        self._layer.mkdir()
        self._log = directory / "boot.log"
        self._kafka_libs = kafka_libs
        self._child: subprocess.Popen[bytes] | None = None
        self._init_pid = 0

    def boot(self) -> None:
        """Start it and wait until systemd says that it is up."""
        self._group.mkdir()
        unshare = ["unshare", *_NAMESPACES, "--net", "--fork", "--kill-child=KILL"]
        # The shell enters the control group, so that the machine sees nothing but what is below it.
        enter = f'echo $$ >"{self._group}/cgroup.procs" && exec "$@"'
        boot = ["sh", str(BOOT), str(self._layer), str(self._kafka_libs)]
        self._child = spawn(["sh", "-c", enter, "enter", *unshare, *boot], log=self._log)
        wait_for(self._is_up, timeout_seconds=BOOT_SECONDS_MAX, what=f"systemd is up; see {self._log}")

    def _is_up(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, f"it did not boot: {self._log.read_text()}"
        children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children").read_text().split()
        self._init_pid = int(children[0]) if children else 0
        # A unit of the system below that fails in a container is no concern of the tests.
        return bool(self._init_pid) and self._answer("systemctl is-system-running")[1] in ("running", "degraded")

    def destroy(self) -> None:
        """End all of its processes; its files are gone with them."""
        if self._child is not None:
            end(self._child, grace_seconds=0)
        deadline = time.monotonic() + 10
        while self._group.exists() and time.monotonic() < deadline:
            for group in sorted(self._group.rglob("*/"), key=lambda path: -len(path.parts)):
                with suppress(OSError):
                    group.rmdir()
            with suppress(OSError):
                self._group.rmdir()
            time.sleep(0.05)

    # --- What is done there

    def run(self, command: str, *, this_network: bool = False) -> str:
        """Run a line of shell and return its standard output; it has to succeed.

        `this_network`: by the network of this system, for what is fetched.
        """
        code, out, err = self._answer(command, this_network=this_network)
        assert code == 0, f"{command}: {code}\n{out}\n{err}"
        return out

    def fails(self, command: str) -> str:
        """Run a line of shell that has to fail; return what it said."""
        code, out, err = self._answer(command)
        assert code != 0, f"{command} succeeded:\n{out}"
        return out + err

    def wait(self, command: str, what: str, *, timeout_seconds: float = 120.0) -> None:
        """Wait until this command succeeds."""
        wait_for(lambda: self._answer(command)[0] == 0, timeout_seconds=timeout_seconds, what=what, poll_seconds=0.2)

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        self._answer(f"mkdir -p $(dirname {path}) && cat >{path}", text=text)

    def copy(self, source: Path, path: str) -> None:
        """Bring a file of this system there."""
        shutil.copyfile(source, f"/proc/{self._init_pid}/root{path}")

    def read(self, path: str) -> str:
        """Read a file."""
        return self.run(f"cat {path}")

    def property(self, unit: str, name: str) -> str:
        """What systemd says of a unit."""
        return self.run(f"systemctl show --value --property={name} {unit}").strip()

    def journal(self, unit: str, *options: str) -> str:
        """What a unit said."""
        return self.run(f"journalctl --no-pager --unit={unit} --output=cat {' '.join(options)}")

    def _answer(self, command: str, *, this_network: bool = False, text: str = "") -> tuple[int, str, str]:
        variables = {
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
            # How this system reaches a package index is part of its network.
            **{name: value for name, value in os.environ.items() if this_network and name.startswith("PIP_")},
        }
        enter = ["nsenter", "--target", str(self._init_pid), *_NAMESPACES, *([] if this_network else ["--net"])]
        environ = [f"{name}={value}" for name, value in variables.items()]
        done = subprocess.run(
            [*enter, "env", "-i", *environ, "bash", "-euo", "pipefail", "-c", f"cd /root\n{command}"],
            input=text, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.strip(), done.stderr
