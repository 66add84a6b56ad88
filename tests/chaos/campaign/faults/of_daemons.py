"""Daemons that are killed, stopped, frozen, and started while others run."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.campaign.daemons import Daemon
from tests.chaos.campaign.faults.kind import Kind, Seen, kinds
from tests.chaos.campaign.stage import NotObservedError, Stage

TTL_SECONDS = 2.0


def kill_owner(stage: Stage, _dice: random.Random) -> Seen:
    """SIGKILL to the owner."""
    owner, ready = stage.settled_pair()
    killed_at = time.time()
    owner.daemon.kill()
    stage.stream.blame("kill-owner")
    return {"exit": -9, **stage.takeover(owner.token, killed_at, ready)}


def kill_standby(stage: Stage, _dice: random.Random) -> Seen:
    """SIGKILL to the standby: its sessions go, and the owner notices nothing."""
    owner, _ = stage.settled_pair()
    pid, began_at = owner.standby.pid, time.time()
    with _held(owner.standby):
        owner.standby.kill()
        gone = not _exists(pid)
        gap = stage.stream.longest_gap(began_at, time.time())
    if not gone:
        raise NotObservedError("the process is still there")
    return {"gone": pid > 0, "longest_gap_seconds": round(gap, 2)}


def kill_both(stage: Stage, dice: random.Random) -> Seen:
    """SIGKILL to both; nobody relays until they are back."""
    owner, _ = stage.settled_pair()
    with _held(owner.daemon), _held(owner.standby):
        killed_at = time.time()
        owner.daemon.kill()
        owner.standby.kill()
        stage.stream.blame("kill-both")
        stage.hold(dice.uniform(0.2, 2.0))
    return {"exit": -9, **stage.takeover(owner.token, killed_at, ready=False)}


def kill_while_starting(stage: Stage, dice: random.Random) -> Seen:
    """SIGKILL to a daemon at some moment of its start."""
    owner, _ = stage.settled_pair()
    starting = owner.standby
    with _held(starting):
        starting.kill()
        starts = starting.starts
        starting.held = False
        stage.until(lambda: starting.starts > starts and starting.is_running, 10, "it was started")
        starting.held = True
        stage.hold(dice.uniform(0.05, 1.2))
        pid = starting.pid
        starting.kill()
        if _exists(pid):
            raise NotObservedError("the process is still there")
        return {"gone": True, "age_seconds": round(time.time() - starting.started_at, 2)}


def stop_owner(stage: Stage, _dice: random.Random) -> Seen:
    """SIGTERM to the owner: it settles what it has and hands over."""
    return _ended_in_order(stage, [signal.SIGTERM])


def stop_owner_twice(stage: Stage, _dice: random.Random) -> Seen:
    """SIGTERM, and again: it ends at once."""
    return _ended_in_order(stage, [signal.SIGTERM, signal.SIGTERM])


def interrupt_owner(stage: Stage, _dice: random.Random) -> Seen:
    """SIGINT, as Ctrl+C."""
    return _ended_in_order(stage, [signal.SIGINT])


def _ended_in_order(stage: Stage, signals: list[signal.Signals]) -> Seen:
    owner, ready = stage.settled_pair()
    with _held(owner.daemon):
        began_at = time.time()
        for number in signals:
            owner.daemon.signal(number)
            # Two of a kind that come at once are one.
            stage.hold(0.05 if len(signals) > 1 else 0.0)
        stage.stream.blame("stop-owner" if len(signals) == 1 else "stop-owner-twice")
        # The lease is given back at the end of the drain, so the takeover counts from the end of the process.
        with contextlib.suppress(NotObservedError):
            stage.takeover(owner.token, began_at, ready, drains=True, seconds=45)
        try:
            code = owner.daemon.wait(45)
        except subprocess.TimeoutExpired:
            raise NotObservedError("it does not end") from None
        drained = stage.pair.since(began_at, "ended", daemon=owner.daemon)
        ended_at = drained[-1].at if drained else time.time()
        seen = stage.takeover(owner.token, began_at, ready, drains=True)
    return {
        "exit": code,
        **seen,
        "ended_after_seconds": round(ended_at - began_at, 3),
        "unsettled": drained[-1].fields.get("unsettled_rows") if drained else None,
    }


def freeze_owner_past_its_lease(stage: Stage, dice: random.Random) -> Seen:
    """SIGSTOP until another owns the outbox, then SIGCONT: a zombie with a full queue."""
    owner, ready = stage.settled_pair()
    frozen_at = time.time()
    owner.daemon.signal(signal.SIGSTOP)
    try:
        seen = stage.takeover(owner.token, frozen_at, ready)
        stage.hold(dice.uniform(0.0, 3.0))
    finally:
        owner.daemon.signal(signal.SIGCONT)
    stage.stream.blame("freeze-owner-past-its-lease")
    lost = stage.event(frozen_at, "lease_lost", 15, daemon=owner.daemon)
    return {**seen, "lease_lost": lost.fields.get("reason"), "frozen_seconds": round(lost.at - frozen_at, 2)}


def freeze_owner_briefly(stage: Stage, dice: random.Random) -> Seen:
    """SIGSTOP for less than its lease."""
    owner, _ = stage.settled_pair()
    length = dice.uniform(0.3, 1.0)
    frozen_at = time.time()
    owner.daemon.signal(signal.SIGSTOP)
    try:
        stage.hold(length)
        state = _state(owner.daemon.pid)
        gap = stage.stream.longest_gap(frozen_at, time.time())
    finally:
        owner.daemon.signal(signal.SIGCONT)
    if state != "T" or gap < 0.5 * length:
        raise NotObservedError(f"state {state}, longest gap {gap:.2f} s of {length:.2f} s")
    return {"frozen_seconds": round(length, 2), "longest_gap_seconds": round(gap, 2)}


def freeze_standby(stage: Stage, dice: random.Random) -> Seen:
    """SIGSTOP to the standby."""
    owner, _ = stage.settled_pair()
    pid = owner.standby.pid
    owner.standby.signal(signal.SIGSTOP)
    try:
        stage.hold(dice.uniform(1.0, 4.0))
        state, answers = _state(pid), owner.standby.get("/livez", 0.5)[0]
    finally:
        owner.standby.signal(signal.SIGCONT)
    if state != "T" or answers:
        raise NotObservedError(f"state {state}, its page answered {answers}")
    code = stage.until(lambda: owner.standby.get("/livez")[0], 10, "it answers again")
    return {"state": state, "page_while_frozen": "no answer", "page_after": code}


def third_daemon(stage: Stage, dice: random.Random) -> Seen:
    """A third one comes, stands by, and goes."""
    third = stage.pair.daemons[2] if len(stage.pair.daemons) > 2 else stage.pair.add()
    third.held = False
    began_at = time.time()
    try:
        stage.until(lambda: third.is_ready, 20, "the third daemon is ready")
        stage.hold(dice.uniform(0.0, 2.0))
    finally:
        third.held = True
        if third.is_running:
            third.signal(signal.SIGTERM)
    code = third.wait(45)
    return {"exit": code, "ready_and_gone_seconds": round(time.time() - began_at, 2)}


def rolling_upgrade(stage: Stage, _dice: random.Random) -> Seen:
    """The standby is restarted, then the owner: as an upgrade does it."""
    owner, ready = stage.settled_pair()
    with _held(owner.standby):
        owner.standby.signal(signal.SIGTERM)
        first = owner.standby.wait(45)
    starts = owner.standby.starts
    stage.until(lambda: owner.standby.starts > starts and owner.standby.is_ready, 20, "the standby is back")
    if stage.owner() != owner:
        raise NotObservedError("another fault took the lease from the owner before its turn")
    with _held(owner.daemon):
        began_at = time.time()
        owner.daemon.signal(signal.SIGTERM)
        second = owner.daemon.wait(45)
        seen = stage.takeover(owner.token, began_at, ready, drains=True)
    return {"exits": [first, second], **seen}


@contextlib.contextmanager
def _held(daemon: Daemon) -> Iterator[None]:
    """Keep the supervisor from starting it."""
    daemon.held = True
    try:
        yield
    finally:
        daemon.held = False


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def _exists(pid: int) -> bool:
    return _state(pid) not in ("gone", "Z")


KINDS: tuple[Kind, ...] = (
    *kinds("daemons", kill_owner, weight=3.0),
    *kinds("daemons", stop_owner, freeze_owner_past_its_lease, weight=2.0),
    *kinds("daemons", kill_both, stop_owner_twice, interrupt_owner, rolling_upgrade),
    *kinds("daemons", kill_standby, kill_while_starting, freeze_owner_briefly, freeze_standby, third_daemon),
)
