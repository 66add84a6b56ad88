"""What is around a daemon: its configuration, those who read its metrics, what takes its log."""

from __future__ import annotations

import random
import signal
import socket
import time

from tests.chaos.campaign.daemons import PIPE_BYTES, Daemon
from tests.chaos.campaign.faults.kind import Kind, Seen, kinds
from tests.chaos.campaign.stage import PLAIN, NotObservedError, Stage

BURST_ROWS = 14_000
"""More lines than the daemon's own queue of them holds."""
_BURST = (
    "INSERT INTO outboxd.outbox (topic, payload)"
    " SELECT %s, convert_to(i::text, 'UTF8') FROM generate_series(1, %s) AS i"
)


def good_reload(stage: Stage, dice: random.Random) -> Seen:
    """SIGHUP with other limits and another linger, which means a new producer."""
    owner, _ = stage.settled_pair()
    daemon, whole = owner.daemon, owner.daemon.config.read_text()
    daemon.config.write_text(
        whole.replace("batch_rows = 500", f"batch_rows = {dice.randint(100, 900)}").replace(
            '"linger.ms" = "5"', f'"linger.ms" = "{dice.randint(1, 20)}"'
        )
    )
    began_at = time.time()
    try:
        daemon.signal(signal.SIGHUP)
        taken = stage.event(began_at, "config_reloaded", 10, daemon=daemon)
        stage.hold(1.0)
    finally:
        daemon.config.write_text(whole)
        daemon.signal(signal.SIGHUP)
    return {"changed": taken.fields.get("changed")}


def bad_reload(stage: Stage, dice: random.Random) -> Seen:
    """SIGHUP with a file that cannot be used: the one before stays in effect."""
    owner, _ = stage.settled_pair()
    daemon, whole = owner.daemon, owner.daemon.config.read_text()
    broken = dice.choice([whole.replace("batch_rows", "batch_rowz"), "not = [toml", whole + "\n[relai]\n"])
    daemon.config.write_text(broken)
    began_at = time.time()
    try:
        daemon.signal(signal.SIGHUP)
        refused = stage.event(began_at, "config_reload_failed", 10, daemon=daemon)
        metric = daemon.metric("config_last_reload_successful")
    finally:
        daemon.config.write_text(whole)
        daemon.signal(signal.SIGHUP)
    restored = stage.event(refused.at, "config_reloaded", 10, daemon=daemon)
    return {"refused": True, "metric": metric, "restored_after_seconds": round(restored.at - refused.at, 2)}


def scrapers_hung(stage: Stage, dice: random.Random) -> Seen:
    """Readers of the metrics that ask half a question, or never take the answer."""
    owner, _ = stage.settled_pair()
    began_at = time.time()
    sockets = [_hang(owner.daemon, asks_whole=number % 2 == 0) for number in range(8)]
    try:
        stage.hold(dice.uniform(1.0, 5.0))
        answered, _ = owner.daemon.get("/livez", 2.0)
        rows = stage.stream.rows
        stage.until(lambda: stage.stream.rows > rows, 20, "records come all the same")
    finally:
        for each in sockets:
            each.close()
    return {"hung": len(sockets), "livez_meanwhile": answered, "seconds": round(time.time() - began_at, 1)}


def log_blocked(stage: Stage, dice: random.Random) -> Seen:
    """What takes the log stands still while every row is logged: lines are dropped, rows are not."""
    owner, _ = stage.settled_pair()
    daemon, whole = owner.daemon, owner.daemon.config.read_text()
    daemon.config.write_text(whole.replace('level = "info"', 'level = "debug"'))
    began_at = time.time()
    try:
        daemon.signal(signal.SIGHUP)
        stage.event(began_at, "config_reloaded", 10, daemon=daemon)
        daemon.unread.set()
        rows, blocked_at = stage.stream.rows, time.time()
        with stage.sql() as connection:
            connection.execute(_BURST, (dice.choice(PLAIN), BURST_ROWS))
        stage.hold(dice.uniform(3.0, 6.0))
        passed, waiting = stage.stream.rows - rows, daemon.unread_bytes
        dropped = daemon.metric("log_lines_dropped") or 0.0
    finally:
        daemon.unread.clear()
        daemon.config.write_text(whole)
        daemon.signal(signal.SIGHUP)
    if not passed or waiting < PIPE_BYTES // 2:
        raise NotObservedError(f"{passed} rows went meanwhile, {waiting} bytes of the log were unread")
    return {
        "blocked_seconds": round(time.time() - blocked_at, 1),
        "rows_that_went_meanwhile": passed,
        "unread_bytes": waiting,
        "lines_dropped": int(dropped),
    }


def _hang(daemon: Daemon, *, asks_whole: bool) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", daemon.port), timeout=2)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + (b"\r\n" if asks_whole else b""))
    return connection


KINDS: tuple[Kind, ...] = (
    *kinds("daemons", good_reload, bad_reload, scrapers_hung),
    *kinds("daemons", log_blocked, weight=0.8),
)
