"""The page in a browser, as a person meets it: what is wrong, why, one dead letter in full, and what to do about it."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outboxd.observability.status import Backlog
from outboxd.relay.status import BreakerStatus, HeldStatus, HeldTopicStatus, PauseStatus
from tests.support.browser import Browser, BrowserMissingError
from tests.unit.test_status_board import IDLE
from tests.unit.test_web import TOKEN, Site

WIDTH, HEIGHT = 1200, 1400


@pytest.fixture
def browser() -> Iterator[Browser]:
    try:
        browser = Browser(WIDTH, HEIGHT)
    except BrowserMissingError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    yield browser
    browser.close()


@pytest.fixture
def site() -> Iterator[Site]:
    """A daemon that relays, with a breaker open, a topic paused and a key held, and ten minutes behind it."""
    site = Site()
    site.clock.now = time.time() - 600
    busy = replace(
        IDLE, in_memory_rows=1_234, unsettled_rows=700, in_flight_by_topic={"orders": 700}, in_flight_rows=700,
        held_keys=1, held_records=1,
        held=[HeldStatus(7, "orders", "customer-17", "dead", "MSG_SIZE_TOO_LARGE", 1, 125.0, None, 2)],
        breakers_open=1, breakers=[BreakerStatus("audit", "TOPIC_AUTHORIZATION_FAILED", "no grant", 75.0, 4, 3.2)],
        topics_held=2, held_topics=[HeldTopicStatus("audit", ["breaker"]), HeldTopicStatus("metrics", ["paused"])],
        pauses=[PauseStatus("metrics", 1_700_000_000_000, "anna", "too loud")],
    )  # fmt: skip
    site.board.publish(busy)
    for turn in range(600):
        site.board.delivered(1_000, 100_000, "orders")
        site.board.acknowledged_after(0.05)
        site.clock.now += 1
        site.board.publish(replace(busy, turns=turn + 2))
    site.board.database_answers(True)
    site.board.kafka_answers(True)
    site.board.measured(Backlog(pending=12, oldest_pending_seconds=3.0, dead=3, measured_at=site.clock.now))
    yield site
    site.server.stop()


def address(site: Site) -> str:
    host, port = site.server.address
    return f"http://{host}:{port}/"


def text(browser: Browser, element_id: str) -> str:
    return str(browser.value(f"document.getElementById('{element_id}').innerText"))


def open_page(browser: Browser, site: Site) -> None:
    browser.open(address(site))
    browser.wait_for("document.querySelectorAll('#letters tbody tr').length")
    browser.wait_for("document.querySelectorAll('#rate path').length")


def open_letter(browser: Browser, row: str) -> None:
    browser.click("#letters tr.pick", "orders")
    browser.click("#rows tr.pick", row)
    browser.wait_for("document.getElementById('one').open")


def test_the_state_stands_first_and_everything_that_waits_says_why(browser: Browser, site: Site) -> None:
    open_page(browser, site)
    assert text(browser, "sentence").startswith("relaying, 1,000 rows/s")
    assert "no grant" in text(browser, "breakers")
    assert "paused by anna: too loud" in text(browser, "breakers")
    place = "document.getElementById('{}').getBoundingClientRect().top"
    places = [browser.value(place.format(part)) for part in ("rate", "breakers", "held", "letters", "topics", "facts")]
    assert places == sorted(places), "what is wrong stands above what is not"
    assert "customer-17" in text(browser, "held")
    assert "too loud" in text(browser, "facts")
    assert "orders" in text(browser, "topics")
    assert browser.value("document.title").startswith("! outboxd")
    assert browser.console == []


def test_of_no_topic_it_says_that_it_goes_while_a_server_does_not_answer(browser: Browser, site: Site) -> None:
    open_page(browser, site)
    assert "goes" in text(browser, "topics")
    site.board.kafka_answers(False, "connection refused")
    browser.wait_for("document.getElementById('servers').innerText.includes('connection refused')")
    assert "goes" not in text(browser, "topics")
    assert "waits" in text(browser, "topics")


def test_a_topic_that_is_stuck_is_named_with_the_cause(browser: Browser, site: Site) -> None:
    assert site.board.relay is not None
    site.board.publish(replace(site.board.relay, stalled_topics={"orders": "broker 2 hangs up"}))
    open_page(browser, site)
    assert "the oldest record of topic orders gets no answer: broker 2 hangs up" in text(browser, "servers")
    assert "orders is stuck" in text(browser, "sentence")
    assert "stuck" in text(browser, "topics")


def test_the_last_ten_minutes_are_drawn_over_the_whole_width(browser: Browser, site: Site, tmp_path: Path) -> None:
    open_page(browser, site)
    for chart in ("rate", "lag"):
        path = str(browser.value(f"document.querySelector('#{chart} path.line').getAttribute('d')"))
        assert path.count("L") == 599, "one line without a gap"
        box = browser.value(
            f"(() => {{ const b = document.querySelector('#{chart} path.line').getBBox(); return [b.x, b.width]; }})()"
        )
        assert box[0] < 5
        assert box[1] > 590
    shot = tmp_path / "page.png"
    browser.screenshot(shot)
    assert struct.unpack(">II", shot.read_bytes()[16:24])[0] == WIDTH


def test_a_daemon_that_dies_is_seen_to(browser: Browser, site: Site) -> None:
    open_page(browser, site)
    site.server.stop()
    browser.wait_for("document.getElementById('sentence').innerText.startsWith('the daemon does not answer')")


def test_a_dead_letter_is_understood_and_replayed(browser: Browser, site: Site) -> None:
    open_page(browser, site)
    open_letter(browser, "101")
    shown = text(browser, "one")
    assert '"a": 1' in shown
    assert "max.message.bytes" in shown
    assert """SELECT "outboxd".replay(1, note => 'why');""" in shown
    browser.type("#one input.grow", "topic was mended")
    browser.type("#one input[placeholder='your name']", "anna")
    browser.type("#one input[type=password]", TOKEN)
    browser.click("#one button", "Replay")
    browser.wait_for("document.getElementById('one').innerText.includes('It goes again now')")
    assert browser.dialogs == ["Send dead letter 1 to orders again?"]
    assert ("replay", (1,), False, "topic was mended", "anna, by the page") in site.letters.asked
    browser.click("#one button", "Close")
    browser.wait_for("document.querySelectorAll('#rows tbody tr').length === 2")


def test_a_replay_that_would_turn_a_key_round_says_so_before_it_forces(browser: Browser, site: Site) -> None:
    open_page(browser, site)
    open_letter(browser, "102")
    assert "row 999 of its key was published since" in text(browser, "one")
    browser.type("#one input[type=password]", TOKEN)
    browser.click("#one button", "Replay by force")
    browser.wait_for("document.getElementById('one').innerText.includes('It goes again now')")
    assert "row 999" in browser.dialogs[0]


def test_a_wrong_token_changes_nothing_and_says_so(browser: Browser, site: Site) -> None:
    open_page(browser, site)
    open_letter(browser, "103")
    assert "a tombstone" in text(browser, "one")
    browser.type("#one input[type=password]", "wrong")
    browser.click("#one button", "Discard")
    browser.wait_for("document.getElementById('one').innerText.includes('this needs the token')")
    assert not [asked for asked in site.letters.asked if asked[0] == "discard"]


def test_without_a_token_set_the_page_only_reads(browser: Browser) -> None:
    site = Site(token="")
    try:
        site.board.publish(IDLE)
        open_page(browser, site)
        open_letter(browser, "101")
        assert "This page only reads" in text(browser, "one")
        assert browser.value("[...document.querySelectorAll('#one button')].filter(each => each.disabled).length") == 2
    finally:
        site.server.stop()


def test_what_rows_contain_is_shown_and_never_run(browser: Browser) -> None:
    site = Site()
    evil = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    try:
        site.board.publish(replace(IDLE, topics_held=1, held_topics=[HeldTopicStatus(evil, ["breaker"])]))
        site.letters = type(site.letters)({1: evil.encode()})
        site.app._dead_letters = site.letters
        open_page(browser, site)
        assert evil in text(browser, "breakers")
        open_letter(browser, "101")
        assert evil in text(browser, "one")
        assert browser.value("document.title").endswith("outboxd · default")
        assert browser.value("document.querySelectorAll('img').length") == 0
    finally:
        site.server.stop()
