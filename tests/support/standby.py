"""A streaming standby beside a test's PostgreSQL, asynchronous, which can be cut off, and promoted without the tail.

primary = PostgresServer()
standby = StandbyServer(primary)
standby.start()
standby.wait_until_caught_up()
standby.cut_off()
...what is committed now is lost...
primary.kill()
standby.promote()
"""

from __future__ import annotations

from pathlib import Path

from tests.support.children import wait_for
from tests.support.postgres import SUPERUSER, PostgresServer
from tests.support.proxy import Fault, TcpProxy
from tests.support.rows import value

CATCH_UP_SECONDS_MAX = 30.0
PROMOTE_SECONDS_MAX = 60


class StandbyServer(PostgresServer):
    """A copy of a running server that follows it, through a proxy of its own."""

    def __init__(self, primary: PostgresServer) -> None:
        """The primary runs, and goes on running until `promote`."""
        super().__init__(primary.settings)
        self._primary = primary
        self._proxy = TcpProxy(("127.0.0.1", primary.port))

    def _make_data(self, root: Path) -> None:
        self._run(
            "pg_basebackup", "--pgdata", root / "data", "--host", "127.0.0.1", "--port", str(self._proxy.port),
            "--username", SUPERUSER, "--wal-method", "stream", "--checkpoint", "fast", "--write-recovery-conf",
            "--no-sync",
        )  # fmt: skip

    def wait_until_caught_up(self) -> None:
        """Wait until all that the primary has committed by now can be seen here."""
        with self._primary.connect() as primary, self.connect() as standby:
            reached = value(primary, "SELECT pg_current_wal_lsn()")
            wait_for(
                lambda: bool(value(standby, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", reached)),
                timeout_seconds=CATCH_UP_SECONDS_MAX,
                what="the standby has caught up",
            )

    def cut_off(self) -> None:
        """Let nothing more come from the primary: what it commits from now on is lost with it."""
        self._proxy.set(Fault.REFUSE)

    def promote(self) -> None:
        """Become a primary; the one before is dead."""
        with self.connect() as connection:
            assert value(connection, "SELECT pg_promote(true, %s)", PROMOTE_SECONDS_MAX)

    def destroy(self) -> None:
        """Stop and remove everything."""
        super().destroy()
        self._proxy.close()


def urls_of(servers: tuple[PostgresServer, ...], dbname: str) -> str:
    """One URL of all these servers, of which a client takes the one that can be written to."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://{SUPERUSER}@{hosts}/{dbname}?target_session_attrs=read-write"
