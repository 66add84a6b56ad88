-- What row_to_json, json_build_object and many drivers give.
CREATE FUNCTION enqueue(topic text, key text, payload json, headers jsonb DEFAULT '{}') RETURNS bigint
    LANGUAGE sql
BEGIN ATOMIC
    SELECT enqueue($1, $2, $3::text, $4);
END;

COMMENT ON FUNCTION enqueue(text, text, json, jsonb) IS 'The same with a JSON document as payload, sent as it was written.';

-- One line of each of these functions; the rest stays as it is.
DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('replay(bigint[], boolean, text)'::regprocedure),
        'concat_ws(E''\n'', past_note(d), replay.note)', 'nullif(concat_ws(E''\n'', past_note(d), replay.note), '''')');
    EXECUTE replace(pg_get_functiondef('discard(bigint[], text)'::regprocedure),
        'concat_ws(E''\n'', past_note(d), discard.note)', 'nullif(concat_ws(E''\n'', past_note(d), discard.note), '''')');
END
$$;
