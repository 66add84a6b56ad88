DO $outboxd$
BEGIN
    EXECUTE replace(pg_get_functiondef(
            'replay_where(text, text, timestamptz, integer, boolean, boolean, text)'::regprocedure),
        $$    IF replay_where.max_rows < 0 THEN
        RAISE EXCEPTION 'max_rows is 0 or more, not %', replay_where.max_rows USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Repeat it with how many dead letters to take at most; without max_rows that is 1,000.';
    END IF;
$$, '');
    EXECUTE replace(pg_get_functiondef('readable(bytea, integer)'::regprocedure),
        $$    -- Four times the highest is an integer still, and more bytes than a value has. No limit is no reason to show nothing.
    characters_max integer := least(greatest(coalesce(readable.characters_max, 1000), 0), 536870911);
$$, '');
    EXECUTE replace(pg_get_functiondef('pause(text, text, text)'::regprocedure),
        $$    IF NOT EXISTS (SELECT FROM lease AS l WHERE l.outbox = coalesce(pause.outbox, sole_outbox())) THEN
        RAISE NOTICE 'no daemon has relayed an outbox "%" from this schema yet, so nothing waits until one does; relayed are: %',
            coalesce(pause.outbox, sole_outbox()),
            coalesce((SELECT string_agg(DISTINCT l.outbox, ', ' ORDER BY l.outbox) FROM lease AS l), 'none');
    END IF;
$$, '');
END
$outboxd$;

COMMENT ON FUNCTION pause(text, text, text) IS
    'Pauses the topics that match a glob, over restarts too, until resume with the same pattern: their rows wait and nothing of '
    'them is counted. True when it was not paused before. Needs SELECT on lease, and SELECT and INSERT on control.';
