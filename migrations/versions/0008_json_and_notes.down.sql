DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('replay(bigint[], boolean, text)'::regprocedure),
        'nullif(concat_ws(E''\n'', past_note(d), replay.note), '''')', 'concat_ws(E''\n'', past_note(d), replay.note)');
    EXECUTE replace(pg_get_functiondef('discard(bigint[], text)'::regprocedure),
        'nullif(concat_ws(E''\n'', past_note(d), discard.note), '''')', 'concat_ws(E''\n'', past_note(d), discard.note)');
END
$$;

DROP FUNCTION enqueue(text, text, json, jsonb);
