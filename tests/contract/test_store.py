"""What the relay relies on in an OutboxStore. The simulation's is held to the same truth as PostgreSQL's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from outboxd.policy.blame.outcomes import DeadLetter, DeathReason, Retry
from outboxd.policy.exchange.messages import Settled, SettleFailed
from outboxd.policy.exchange.reads import Fetched, HoldingLetters, Loaded
from outboxd.policy.exchange.requests import Known, Settlement
from outboxd.policy.faults import fault_of
from outboxd.policy.keys.deferrals import Reread
from outboxd.policy.rows.content import PIECE_DIGITS, content_digest
from outboxd.policy.rows.event_pieces import event_pieces
from outboxd.policy.rows.records import FIRST_ID, Arm
from outboxd.policy.topics.topic_holds import CatchUp
from outboxd.postgres.store.prepared import PIECE_ROWS
from tests.contract.stores import PAYLOAD_BYTES, PostgresBench, SimulatedBench, StoreBench
from tests.simulation.statements import LISTED_MAX, REPLAYS_LOADED_MAX
from tests.support.children import wait_for

TOO_LARGE = fault_of(10)


@pytest.fixture(params=["simulated", "postgres"])
def bench(request: pytest.FixtureRequest) -> Iterator[StoreBench]:
    made: StoreBench = (
        PostgresBench(request.getfixturevalue("database")) if request.param == "postgres" else SimulatedBench()
    )
    yield made
    made.close()


def shown(fetched: Fetched) -> list[tuple[Arm, int]]:
    return [(Arm(record.arm), record.id) for record in fetched.records]


def sent(bench: StoreBench, letter: int) -> str:
    """The digest of what a replay of the letter sends now."""
    (record,) = (each for each in bench.fetch(replay_ids=[letter]).records if each.arm == Arm.REPLAY)
    return content_digest(record)


def forward(*ids: int) -> list[tuple[Arm, int]]:
    return [(Arm.FORWARD, record_id) for record_id in ids]


def death(*, holds_key: bool = False) -> DeadLetter:
    return DeadLetter(DeathReason.FATAL, TOO_LARGE, "10 MSG_SIZE_TOO_LARGE: too large", 1, holds_key)


def buried(bench: StoreBench, token: int, record_id: int, *, holds_key: bool = False) -> int:
    bench.settle(token, dead=[(record_id, death(holds_key=holds_key))])
    letter = bench.letter(record_id)
    assert letter is not None
    assert letter[1] == "dead"
    return letter[0]


# --- Fetch


def test_the_forward_read_shows_pending_rows_above_the_position_in_id_order_up_to_its_limit(bench: StoreBench) -> None:
    a, b, c, d = (bench.insert("orders", key) for key in ("x", None, "y", "x"))
    assert shown(bench.fetch()) == forward(a, b, c, d)
    assert shown(bench.fetch(position=a, rows_max=2)) == forward(b, c)
    assert shown(bench.fetch(position=d)) == []
    assert shown(bench.fetch(forward=False)) == []


def test_an_answer_of_many_rows_is_read_whole_and_in_order(bench: StoreBench) -> None:
    ids = bench.insert_together(2 * PIECE_ROWS + 1, available_in_seconds=-1.0)
    for rows_max in (PIECE_ROWS - 2, PIECE_ROWS - 1, PIECE_ROWS, 2 * PIECE_ROWS - 1, 2 * PIECE_ROWS, len(ids) + 1):
        assert shown(bench.fetch(rows_max=rows_max)) == forward(*ids[:rows_max])


def test_a_patient_fetch_tells_of_the_next_row_and_of_nothing_before(bench: StoreBench) -> None:
    bench.take_over()
    bench.begin_patiently(60.0)
    bench.wait_until_asked()
    row = bench.insert("orders")

    fetched = bench.answer()
    assert isinstance(fetched, Fetched)
    assert shown(fetched) == forward(row)
    assert fetched.waited_seconds > 0


def test_a_patient_fetch_tells_of_a_pause(bench: StoreBench) -> None:
    bench.take_over()
    bench.begin_patiently(60.0)
    bench.wait_until_asked()
    bench.pause("orders")

    fetched = bench.answer()
    assert isinstance(fetched, Fetched)
    assert fetched.pauses


def test_a_patient_fetch_tells_that_another_owns_the_outbox(bench: StoreBench) -> None:
    bench.take_over()
    bench.begin_patiently(60.0)
    bench.wait_until_asked()
    bench.succeed()

    fetched = bench.answer()
    assert isinstance(fetched, Fetched)
    assert fetched.fenced


def test_patience_ends(bench: StoreBench) -> None:
    bench.take_over()
    bench.begin_patiently(0.1)

    fetched = bench.answer()
    assert isinstance(fetched, Fetched)
    assert fetched.shows_nothing
    # Not by the clock alone: a busy machine may be late with the last one.
    assert 0.05 < fetched.waited_seconds < 60


def test_a_patient_fetch_that_is_hurried_answers_whatever_it_finds(bench: StoreBench) -> None:
    bench.take_over()
    bench.begin_patiently(3600.0, interval_seconds=1800.0)
    bench.wait_until_asked()
    bench.store.hurry_fetch()

    fetched = bench.answer()
    assert isinstance(fetched, Fetched)
    assert fetched.shows_nothing
    assert fetched.waited_seconds < 60


def test_a_record_is_shown_as_it_was_written(bench: StoreBench) -> None:
    bench.insert("orders", None)
    (record,) = bench.fetch().records
    assert (record.topic, record.key, record.headers, record.partition) == ("orders", None, "{}", None)
    assert record.size_bytes >= PAYLOAD_BYTES


def test_the_byte_limit_is_passed_by_one_record_at_most_and_never_shows_nothing(bench: StoreBench) -> None:
    ids = [bench.insert("orders") for _ in range(5)]
    assert shown(bench.fetch(bytes_max=1)) == forward(ids[0])
    size_bytes = bench.fetch().records[0].size_bytes
    assert shown(bench.fetch(bytes_max=size_bytes + 1)) == forward(*ids[:2])


def test_a_snapshot_shows_committed_rows_only_and_the_look_back_finds_late_ones(bench: StoreBench) -> None:
    writer = bench.open()
    late = writer.insert("orders")
    after = bench.insert("orders")
    assert shown(bench.fetch()) == forward(after)
    assert shown(bench.fetch(position=after, gap_lows=[late], gap_highs=[late])) == []
    writer.end(commit=True)
    newest = bench.insert("orders")
    fetched = bench.fetch(position=after, gap_lows=[late], gap_highs=[late])
    assert shown(fetched) == [(Arm.LOOK_BACK, late), *forward(newest)]


def test_a_look_back_leaves_out_what_is_known_and_shows_the_rest(bench: StoreBench) -> None:
    """By ids, by topics and by keys, each from an id on: what is below that is news."""
    of_topic = [bench.insert("paused") for _ in range(3)]
    of_key = [bench.insert("orders", "x") for _ in range(3)]
    others = [bench.insert("orders", key) for key in ("y", None, "z")]
    known = Known(
        ids=[others[2]],
        topics={"paused": of_topic[1], "elsewhere": 0},
        keys={"orders": {"x": of_key[1]}, "z": {"y": 0}},
    )

    fetched = bench.fetch(position=others[2], gap_lows=[of_topic[0]], gap_highs=[others[2]], known=known, rows_max=4)

    assert shown(fetched) == [(Arm.LOOK_BACK, one) for one in (of_topic[0], of_key[0], others[0], others[1])]


def test_the_locks_name_every_transaction_that_may_fill_a_gap_a_prepared_one_too(bench: StoreBench) -> None:
    assert bench.fetch(want_locks=True).locks == frozenset()
    open_one, prepared = bench.open(), bench.open()
    open_one.insert("orders")
    prepared.insert("orders")
    before = bench.fetch(want_locks=True).locks
    assert len(before) == 2
    prepared.prepare()
    locks = bench.fetch(want_locks=True).locks
    assert len(locks) == 2
    # Newer PostgreSQLs keep its name; others, and all of them after a restart, give it one that begins so.
    assert all(lock in before or lock.startswith("-1/") for lock in locks)
    open_one.end(commit=False)
    prepared.end(commit=False)
    # A vacuum that cuts the empty end of the table off holds a lock for a moment too.
    wait_for(
        lambda: bench.fetch(want_locks=True).locks == frozenset(), timeout_seconds=10.0, what="the locks to be gone"
    )


def test_a_row_whose_time_has_not_come_is_shown_by_its_id_only_and_listed_when_it_comes(bench: StoreBench) -> None:
    first = bench.insert("orders")
    delayed = bench.insert("orders", available_in_seconds=0.4)
    begun = bench.fetch()
    assert shown(begun) == forward(first)
    assert begun.available_cursor is not None
    assert shown(bench.fetch(position=delayed, chosen_ids=[delayed])) == [(Arm.CHOSEN, delayed)]
    bench.pass_time(0.5)
    fetched = bench.fetch(position=delayed, available_cursor=begun.available_cursor)
    assert list(fetched.available_ids) == [delayed]
    again = bench.fetch(position=delayed, available_cursor=fetched.available_cursor)
    assert list(again.available_ids) == []


def test_records_that_come_to_be_due_at_one_moment_are_listed_a_part_at_a_time(
    bench: StoreBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("fetch_sql", "fetching"):
        monkeypatch.setattr(f"outboxd.postgres.store.{module}.LISTED_MAX", LISTED_MAX)
    cursor = bench.fetch().available_cursor
    assert cursor is not None
    delayed = bench.insert_together(LISTED_MAX + 2, available_in_seconds=0.3)
    bench.pass_time(0.4)
    listed = []
    for _ in range(3):
        fetched = bench.fetch(position=delayed[-1], available_cursor=cursor)
        listed.append(list(fetched.available_ids))
        cursor = fetched.available_cursor
    assert listed == [delayed[:LISTED_MAX], delayed[LISTED_MAX:], []]
    assert list(bench.fetch(position=delayed[-1]).available_ids) == []


def test_a_fetch_tells_how_far_pending_records_reach_that_are_not_due_where_that_is_asked_for(
    bench: StoreBench,
) -> None:
    bench.take_over()
    first = bench.insert("orders")
    later = bench.insert("orders", available_in_seconds=60)
    assert bench.fetch().top_id is None
    fetched = bench.fetch(position=first, want_top=True)
    assert (shown(fetched), fetched.top_id, fetched.shows_nothing) == ([], later, False)
    beyond = bench.fetch(position=later, want_top=True)
    assert (beyond.top_id, beyond.shows_nothing) == (None, True)


def test_a_key_is_read_again_from_an_id_up_to_the_position_and_within_its_limit(bench: StoreBench) -> None:
    of_key = [bench.insert("orders", "x") for _ in range(4)]
    bench.insert("orders", "y")
    bench.insert("invoices", "x")
    above = bench.insert("orders", "x")
    wish = [Reread(("orders", "x"), of_key[1])]
    fetched = bench.fetch(position=above - 1, rereads=wish, reread_rows_max=2)
    assert shown(fetched) == [(Arm.REREAD, of_key[1]), (Arm.REREAD, of_key[2]), *forward(above)]


def test_a_whole_topic_is_read_again_as_a_serial_one_or_to_catch_up(bench: StoreBench) -> None:
    ids = [bench.insert("orders", key) for key in ("x", None, "y")]
    bench.insert("invoices", "x")
    end = bench.insert("invoices", "y")
    serial = bench.fetch(position=end, rereads=[Reread(("orders", None), ids[1])], reread_rows_max=10)
    assert shown(serial) == [(Arm.REREAD, ids[1]), (Arm.REREAD, ids[2])]
    caught_up = bench.fetch(position=end, catch_ups=[CatchUp("orders", ids[0])], catch_up_rows_max=2)
    assert shown(caught_up) == [(Arm.CATCH_UP, ids[0]), (Arm.CATCH_UP, ids[1])]


@pytest.mark.parametrize("part", ["catch_ups", "probe_reads", "rereads"])
def test_a_read_of_a_topic_covers_so_many_ids_and_no_more(bench: StoreBench, part: str) -> None:
    first, *_, last = [bench.insert(topic) for topic in ("orders", *["invoices"] * 3, "orders")]
    wish = Reread(("orders", None), first) if part == "rereads" else CatchUp("orders", first)
    request = {"position": last, part: [wish], "catch_up_rows_max": 9, "probe_rows_max": 9, "reread_rows_max": 9}

    assert [record.id for record in bench.fetch(**request, reach_ids=last - first - 1).records] == [first]
    assert [record.id for record in bench.fetch(**request, reach_ids=last - first).records] == [first, last]


def test_a_limit_cuts_the_parts_in_their_order_the_forward_read_first(bench: StoreBench) -> None:
    chosen, caught_up, *rest = (bench.insert(topic) for topic in ("a", "b", "c", "c"))
    request = {
        "position": caught_up,
        "chosen_ids": [chosen],
        "catch_ups": [CatchUp("b", caught_up)],
        "catch_up_rows_max": 10,
    }
    whole = [(Arm.CHOSEN, chosen), (Arm.CATCH_UP, caught_up), *forward(*rest)]
    for rows_max in (1, 2, 3, 4):
        assert shown(bench.fetch(rows_max=rows_max, **request)) == whole[:rows_max]


def test_pauses_are_listed_by_every_fetch_and_by_the_load(bench: StoreBench) -> None:
    bench.pause("orders-*")
    assert [pause.topic_pattern for pause in bench.fetch().pauses] == ["orders-*"]
    assert [pause.topic_pattern for pause in bench.load().pauses] == ["orders-*"]


@pytest.mark.parametrize("ask", [StoreBench.load, StoreBench.fetch])
def test_a_load_and_a_fetch_tell_whether_the_lease_is_ours(
    bench: StoreBench, ask: Callable[[StoreBench], Loaded | Fetched]
) -> None:
    assert ask(bench).fenced
    bench.take_over()
    assert not ask(bench).fenced
    bench.succeed()
    told = ask(bench)
    assert (told.fenced, told.moved) == (True, False)


# --- Sweep


def test_the_sweep_walks_the_pending_rows_and_leaves_out_what_is_deferred_anyway(bench: StoreBench) -> None:
    token = bench.take_over()
    seen = bench.insert("orders", "x")
    bench.insert("orders", "deferred")
    late = bench.insert("held", "x")
    held = bench.insert("held", "x")
    bench.insert("orders", available_in_seconds=60)
    keyless = bench.insert("orders", None)
    done = bench.insert("orders", "x")
    bench.settle(token, delivered_ids=[done], delivered_partitions=[0], delivered_offsets=[7])
    found = bench.sweep(skipped_topics={"held": held}, skipped_keys=[("orders", "deferred")])
    told = [(seen, "orders", "x"), (late, "held", "x"), (keyless, "orders", None)]
    assert [tuple(entry) for entry in found.found] == told
    assert found.cursor is None
    chunk = bench.sweep(rows_max=1)
    assert (len(chunk.found), chunk.cursor) == (1, seen)
    assert bench.sweep(position=seen - 1).found == []


# --- Settle


def test_delivered_rows_are_marked_once(bench: StoreBench) -> None:
    token = bench.take_over()
    a, b = bench.insert("orders"), bench.insert("orders")
    marks = {"delivered_ids": [a, b], "delivered_partitions": [0, None], "delivered_offsets": [5, None]}
    assert bench.settle(token, **marks).matched_rows == 2
    assert not bench.is_pending(a)
    assert shown(bench.fetch(chosen_ids=[a, b])) == []
    again = bench.settle(token, **marks)
    assert (again.matched_rows, again.fenced) == (0, False)


def test_a_settlement_of_a_locked_row_is_refused_and_writes_nothing_and_a_part_without_it_is_written(
    bench: StoreBench,
) -> None:
    token = bench.take_over()
    rows = [bench.insert("orders") for _ in range(3)]
    bench.lock(rows[1])
    whole = Settlement(delivered_ids=rows, delivered_partitions=[0, 0, 0], delivered_offsets=[7, 8, 9])
    bench.store.begin_settle(whole, token)
    refused = bench.answer()
    assert isinstance(refused, SettleFailed)
    assert (refused.settlement, refused.refused) == (whole, True)
    assert [bench.is_pending(row) for row in rows] == [True, True, True]

    for start, is_refused in ((0, False), (1, True), (2, False)):
        bench.store.begin_settle(whole.part(start, start + 1), token)
        assert isinstance(bench.answer(), SettleFailed if is_refused else Settled)
    assert [bench.is_pending(row) for row in rows] == [False, True, False]


def test_a_settlement_under_another_owners_token_or_holder_changes_nothing(bench: StoreBench) -> None:
    token = bench.take_over()
    a, b, c = (bench.insert("orders") for _ in range(3))
    bench.succeed()
    for stale in (token, token + 1):
        settled = bench.settle(
            stale,
            delivered_ids=[a], delivered_partitions=[0], delivered_offsets=[1],
            dead=[(b, death())], retries=[(c, Retry(TOO_LARGE, "later", 1, 60.0))],
            storms=[("orders", "a storm")],
        )  # fmt: skip
        assert settled.fenced
    assert bench.is_pending(a)
    assert bench.letter(b) is None
    assert bench.attempts(c) is None
    assert list(bench.fetch().pauses) == []


def test_a_retry_is_counted_listed_when_it_is_due_and_known_to_the_next_owner(bench: StoreBench) -> None:
    token = bench.take_over()
    failed, other = bench.insert("orders", "x"), bench.insert("orders", "y")
    bench.settle(
        token, retries=[(failed, Retry(TOO_LARGE, "later", 1, 0.3)), (other, Retry(TOO_LARGE, "much", 2, 60.0))]
    )
    assert list(bench.fetch().due_ids) == []
    holders = {holder.outbox_id: holder for holder in bench.load().holders}
    assert (holders[failed].attempts, holders[failed].key, holders[failed].dead_letter_id) == (1, "x", None)
    assert 0 < holders[failed].due_in_seconds <= 0.3 < holders[other].due_in_seconds
    bench.pass_time(0.4)
    fetched = bench.fetch()
    assert list(fetched.due_ids) == [failed]
    assert list(bench.fetch(retry_cursor=fetched.retry_cursor).due_ids) == []
    bench.settle(token, retries=[(failed, Retry(TOO_LARGE, "later", 2, 60.0))])
    assert bench.attempts(failed) == 2
    bench.settle(token, out_of_retry=[failed, other])
    assert bench.attempts(failed) is None


def test_the_next_owner_is_told_how_old_a_failed_row_is_by_its_own_doing(bench: StoreBench) -> None:
    token = bench.take_over()
    failed = bench.insert("orders", "x")
    bench.settle(token, retries=[(failed, Retry(TOO_LARGE, "later", 1, 0.0))])
    assert [holder.own_age_seconds for holder in bench.load().holders] == [0.0]

    bench.settle(token, retries=[(failed, Retry(TOO_LARGE, "later", 2, 0.0, 90.5))])

    assert [holder.own_age_seconds for holder in bench.load().holders] == [90.5]


def test_a_dead_row_leaves_the_outbox_and_its_attempts_and_is_replayed_in_place(bench: StoreBench) -> None:
    token = bench.take_over()
    row = bench.insert("orders", "x")
    bench.settle(token, retries=[(row, Retry(TOO_LARGE, "later", 1, 0.0))])
    letter = buried(bench, token, row)
    assert not bench.is_pending(row)
    assert bench.attempts(row) is None
    assert bench.load().holders == []
    bench.replay(letter)
    assert [(r.dead_letter_id, r.outbox_id, r.topic, r.key) for r in bench.fetch().replays] == [
        (letter, row, "orders", "x")
    ]
    assert list(bench.fetch(replay_cursor=row).replays) == []
    assert shown(bench.fetch(replay_ids=[letter])) == [(Arm.REPLAY, row)]
    bench.settle(token, died_again=[(letter, death(), sent(bench, letter))])
    assert bench.letter(row) == (letter, "dead")
    assert shown(bench.fetch(replay_ids=[letter])) == []
    bench.replay(letter)
    bench.settle(token, replayed=[(letter, 0, 9, sent(bench, letter))])
    assert bench.letter(row) == (letter, "replayed")


def test_a_replay_that_was_taken_back_too_late_is_resolved_unless_the_letter_says_something_else(
    bench: StoreBench,
) -> None:
    token = bench.take_over()
    row, keyless = bench.insert("orders", "x"), bench.insert("orders", None)
    for each in (row, keyless):
        letter = buried(bench, token, each)
        bench.replay(letter)
        content = sent(bench, letter)
        bench.take_back(letter)
        bench.mend(letter, "mended")
        bench.settle(token, replayed=[(letter, 0, 9, content)])
        assert bench.letter(each) == (letter, "dead")
        bench.replay(letter)
        bench.settle(token, replayed=[(letter, 0, 9, content)])
        assert bench.letter(each) == (letter, "replaying")
        content = sent(bench, letter)
        bench.take_back(letter)
        bench.settle(token, replayed=[(letter, 0, 10, content)])
        assert bench.letter(each) == (letter, "replayed")


def test_a_dead_letter_that_holds_its_key_is_known_to_the_next_owner_until_it_is_discarded(bench: StoreBench) -> None:
    token = bench.take_over()
    row = bench.insert("orders", "x")
    letter = buried(bench, token, row, holds_key=True)
    assert [(h.outbox_id, h.key, h.dead_letter_id, h.replaying) for h in bench.load().holders] == [
        (row, "x", letter, False)
    ]
    bench.discard(letter)
    assert bench.fetch(holding_after=FIRST_ID).holding == HoldingLetters([], None)
    assert bench.load().holders == []


def test_dead_letters_that_hold_their_keys_are_listed_a_part_at_a_time_where_that_is_asked_for(
    bench: StoreBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("fetch_sql", "fetching"):
        monkeypatch.setattr(f"outboxd.postgres.store.{module}.LISTED_MAX", LISTED_MAX)
    token = bench.take_over()
    assert bench.fetch().holding is None
    nothing = bench.fetch(holding_after=FIRST_ID)
    assert nothing.holding == HoldingLetters([], None)
    assert not nothing.shows_nothing
    rows = [bench.insert("orders", f"key-{number}") for number in range(LISTED_MAX + 3)]
    letters = [buried(bench, token, row, holds_key=row != rows[0]) for row in rows]
    bench.replay(letters[1])
    bench.discard(letters[2])

    first = bench.fetch(holding_after=FIRST_ID).holding
    assert first is not None
    assert first.cursor == rows[LISTED_MAX + 1]
    rest = bench.fetch(holding_after=first.cursor).holding
    assert rest is not None
    assert rest.cursor is None
    assert [(letter.outbox_id, letter.key, letter.dead_letter_id, letter.replaying) for letter in first.letters] == [
        (rows[number], f"key-{number}", letters[number], number == 1) for number in (1, *range(3, LISTED_MAX + 2))
    ]
    assert [letter.outbox_id for letter in rest.letters] == rows[LISTED_MAX + 2 :]


def test_a_new_owner_is_told_of_replays_that_hold_their_keys_and_of_the_first_of_the_others(
    bench: StoreBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outboxd.postgres.store.load_sql.REPLAYS_MAX", REPLAYS_LOADED_MAX)
    token = bench.take_over()
    others = [bench.insert("orders", "x") for _ in range(REPLAYS_LOADED_MAX + 2)]
    holding = bench.insert("orders", "y")
    for row in [*others, holding]:
        bench.replay(buried(bench, token, row, holds_key=row == holding))

    holders = bench.load().holders

    assert sorted(holder.outbox_id for holder in holders) == [*others[:REPLAYS_LOADED_MAX], holding]
    assert all(holder.replaying for holder in holders)
    assert [replay.outbox_id for replay in bench.fetch().replays] == [*others, holding]


def test_a_replay_is_behind_an_earlier_one_of_its_key_that_stands_before_where_the_list_is_read_from(
    bench: StoreBench,
) -> None:
    token = bench.take_over()
    first, other, second, keyless, last = (bench.insert("orders", key) for key in ("x", "y", "x", None, "y"))
    elsewhere = bench.insert("invoices", "x")
    letters = {row: buried(bench, token, row) for row in (first, other, second, keyless, last, elsewhere)}

    def behind(cursor: int = FIRST_ID) -> dict[int, bool]:
        return {replay.outbox_id: replay.is_behind for replay in bench.fetch(replay_cursor=cursor).replays}

    for row in (second, keyless, last, elsewhere):
        bench.replay(letters[row])
    assert behind(other) == {second: False, keyless: False, last: False, elsewhere: False}
    bench.replay(letters[first])
    assert behind(other) == {second: True, keyless: False, last: False, elsewhere: False}
    assert behind() == dict.fromkeys((first, second, keyless, last, elsewhere), False)
    bench.settle(token, replayed=[(letters[first], 0, 1, sent(bench, letters[first]))])
    assert behind(other) == {second: False, keyless: False, last: False, elsewhere: False}


def test_a_replay_that_an_owner_before_delivered_is_resolved_by_its_rows_id_and_event(bench: StoreBench) -> None:
    token = bench.take_over()
    ours, anothers, unnoted = (bench.insert("orders", key) for key in "xyz")
    pieces = {record.id: event_pieces([record.event_id])[0] for record in bench.fetch().records}
    for row in (ours, anothers, unnoted):
        bench.replay(buried(bench, token, row))
    delivered = [
        (ours, 0, 7, pieces[ours], None),
        (anothers, 0, 8, pieces[anothers] + 1, None),
        (unnoted, 0, 9, None, None),
    ]

    def states() -> list[str]:
        return [letter[1] for row in (ours, anothers, unnoted) if (letter := bench.letter(row))]

    assert bench.settle(token + 1, recovered_replays=delivered).fenced
    assert states() == ["replaying"] * 3
    assert not bench.settle(token, recovered_replays=delivered).fenced
    assert states() == ["replayed", "replaying", "replayed"]


def test_a_replay_that_an_owner_before_delivered_is_resolved_unless_the_letter_says_something_else(
    bench: StoreBench,
) -> None:
    token = bench.take_over()
    row = bench.insert("orders", "x")
    letter = buried(bench, token, row)
    bench.replay(letter)
    content = sent(bench, letter)[:PIECE_DIGITS]
    bench.take_back(letter)
    bench.mend(letter, "mended")
    bench.settle(token, recovered_replays=[(row, 0, 7, None, content)])
    assert bench.letter(row) == (letter, "dead")
    bench.replay(letter)
    bench.settle(token, recovered_replays=[(row, 0, 7, None, content)])
    assert bench.letter(row) == (letter, "replaying")
    content = sent(bench, letter)[:PIECE_DIGITS]
    bench.take_back(letter)
    bench.settle(token, recovered_replays=[(row, 0, 7, None, None)])
    assert bench.letter(row) == (letter, "dead"), "nobody noted what was sent"
    bench.settle(token, recovered_replays=[(row, 0, 7, None, content)])
    assert bench.letter(row) == (letter, "replayed")


def test_what_was_mended_and_replayed_again_has_not_died_of_what_was_sent_before(bench: StoreBench) -> None:
    token = bench.take_over()
    row = bench.insert("orders", "x")
    letter = buried(bench, token, row)
    bench.replay(letter)
    content = sent(bench, letter)
    bench.take_back(letter)
    bench.mend(letter, "mended")
    bench.replay(letter)
    bench.settle(token, died_again=[(letter, death(), content)])
    assert bench.letter(row) == (letter, "replaying")
    bench.settle(token, died_again=[(letter, death(), sent(bench, letter))])
    assert bench.letter(row) == (letter, "dead")


def test_rows_of_other_events_than_were_read_are_neither_marked_nor_moved(bench: StoreBench) -> None:
    token = bench.take_over()
    rows = [bench.insert("orders", key) for key in "abcd"]
    pieces = [event_pieces([record.event_id])[0] for record in bench.fetch().records]
    settled = bench.settle(
        token,
        delivered_ids=rows[:2],
        delivered_partitions=[None, 0],
        delivered_offsets=[None, 8],
        delivered_pieces=[pieces[0], pieces[1] + 1],
        dead=[(rows[2], death()), (rows[3], death())],
        dead_pieces=[pieces[2], pieces[3] + 1],
    )
    assert settled.matched_rows == 2
    assert [bench.is_pending(row) for row in rows] == [False, True, False, True]
    assert [bench.letter(row) is not None for row in rows] == [False, False, True, False]


def test_of_what_an_owner_before_delivered_the_rows_that_it_had_settled_itself_count_as_settled(
    bench: StoreBench,
) -> None:
    token = bench.take_over()
    rows = [bench.insert("orders", key) for key in "abc"]
    pieces = [event_pieces([record.event_id])[0] for record in bench.fetch().records]
    bench.settle(token, delivered_ids=rows[:1], delivered_partitions=[0], delivered_offsets=[7])

    for _ in range(2):
        settled = bench.settle(
            token,
            delivered_ids=rows[:2],
            delivered_partitions=[0, 1],
            delivered_offsets=[7, 8],
            delivered_pieces=pieces[:2],
            is_recovered=True,
        )
        assert (settled.matched_rows, settled.fenced) == (2, False)
        assert [bench.is_pending(row) for row in rows] == [False, False, True]


def test_the_next_owner_is_told_of_the_last_transaction_that_was_settled_which_never_goes_back(
    bench: StoreBench,
) -> None:
    token = bench.take_over()
    assert bench.load().settled_transaction == 0
    for transaction in (5, 3):
        bench.settle(token, transaction=transaction)
        assert bench.load().settled_transaction == 5
    bench.succeed()
    assert bench.settle(token, transaction=9).fenced
    assert bench.load().settled_transaction == 5


@pytest.mark.parametrize("holds_now", [True, False])
def test_a_replay_that_dies_again_holds_its_key_as_the_route_says_now(bench: StoreBench, holds_now: bool) -> None:
    token = bench.take_over()
    row = bench.insert("orders", "x")
    letter = buried(bench, token, row, holds_key=not holds_now)
    bench.replay(letter)

    bench.settle(token, died_again=[(letter, death(holds_key=holds_now), sent(bench, letter))])

    assert [holder.outbox_id for holder in bench.load().holders] == ([row] if holds_now else [])


def test_a_storm_is_kept_as_a_pause_and_the_first_note_stays(bench: StoreBench) -> None:
    token = bench.take_over()
    bench.settle(token, storms=[("orders", "first")])
    bench.settle(token, storms=[("orders", "second")])
    assert [(pause.topic_pattern, pause.note) for pause in bench.fetch().pauses] == [("orders", "first")]
