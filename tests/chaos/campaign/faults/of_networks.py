"""A network that cuts, delays, swallows and half-closes, on the daemons' ways to either side."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.chaos.campaign.faults.kind import Kind, Seen, kinds
from tests.chaos.campaign.servers import SSL_REQUEST, ping
from tests.chaos.campaign.stage import NotObservedError, Stage
from tests.support.proxy import Fault, TcpProxy

PING_SECONDS = 0.8
Ask = Callable[[TcpProxy, float], float | None]
"""Asks a server through its proxy, for so many seconds at most."""


def kafka_cut(stage: Stage, _dice: random.Random) -> Seen:
    """All connections to all brokers are reset."""
    return _cut(stage, stage.brokers.proxies, TcpProxy.cut)


def kafka_half_closed(stage: Stage, _dice: random.Random) -> Seen:
    """The brokers seem to have ended their streams."""
    return _cut(stage, stage.brokers.proxies, TcpProxy.half_close)


def kafka_delayed(stage: Stage, dice: random.Random) -> Seen:
    """Every chunk takes its time."""
    delay_ms = dice.uniform(50, 400)
    return _delayed(stage, _some(stage.brokers.proxies, dice), delay_ms, dice, _ask_kafka(stage))


def kafka_black_hole(stage: Stage, dice: random.Random) -> Seen:
    """Bytes vanish, and nobody is told."""
    return _silenced(stage, _some(stage.brokers.proxies, dice), Fault.BLACK_HOLE, dice, _ask_kafka(stage))


def kafka_replies_lost(stage: Stage, dice: random.Random) -> Seen:
    """One way: what brokers answer vanishes, acknowledgements with it."""
    return _silenced(stage, _some(stage.brokers.proxies, dice), Fault.SWALLOW_REPLIES, dice, _ask_kafka(stage))


def kafka_refused(stage: Stage, dice: random.Random) -> Seen:
    """Connections are reset as soon as they are made."""
    return _silenced(stage, _some(stage.brokers.proxies, dice), Fault.REFUSE, dice, _ask_kafka(stage))


def postgres_cut(stage: Stage, _dice: random.Random) -> Seen:
    """All the daemons' sessions are reset."""
    stage.stream.blame("postgres-cut")
    return _cut(stage, stage.postgres.proxies, TcpProxy.cut)


def postgres_half_closed(stage: Stage, _dice: random.Random) -> Seen:
    """The server seems to have ended its streams."""
    stage.stream.blame("postgres-half-closed")
    return _cut(stage, stage.postgres.proxies, TcpProxy.half_close)


def postgres_delayed(stage: Stage, dice: random.Random) -> Seen:
    """Every chunk takes its time."""
    stage.stream.blame("postgres-delayed")
    return _delayed(stage, stage.postgres.proxies, dice.uniform(20, 150), dice, _ask_postgres(stage))


def postgres_black_hole(stage: Stage, dice: random.Random) -> Seen:
    """Bytes vanish, and nobody is told."""
    stage.stream.blame("postgres-black-hole")
    return _silenced(stage, stage.postgres.proxies, Fault.BLACK_HOLE, dice, _ask_postgres(stage))


def postgres_replies_lost(stage: Stage, dice: random.Random) -> Seen:
    """One way: what the server answers vanishes, as after a commit that did happen."""
    stage.stream.blame("postgres-replies-lost")
    return _silenced(stage, stage.postgres.proxies, Fault.SWALLOW_REPLIES, dice, _ask_postgres(stage))


def postgres_refused(stage: Stage, dice: random.Random) -> Seen:
    """Connections are reset as soon as they are made."""
    stage.stream.blame("postgres-refused")
    return _silenced(stage, stage.postgres.proxies, Fault.REFUSE, dice, _ask_postgres(stage))


def _cut(stage: Stage, proxies: list[TcpProxy], act: Callable[[TcpProxy], int]) -> Seen:
    began_at = time.time()
    accepted = sum(proxy.accepted for proxy in proxies)
    cut = sum(act(proxy) for proxy in proxies)
    if not cut:
        raise NotObservedError("there was no connection")
    stage.until(lambda: sum(proxy.accepted for proxy in proxies) > accepted, 20, "a new connection")
    reconnected = time.time() - began_at
    if act is TcpProxy.half_close:
        # What was half closed would stay so for ever on the clients that do not notice.
        stage.hold(1.0)
        for proxy in proxies:
            proxy.cut()
    return {
        "connections": cut,
        "reconnected_after_seconds": round(reconnected, 3),
        "daemons": stage.reactions(began_at),
    }


def _delayed(stage: Stage, proxies: list[TcpProxy], delay_ms: float, dice: random.Random, ask: Ask) -> Seen:
    began_at = time.time()
    for proxy in proxies:
        proxy.delay(delay_ms)
    try:
        answers = [ask(proxy, 3.0) for proxy in proxies]
        stage.hold(dice.uniform(1.0, 6.0))
    finally:
        for proxy in proxies:
            proxy.delay(0)
    shortest_ms = min((answer for answer in answers if answer is not None), default=0.0) * 1000
    if shortest_ms < delay_ms:
        raise NotObservedError(f"the first answer came after {shortest_ms:.0f} ms")
    return {"delay_ms": round(delay_ms), "answer_ms": round(shortest_ms), "daemons": stage.reactions(began_at)}


def _silenced(stage: Stage, proxies: list[TcpProxy], fault: Fault, dice: random.Random, ask: Ask) -> Seen:
    began_at = time.time()
    open_before = sum(proxy.open_connections for proxy in proxies)
    for proxy in proxies:
        proxy.set(fault)
    try:
        answers = [answer for proxy in proxies if (answer := ask(proxy, PING_SECONDS)) is not None]
        stage.hold(dice.uniform(0.2, 4.0))
        length = time.time() - began_at
        gap = stage.stream.longest_gap(began_at, time.time())
    finally:
        for proxy in proxies:
            proxy.set(Fault.PASS)
    if answers:
        raise NotObservedError(f"{len(answers)} answers came through")
    return {
        "ways": len(proxies),
        "connections": open_before,
        "seconds": round(length, 2),
        "longest_gap_of_deliveries_seconds": round(gap, 2),
        "daemons": stage.reactions(began_at),
    }


def _some(proxies: list[TcpProxy], dice: random.Random) -> list[TcpProxy]:
    """One broker's way, or all of them."""
    return [dice.choice(proxies)] if dice.random() < 0.6 else list(proxies)


def _ask_kafka(stage: Stage) -> Ask:
    def ask(proxy: TcpProxy, seconds: float) -> float | None:
        return stage.brokers.ping(stage.brokers.proxies.index(proxy), proxied=True, timeout_seconds=seconds)

    return ask


def _ask_postgres(_stage: Stage) -> Ask:
    return lambda proxy, seconds: ping(proxy.port, SSL_REQUEST, seconds)


KINDS: tuple[Kind, ...] = (
    *kinds(
        "kafka-net", kafka_cut, kafka_half_closed, kafka_delayed, kafka_black_hole, kafka_replies_lost, kafka_refused,
        hinders_delivery=True,
    ),
    *kinds(
        "postgres-net", postgres_cut, postgres_half_closed, postgres_delayed, postgres_black_hole,
        postgres_replies_lost, postgres_refused, weight=0.8, hinders_lease=True,
    ),
)  # fmt: skip
