"""The page and its JSON: what is shown to whom, what may be changed by whom, and what a hanging peer costs."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, Gauge

from outboxd.observability.status import StatusBoard
from outboxd.postgres.operators.dead_letter_rows import WholeLetter
from outboxd.relay.settle.writing import REFUSED
from outboxd.relay.status import BreakerStatus, HeldStatus, HeldTopicStatus
from outboxd.web.app import App
from outboxd.web.dead_letters import readable, whole_as_dict
from outboxd.web.guard import Guard
from outboxd.web.page import Page, load_page
from outboxd.web.server import HttpServer
from tests.support.page_letters import MemoryLetters, letter
from tests.unit.test_status_board import IDLE, Clock

TOKEN = "correct horse"
DEADLINE_SECONDS = 10


class Site:
    """A running server with a board behind it."""

    def __init__(self, *, listen_host: str = "127.0.0.1", token: str = TOKEN, **server: Any) -> None:
        self.clock = Clock()
        self.board = StatusBoard(daemon="here:1", monotonic=self.clock, wall=self.clock)
        self.letters = MemoryLetters({1: b'{"a": 1}', 2: b"\xff\x00", 3: None}, needs_force=frozenset({2}))
        self.events: list[tuple[str, dict[str, object]]] = []
        registry = CollectorRegistry()
        Gauge("outboxd_leader", "x", registry=registry).set(1)
        self.app = App(
            self.board, registry, Guard(listen_host, token, self.clock), event=self.event, dead_letters=self.letters
        )
        self.server = HttpServer(self.app, "127.0.0.1", 0, look_seconds=0.02, **server)
        self.server.start()

    def event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))

    def ask(
        self, path: str, *, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(*self.server.address, timeout=DEADLINE_SECONDS)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and "Content-Type" not in sent:
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def json(self, path: str, **options: Any) -> tuple[int, Any]:
        status, _, body = self.ask(path, **options)
        return status, json.loads(body)

    def change(self, verb: str, body: Any, **headers: str) -> tuple[int, Any]:
        headers.setdefault("Authorization", f"Bearer {TOKEN}")
        return self.json(f"/api/dead-letters/{verb}", method="POST", body=body, **headers)


@pytest.fixture
def sites() -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(**options: Any) -> Site:
        made.append(Site(**options))
        return made[-1]

    yield make
    for site in made:
        site.server.stop()


@pytest.fixture
def site(sites: Callable[..., Site]) -> Site:
    return sites()


# Health.


def test_livez_is_ok_while_the_loop_advances_and_says_when_it_does_not(site: Site) -> None:
    assert site.json("/livez")[0] == 200
    site.board.publish(IDLE)
    site.clock.now += 14
    assert site.json("/livez")[0] == 200
    site.board.publish(IDLE)  # The same turn: somebody looks, but the loop does not advance.
    site.clock.now += 6
    status, told = site.json("/livez")
    assert (status, told["why"]) == (503, ["the relay's loop has not advanced for 20 s"])
    site.board.publish(replace(IDLE, turns=2))
    assert site.json("/livez")[0] == 200


def test_livez_gives_the_start_a_minute(site: Site) -> None:
    site.clock.now += 61
    assert site.json("/livez")[0] == 503


def test_livez_does_not_depend_on_the_servers(site: Site) -> None:
    site.board.publish(IDLE)
    site.board.kafka_answers(False, "refused")
    site.board.database_answers(False, "refused")
    assert site.json("/livez")[0] == 200


def test_readyz_names_every_reason_why_not(site: Site) -> None:
    status, told = site.json("/readyz")
    assert status == 503
    assert told["why"] == [
        "the daemon is starting",
        "the database was not reached yet",
        "Kafka was not reached yet",
    ]
    site.board.publish(IDLE)
    site.board.database_answers(True)
    site.board.kafka_answers(False, "no route")
    assert site.json("/readyz") == (503, {"ok": False, "role": "owner", "why": ["Kafka does not answer: no route"]})
    site.board.kafka_answers(True)
    assert site.json("/readyz") == (200, {"ok": True, "role": "owner", "why": []})


def test_a_standby_is_ready_and_a_stopping_daemon_is_not(site: Site) -> None:
    site.board.database_answers(True)
    site.board.kafka_answers(True)
    site.board.publish(replace(IDLE, role="standby", token=None))
    assert site.json("/readyz")[0] == 200
    site.board.publish(replace(IDLE, role="draining"))
    assert site.json("/readyz")[1]["why"] == ["the daemon is stopping"]


# Reading.


def test_metrics_are_in_the_format_of_prometheus(site: Site) -> None:
    status, headers, body = site.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert b"outboxd_leader 1.0" in body


def test_status_shows_breakers_and_held_keys_with_why(site: Site) -> None:
    site.board.publish(
        replace(
            IDLE,
            held_keys=1,
            held=[HeldStatus(7, "orders", "k", "dead", "MSG", 1, 5.0, None, 3)],
            breakers=[BreakerStatus("orders", "TOPIC_AUTHORIZATION_FAILED", "no grant", 5.0, 2, 1.0)],
            held_topics=[HeldTopicStatus("orders", ["breaker"])],
        )
    )
    told = site.json("/status")[1]
    assert told["relay"]["held"][0]["key"] == "k"
    assert told["relay"]["breakers"][0]["cause"] == "no grant"
    assert told["state"].startswith("relaying")


def test_points_come_once_each(site: Site) -> None:
    site.board.publish(IDLE)
    for _ in range(3):
        site.clock.now += 1
        site.board.publish(IDLE)
    points = site.json("/api/points")[1]
    assert len(points) == 3
    assert site.json(f"/api/points?after={points[1][0]}")[1] == points[2:]


def test_dead_letters_are_shown_as_groups_then_rows_then_one_in_full(site: Site) -> None:
    groups = site.json("/api/dead-letters")[1]
    assert (groups["total"], groups["groups"][0]["topic"]) == (3, "orders")
    rows = site.json("/api/dead-letters/rows?topic=orders")[1]["rows"]
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert site.json("/api/dead-letters/rows?topic=others")[1]["rows"] == []
    one = site.json("/api/dead-letters/2")[1]
    assert one["payload"] == "\\xff00"
    assert one["headers"] == [["traceparent", "00-ab"]]
    assert one["remedy"]
    assert "999" in one["obstacle"]
    assert one["sql"]["replay it"] == """SELECT "outboxd".replay(2, force => true, note => 'why');"""
    assert site.json("/api/dead-letters/1")[1]["sql"]["replay it"] == """SELECT "outboxd".replay(1, note => 'why');"""
    assert site.json("/api/dead-letters/3")[1]["payload"] is None
    assert site.json("/api/dead-letters/4")[0] == 404


def test_headers_that_only_their_own_text_tells_are_shown_as_that_text() -> None:
    for stored in ('{"n": 1' + 400 * "0" + "}", '{"n": 123456789012345678901234567890}', "[" * 2000 + "]" * 2000):
        whole = WholeLetter(replace(letter(1), headers=stored), b"", None)
        shown = json.loads(orjson.dumps(whole_as_dict(whole, "outboxd"), default=str))
        assert (shown["headers"], shown["letter"]["headers"]) == (None, stored)


def test_pages_that_ask_for_the_groups_at_the_same_time_share_one_count(site: Site) -> None:
    for _ in range(5):
        site.json("/api/dead-letters")
    assert site.letters.asked == [("summary",)]
    site.clock.now += 6
    site.json("/api/dead-letters")
    assert site.letters.asked == [("summary",)] * 2


class _Dropping(App):
    """An app of which a change drops the counts as soon as they are kept."""

    @property
    def _summary(self) -> tuple[float, bytes] | None:
        return None

    @_summary.setter
    def _summary(self, value: tuple[float, bytes] | None) -> None: ...


def test_groups_that_were_counted_are_shown_though_a_change_drops_them_meanwhile(site: Site) -> None:
    guard = Guard("127.0.0.1", TOKEN, site.clock)
    app = _Dropping(site.board, CollectorRegistry(), guard, event=site.event, dead_letters=site.letters)
    answer = app._groups({"REMOTE_ADDR": "127.0.0.1"})
    assert orjson.loads(answer.body)["total"] == 3


@pytest.mark.parametrize(
    ("payload", "shown"),
    [(b"", ""), ("ü".encode(), "ü"), (b"\xc3", "\\xc3"), (b"a\xff", "\\x61ff"), (b"\x00", "\x00")],
)
def test_a_payload_is_text_where_it_is_utf_8_and_else_hexadecimal(payload: bytes, shown: str) -> None:
    assert readable(payload) == shown


def test_a_text_cut_within_a_character_stays_text() -> None:
    assert readable(("a" + "ü" * 40_000).encode()[: 64 * 1024]).endswith("ü")


# Changing.


def test_a_replay_needs_the_token_says_who_and_is_logged(site: Site) -> None:
    status, told = site.change("replay", {"ids": [1], "note": "mended", "who": "anna"})
    assert (status, told) == (200, {"taken": 1, "skipped": 0, "refused": []})
    assert site.letters.asked == [("replay", (1,), False, "mended", "anna, by the page")]
    assert site.events == [("dead_letters_replayed", {"rows": 1, "who": "anna, by the page", "sample_id": 1})]


def test_a_replay_that_would_turn_a_key_round_is_refused_with_why_and_goes_by_force(site: Site) -> None:
    told = site.change("replay", {"ids": [1, 2]})[1]
    assert (told["taken"], [each["id"] for each in told["refused"]]) == (1, [2])
    assert site.change("replay", {"ids": [2], "force": True})[1]["taken"] == 1


def test_discard_takes_what_is_dead(site: Site) -> None:
    assert site.change("discard", {"ids": [1, 77]})[1] == {"taken": 1, "skipped": 1, "refused": []}
    assert site.change("discard", {"ids": [1]})[1]["taken"] == 0


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ü"]
)
def test_no_change_without_the_right_token(site: Site, authorization: str) -> None:
    headers = {"Authorization": authorization.encode().decode("latin-1")}
    status, _, _ = site.ask("/api/dead-letters/replay", method="POST", body={"ids": [1]}, **headers)
    assert status == 401
    assert site.letters.asked == []


def test_no_change_at_all_where_no_token_is_set(sites: Callable[..., Site]) -> None:
    site = sites(token="")
    assert site.change("replay", {"ids": [1]}, Authorization="Bearer ")[0] == 403
    assert site.json("/status")[1]["may_change"] is False
    assert site.letters.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Content_Type": "text/plain"},
    ],
)
def test_no_change_for_a_page_of_another_site_even_with_the_token(site: Site, headers: dict[str, str]) -> None:
    assert site.change("replay", {"ids": [1]}, **headers)[0] in (403, 415)
    assert site.letters.asked == []


def test_the_page_itself_may_change(site: Site) -> None:
    host, port = site.server.address
    headers = {"Origin": f"http://{host}:{port}", "Sec_Fetch_Site": "same-origin"}
    assert site.change("replay", {"ids": [1]}, **headers)[0] == 200


def test_guessing_tokens_is_slow(site: Site) -> None:
    statuses = [site.change("replay", {"ids": [1]}, Authorization=f"Bearer {guess}")[0] for guess in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert site.change("replay", {"ids": [1]})[0] == 429
    site.clock.now += 61
    assert site.change("replay", {"ids": [1]})[0] == 200


@pytest.mark.parametrize(
    "body",
    [{}, {"ids": []}, {"ids": ["1"]}, {"ids": [True]}, {"ids": [0]}, {"ids": [1] * 1001}, {"ids": [1], "note": 5}, [1]],
)
def test_a_change_that_makes_no_sense_is_refused_in_a_sentence(site: Site, body: Any) -> None:
    status, told = site.change("replay", body)
    assert status == 400
    assert told["error"]
    assert site.letters.asked == []


def test_a_large_body_is_not_read(site: Site) -> None:
    assert site.change("replay", {"ids": [1], "note": "x" * 70_000})[0] == 413
    assert site.change("replay", {"ids": [1]}, Content_Length="9" * 5_000)[0] == 413
    assert site.events == []


@pytest.mark.parametrize("path", ["/api/dead-letters/replay", "/api/dead-letters/discard"])
def test_a_link_changes_nothing(site: Site, path: str) -> None:
    assert site.json(path)[0] == 405


# By whom, and from where.


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "10.0.0.1", "", "[::1"]
)
@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/api/dead-letters"])
def test_a_name_that_is_not_this_machines_is_not_answered(site: Site, host: str, path: str) -> None:
    assert site.ask(path, Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:9464", "[::1]:9464", "ip6-localhost:9464"])
def test_this_machines_names_are_answered_at_whatever_port_a_tunnel_has(site: Site, host: str) -> None:
    assert site.ask("/status", Host=host)[0] == 200


def test_what_is_shown_to_all_tells_nobody_which_of_many_tokens_is_right(sites: Callable[..., Site]) -> None:
    site = sites(listen_host="0.0.0.0")
    site.board.publish(replace(IDLE, held=[HeldStatus(7, "orders", "anna@example", "dead", "MSG", 1, 5.0, None, 3)]))
    host = {"Host": "outboxd.example"}
    for number in range(10):
        told = site.json("/status", **host, Authorization=f"Bearer {number}")[1]
        assert told["relay"]["held"][0]["key"] is None
        assert told["relay"]["held"][0]["key_is_hidden"]
    told = site.json("/status", **host, Authorization=f"Bearer {TOKEN}")[1]
    assert told["relay"]["held"][0]["key"] is None
    site.clock.now += 61
    told = site.json("/status", **host, Authorization=f"Bearer {TOKEN}")[1]
    assert told["relay"]["held"][0]["key"] == "anna@example"


def test_what_postgresql_says_of_a_row_is_not_shown_to_all(sites: Callable[..., Site]) -> None:
    site, host = sites(listen_host="0.0.0.0"), {"Host": "outboxd.example"}
    site.board.publish(replace(IDLE, refused_rows=3, refusal="the row 7: Failing row contains (7, anna@example)"))
    told = site.json("/status", **host)[1]["relay"]
    assert (told["refused_rows"], told["refusal"]) == (3, "")
    told = site.json("/status", **host, Authorization=f"Bearer {TOKEN}")[1]["relay"]
    assert told["refusal"].startswith("the row 7")


def test_what_postgresql_says_where_it_refuses_all_rows_is_not_shown_to_all(sites: Callable[..., Site]) -> None:
    site, host = sites(listen_host="0.0.0.0"), {"Host": "outboxd.example"}
    site.board.publish(IDLE)
    site.board.database_answers(False, "no change of anna@example", asked_by=[REFUSED])
    for path in ("/status", "/readyz"):
        assert b"anna" not in site.ask(path, **host)[2]
        assert b"anna" in site.ask(path, **host, Authorization=f"Bearer {TOKEN}")[2]
    assert "the database refuses to settle rows that were sent" in site.json("/readyz", **host)[1]["why"]
    site.board.database_answers(False, "connection refused", asked_by=["fetch"])
    for path in ("/status", "/readyz"):
        shown = site.ask(path, **host)[2]
        assert b"anna" not in shown
        assert b"connection refused" in shown


@pytest.mark.parametrize("listen_host", ["outboxd.example", "ip6-localhost", "localhost.localdomain"])
def test_a_name_that_may_lead_elsewhere_is_no_address_of_this_machine_only(
    sites: Callable[..., Site], listen_host: str
) -> None:
    assert sites(listen_host=listen_host).ask("/api/dead-letters", Host=listen_host)[0] == 401


def test_on_another_address_keys_and_payloads_need_the_token_and_the_rest_does_not(sites: Callable[..., Site]) -> None:
    site = sites(listen_host="0.0.0.0")
    site.board.publish(replace(IDLE, held=[HeldStatus(7, "orders", "anna@example", "dead", "MSG", 1, 5.0, None, 3)]))
    host = {"Host": "outboxd.example"}
    for path in ("/metrics", "/livez", "/", "/status"):
        status, _, body = site.ask(path, **host)
        assert status == 200
        assert b"anna@example" not in body
    for path in ("/api/dead-letters", "/api/dead-letters/rows", "/api/dead-letters/1"):
        assert site.ask(path, **host)[0] == 401
        assert site.ask(path, **host, Authorization=f"Bearer {TOKEN}")[0] == 200
    told = site.json("/status", **host, Authorization=f"Bearer {TOKEN}")[1]
    assert told["relay"]["held"][0]["key"] == "anna@example"


def test_an_upgrade_beneath_a_running_daemon_does_not_change_its_page(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outboxd.web.app.load_page", lambda: Page(b"of another version", ""))
    status, _, body = site.ask("/")
    assert status == 200
    assert body == load_page().content


def test_the_page_runs_its_own_script_and_style_and_nothing_else(site: Site) -> None:
    status, headers, body = site.ask("/")
    text = body.decode()
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy
    assert "style=" not in text
    assert not re.search(r"\son[a-z]+=", text)
    assert "innerHTML" not in text
    assert not re.search(r"(src|href)=\"(?!data:,)", text)
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/nowhere", "/api/dead-letters/1"])
def test_every_answer_tells_the_browser_to_be_careful(site: Site, path: str) -> None:
    headers = site.ask(path)[1]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Python" not in headers.get("Server", "")


@pytest.mark.parametrize("version", ["\xff", "x.y", '"'])
def test_a_format_of_metrics_that_there_is_not_is_no_failure(site: Site, version: str) -> None:
    for kind in ("application/openmetrics-text", "text/plain"):
        status, headers, body = site.ask("/metrics", Accept=f"{kind}; version={version}")
        assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b"outboxd_leader 1.0" in body
    assert site.events == []


def test_unknown_paths_and_verbs_are_refused_in_a_sentence(site: Site) -> None:
    assert site.json("/nowhere")[0] == 404
    assert site.json("/status", method="DELETE")[0] == 405
    assert site.json("/api/dead-letters/99999999999999999999")[0] == 404
    assert site.json("/api/dead-letters/../1")[0] == 404


def test_head_has_headers_and_no_body(site: Site) -> None:
    status, headers, body = site.ask("/status", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0
    status, headers, body = site.ask("/metrics", method="HEAD")
    assert (status, body, headers["Content-Type"][:10]) == (200, b"", "text/plain")


# What goes wrong.


def test_a_database_that_is_away_is_said_so(site: Site) -> None:
    site.letters.is_down = True
    status, told = site.json("/api/dead-letters")
    assert (status, told["error"]) == (503, "PostgreSQL is not available: refused")


def test_a_bug_costs_its_request_and_is_logged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.letters, "show", lambda _: 1 / 0)
    status, told = site.json("/api/dead-letters/1")
    assert status == 500
    assert "division" not in told["error"]
    assert site.events == [
        ("request_failed", {"path": "/api/dead-letters/1", "cause": "ZeroDivisionError: division by zero"})
    ]
    assert site.json("/livez")[0] == 200


def test_when_all_places_are_taken_the_next_is_refused_at_once_and_answered_later(sites: Callable[..., Site]) -> None:
    site = sites(connections_max=2, place_seconds=DEADLINE_SECONDS)
    hung = [socket.create_connection(site.server.address, timeout=DEADLINE_SECONDS) for _ in range(2)]
    try:
        for each in hung:
            each.sendall(b"GET /metrics HTTP/1.1\r\n")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (status := site.ask("/livez")[0]) != 503:
            assert time.monotonic() < deadline
    finally:
        for each in hung:
            each.close()
    assert status == 503
    while site.ask("/livez")[0] != 200:
        assert time.monotonic() < deadline


def test_a_connection_that_hangs_gives_its_place_to_who_needs_it(sites: Callable[..., Site]) -> None:
    site = sites(connections_max=2, place_seconds=0.1)
    hung = [socket.create_connection(site.server.address, timeout=DEADLINE_SECONDS) for _ in range(2)]
    try:
        for each in hung:
            each.sendall(b"GET /metrics HTTP/1.1\r\n")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while site.ask("/livez")[0] != 200:
            assert time.monotonic() < deadline
        # The oldest one was ended; the other keeps its place, since nobody needs it.
        assert hung[0].recv(100) == b""
        assert site.ask("/livez")[0] == 200
    finally:
        for each in hung:
            each.close()


def test_a_peer_that_dribbles_is_cut_off(sites: Callable[..., Site]) -> None:
    site = sites(connections_max=1, request_seconds_max=0.3)
    with socket.create_connection(site.server.address, timeout=DEADLINE_SECONDS) as slow:
        slow.sendall(b"GET /metr")
        assert slow.recv(100) == b""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while site.ask("/livez")[0] != 200:
        assert time.monotonic() < deadline


def test_a_slow_database_does_not_hold_up_metrics_and_health(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Semaphore(0), threading.Event()

    def show(_: int) -> None:
        entered.release()
        assert leave.wait(DEADLINE_SECONDS)

    monkeypatch.setattr(site.letters, "show", show)
    askers = [threading.Thread(target=site.ask, args=("/api/dead-letters/1",)) for _ in range(2)]
    for asker in askers:
        asker.start()
        assert entered.acquire(timeout=DEADLINE_SECONDS)
    try:
        assert site.ask("/livez")[0] == 200
        assert site.ask("/metrics")[0] == 200
    finally:
        leave.set()
        for asker in askers:
            asker.join(DEADLINE_SECONDS)
