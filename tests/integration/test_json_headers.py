"""Headers of the type `json`, which a table of somebody's own may have: it takes what `jsonb` refuses."""

from __future__ import annotations

import json

import pytest

from outboxd.policy.blame.outcomes import DeadLetter, DeathReason
from outboxd.policy.faults import own_fault
from tests.contract.stores import PostgresBench
from tests.support.postgres_fixtures import Database

AS_JSON = "ALTER TABLE outboxd.outbox ALTER headers DROP DEFAULT, ALTER headers DROP NOT NULL, ALTER headers TYPE json"
DEATH = DeadLetter(DeathReason.INVALID, own_fault("INVALID_HEADERS"), "no headers", 1, False)


@pytest.mark.parametrize("setting", ["on", "off"])
def test_rows_whose_headers_can_be_no_jsonb_are_buried_with_their_text_and_all_others_as_they_are(
    database: Database, setting: str
) -> None:
    with database.connect() as connection:
        connection.execute(f"ALTER DATABASE {database.name} SET standard_conforming_strings = {setting}")
        connection.execute("DROP FUNCTION outboxd.enqueue(text, text, bytea, jsonb) CASCADE")
        connection.execute("DROP FUNCTION outboxd.enqueue(text, text, text, jsonb) CASCADE")
        connection.execute("DROP FUNCTION outboxd.enqueue(text, text, jsonb, jsonb) CASCADE")
        connection.execute(AS_JSON)
    refused = [r'{"a": "\ud800"}', r'{"\u0000": 1}', r'["\uDC00\ud800"]', '{"a": 1e999999}', '{"a": 1E-999999}']
    taken = [r'{"a": "\ud83d\ude00"}', '{"a": 1e10}', '{"a": 1}', "[]", r'{"a": "\u20ac\\"}']
    bench = PostgresBench(database)
    try:
        token = bench.take_over()
        for headers in (*refused, *taken):
            row = bench.insert("orders")
            bench.execute("UPDATE outboxd.outbox SET headers = %s WHERE id = %s", headers, row)
            assert bench.settle(token, dead=[(row, DEATH)]).matched_rows == 1, headers
    finally:
        bench.close()

    with database.connect() as connection:
        buried = [row[0] for row in connection.execute("SELECT headers FROM outboxd.dead_letter ORDER BY id")]
    assert buried[: len(refused)] == refused
    assert buried[len(refused) :] == [json.loads(headers) for headers in taken]
