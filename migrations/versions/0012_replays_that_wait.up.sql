-- Some lines of the function; the rest stays as it is.
DO $outboxd$
BEGIN
    EXECUTE replace(replace(pg_get_functiondef('replay(bigint[], boolean, text)'::regprocedure),
        $$    first_obstacle text;
$$,
        $$    first_obstacle text;
    unrelayed text;
$$),
        $$    GET DIAGNOSTICS taken = ROW_COUNT;
    RETURN taken;$$,
        $$    GET DIAGNOSTICS taken = ROW_COUNT;
    SELECT string_agg(format('"%s" (%s)', t.outbox, coalesce('relayed last until ' || l.expires_at, 'never relayed')), ', '
                      ORDER BY t.outbox)
      INTO unrelayed
      FROM (SELECT DISTINCT d.outbox FROM dead_letter d WHERE d.id = ANY (replay.ids) AND d.status = 'replaying') AS t
      LEFT JOIN lease AS l ON l.outbox = t.outbox AND l.shard = 0
     WHERE (l.expires_at > clock_timestamp()) IS NOT TRUE;
    IF unrelayed IS NOT NULL THEN
        RAISE NOTICE 'no daemon relays the outbox % now, so what is replayed of it waits until one does', unrelayed
            USING HINT = 'Run a daemon with this outbox.name. Where the outbox was renamed, and its table is relayed under '
                         'another name now: UPDATE dead_letter SET outbox = that name WHERE outbox = the former one.';
    END IF;
    RETURN taken;$$);
END
$outboxd$;

COMMENT ON FUNCTION replay(bigint[], boolean, text) IS
    'Sends dead letters again, in place: they get status ''replaying'' and the daemon sends each with its own id and event id, '
    'before the rows that its key holds; a notice tells where no daemon relays their outbox now. Returns how many were taken: '
    'those that were ''dead''. Refuses all of them when the replay of one could deliver an older row of its key after a newer '
    'one (see replay_obstacles), unless force => true. Keeps who asked, when and why in resolved_by, resolved_at and note. To '
    'undo it before the daemon has sent: UPDATE dead_letter SET status = ''dead'', resolved_at = NULL, resolved_by = NULL '
    'WHERE id = … AND status = ''replaying''. Needs SELECT on dead_letter and lease and on outbox (id, topic, key, '
    'published_at), and UPDATE on dead_letter (status, resolved_at, resolved_by, note).';
