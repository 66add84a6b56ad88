-- For people in psql. Every function runs with its caller's rights and a search_path of its own; the comments say which
-- rights it needs. docs/postgresql-roles.sql makes roles that have them.

-- ---------------------------------------------------------------------------------------------------------------- writing

CREATE FUNCTION enqueue(topic text, key text, payload bytea, headers jsonb DEFAULT '{}') RETURNS bigint
    LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO outbox (topic, key, payload, headers) VALUES ($1, $2, $3, coalesce($4, '{}'::jsonb)) RETURNING id;
END;

-- A literal without a type, and a string parameter, choose this one.
CREATE FUNCTION enqueue(topic text, key text, payload text, headers jsonb DEFAULT '{}') RETURNS bigint
    LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO outbox (topic, key, payload, headers)
    VALUES ($1, $2, convert_to($3, 'UTF8'), coalesce($4, '{}'::jsonb)) RETURNING id;
END;

CREATE FUNCTION enqueue(topic text, key text, payload jsonb, headers jsonb DEFAULT '{}') RETURNS bigint
    LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO outbox (topic, key, payload, headers)
    VALUES ($1, $2, convert_to($3::text, 'UTF8'), coalesce($4, '{}'::jsonb)) RETURNING id;
END;

COMMENT ON FUNCTION enqueue(text, text, bytea, jsonb) IS
    'Inserts one row to publish, in the caller''s transaction, and returns its id. Needs INSERT (topic, key, payload, headers) '
    'and SELECT (id) on the outbox table.';
COMMENT ON FUNCTION enqueue(text, text, text, jsonb) IS 'The same with a text as payload, sent as UTF-8.';
COMMENT ON FUNCTION enqueue(text, text, jsonb, jsonb) IS 'The same with a JSON document as payload, sent as UTF-8.';

-- ---------------------------------------------------------------------------------------------------------------- reading

CREATE FUNCTION readable(content bytea, characters_max integer DEFAULT 1000) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = @schema@, pg_temp
AS $$
DECLARE
    -- A character of UTF-8 has four bytes at most, so this is enough to cut from; a large value is not read whole.
    head bytea := substring(content FROM 1 FOR 4 * characters_max);
    shown text;
BEGIN
    IF content IS NULL THEN
        RETURN NULL;
    END IF;
    -- A cut can split the last character: without up to three bytes the rest is whole.
    FOR split IN 0 .. CASE WHEN octet_length(head) < octet_length(content) THEN 3 ELSE 0 END LOOP
        BEGIN
            shown := convert_from(substring(head FROM 1 FOR octet_length(head) - split), 'UTF8');
            EXIT;
        EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
            shown := NULL;
        END;
    END LOOP;
    IF shown IS NULL THEN
        shown := '\x' || encode(substring(head FROM 1 FOR characters_max / 2), 'hex');
        RETURN shown || CASE WHEN octet_length(content) > characters_max / 2 THEN '…' ELSE '' END;
    END IF;
    IF length(shown) > characters_max OR octet_length(head) < octet_length(content) THEN
        RETURN left(shown, characters_max) || '…';
    END IF;
    RETURN shown;
END
$$;

COMMENT ON FUNCTION readable(bytea, integer) IS
    'Bytes as a person reads them: text where they are UTF-8, else hexadecimal after \x; cut at so many characters.';

-- Without a search_path of its own, so that it is inlined and the index serves; its body is bound when it is made. The planner
-- takes the comparison of hashes and that of texts for independent, and would expect next to no rows: CASE hides one from it.
CREATE FUNCTION topic_is(topic text, wanted text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN hashtextextended($1, 0) = hashtextextended($2, 0) AND CASE WHEN $1 = $2 THEN true ELSE false END;

COMMENT ON FUNCTION topic_is(text, text) IS
    'Whether a dead letter has this topic, by an index: WHERE status = ''dead'' AND topic_is(topic, ''orders'').';

CREATE VIEW dead_letter_summary AS
    -- Grouped by hashes, and the names looked up by the sample: sorting a million rows by five texts takes three times as long.
    SELECT named.topic, named.error_code, named.reason, kinds.count, kinds.first, kinds.last, kinds.keys, kinds.sample,
           named.outbox
      FROM (SELECT kind, sum(rows)::bigint AS count, min(first) AS first, max(last) AS last, count(key_hash) AS keys,
                   max(newest) AS sample
              FROM (SELECT hashtextextended(reason, hashtextextended(error_code,
                               hashtextextended(topic, hashtextextended(outbox, 0)))) AS kind,
                           hashtextextended(key, 0) AS key_hash,
                           count(*) AS rows, min(died_at) AS first, max(died_at) AS last, max(id) AS newest
                      FROM dead_letter
                     WHERE status = 'dead'
                     GROUP BY 1, 2) AS by_key
             GROUP BY kind) AS kinds
      JOIN dead_letter AS named ON named.id = kinds.sample
     ORDER BY kinds.count DESC, named.topic, named.error_code, named.reason;

COMMENT ON VIEW dead_letter_summary IS
    'What died and is not resolved, by topic, error and reason: how many, when first and last, of how many keys, and the id of '
    'the newest as a sample.';

CREATE VIEW dead_letter_recent AS
    SELECT id, died_at, status, topic, key, readable(payload) AS payload, octet_length(payload) AS payload_bytes, headers,
           partition, reason, error_code, error_message, attempts, holds_key, outbox, outbox_id, event_id, created_at,
           first_failed_at, daemon, resolved_at, resolved_by, note
      FROM dead_letter
     ORDER BY died_at DESC, id DESC;

COMMENT ON VIEW dead_letter_recent IS
    'Dead letters, newest first, of every status; the payload as text where it is UTF-8, else as hexadecimal, cut at 1,000 '
    'characters. Read it with LIMIT.';

CREATE VIEW held_keys AS
    SELECT outbox, topic, key, 'dead letter' AS why, died_at AS since, outbox_id AS by_outbox_id, error_code
      FROM dead_letter
     WHERE holds_key AND status IN ('dead', 'replaying') AND key IS NOT NULL
    UNION ALL
    SELECT retry.outbox, held.topic, held.key, 'retry', retry.first_failed_at, retry.outbox_id, retry.error_code
      FROM retry JOIN outbox AS held ON held.id = retry.outbox_id
     WHERE held.key IS NOT NULL AND held.published_at IS NULL;

COMMENT ON VIEW held_keys IS
    'Keys whose later rows wait, each with why (''dead letter'': until it is replayed or discarded; ''retry'': until it is '
    'delivered or dead), since when, and for which row.';

CREATE VIEW status AS
    WITH known AS (
        SELECT outbox FROM lease WHERE shard = 0
        UNION ALL
        SELECT 'default' WHERE NOT EXISTS (SELECT FROM lease)
    )
    SELECT known.outbox,
           least(backlog.rows, 10000) AS pending,
           backlog.rows > 10000 AS pending_is_lower_bound,
           oldest.created_at AS oldest_pending_at,
           clock_timestamp() - oldest.created_at AS oldest_pending_age,
           (SELECT count(*) FROM retry WHERE retry.outbox = known.outbox) AS in_retry,
           least(dead.rows, 10000) AS dead,
           dead.rows > 10000 AS dead_is_lower_bound,
           (SELECT count(*) FROM dead_letter d WHERE d.outbox = known.outbox AND d.status = 'replaying') AS replaying,
           least(held.keys, 1000) AS held_keys,
           held.keys > 1000 AS held_keys_is_lower_bound,
           (SELECT max(l.daemon) FROM lease l WHERE l.outbox = known.outbox AND l.expires_at > clock_timestamp())
               AS lease_holder,
           (SELECT max(l.expires_at) FROM lease l WHERE l.outbox = known.outbox) AS lease_expires_at,
           (SELECT array_agg(c.topic_pattern ORDER BY c.topic_pattern) FROM control c WHERE c.outbox = known.outbox)
               AS paused
      FROM known
     CROSS JOIN LATERAL (
           SELECT count(*) AS rows FROM (SELECT FROM outbox o WHERE o.published_at IS NULL LIMIT 10001) AS bounded
     ) AS backlog
      LEFT JOIN LATERAL (
           SELECT o.created_at FROM outbox o WHERE o.published_at IS NULL ORDER BY o.id LIMIT 1
     ) AS oldest ON true
     CROSS JOIN LATERAL (
           SELECT count(*) AS rows
             FROM (SELECT FROM dead_letter d WHERE d.status = 'dead' AND d.outbox = known.outbox LIMIT 10001) AS bounded
     ) AS dead
     CROSS JOIN LATERAL (
           SELECT count(*) AS keys FROM (SELECT FROM held_keys h WHERE h.outbox = known.outbox LIMIT 1001) AS bounded
     ) AS held
     ORDER BY known.outbox;

COMMENT ON VIEW status IS
    'One row for each outbox that was ever relayed from this schema. pending and dead are counted up to 10,000 and held_keys up '
    'to 1,000, no further, so that a large backlog costs nothing to look at: then …_is_lower_bound is true. pending counts the rows of the schema''s own outbox table. lease_holder is null while no daemon relays; paused is null while '
    'nothing is paused.';

-- --------------------------------------------------------------------------------------------------------------- mending

-- Operators mend what is dead. What is on its way, or was resolved, stays the record of what happened.
CREATE FUNCTION guard_dead_letter() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = @schema@, pg_temp
AS $$
BEGIN
    IF OLD.status <> 'dead' THEN
        RAISE EXCEPTION 'dead letter % is %, so its content can no longer be changed', OLD.id, OLD.status
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Only rows with status ''dead'' can be changed.';
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION guard_dead_letter() IS
    'Trigger of dead_letter: content changes only while a row is dead.';

CREATE TRIGGER dead_letter_guard BEFORE UPDATE OF topic, key, payload, headers, partition ON dead_letter
    FOR EACH ROW
    WHEN ((OLD.topic, OLD.key, OLD.payload, OLD.headers, OLD.partition)
          IS DISTINCT FROM (NEW.topic, NEW.key, NEW.payload, NEW.headers, NEW.partition))
    EXECUTE FUNCTION guard_dead_letter();

CREATE FUNCTION replay_obstacles(ids bigint[])
    RETURNS TABLE (id bigint, outbox_id bigint, topic text, newer_id bigint, obstacle text)
    LANGUAGE plpgsql STABLE
    -- Plans made for the very arguments: a handful of ids and a hundred thousand need different ones.
    SET search_path = @schema@, pg_temp
    SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    -- Bounds the time: the outbox has no index on published rows, so those after a dead letter are read by id.
    rows_max CONSTANT bigint := 200000;
    oldest bigint;
    unread bigint;
BEGIN
    SELECT min(d.outbox_id) INTO oldest
      FROM dead_letter d
     WHERE d.id = ANY (replay_obstacles.ids) AND d.status = 'dead' AND d.key IS NOT NULL;
    IF oldest IS NULL THEN
        RETURN;
    END IF;
    SELECT o.id INTO unread FROM outbox o WHERE o.id > oldest ORDER BY o.id OFFSET rows_max LIMIT 1;
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT d.id, d.outbox, d.outbox_id, d.topic, d.key, d.holds_key
          FROM dead_letter d
         WHERE d.id = ANY (replay_obstacles.ids) AND d.status = 'dead' AND d.key IS NOT NULL
    ), newer AS (
        SELECT a.id, o.id AS newer_id
          FROM asked a
          JOIN (SELECT o.id, o.topic, o.key, o.published_at
                  FROM outbox o WHERE o.id > oldest ORDER BY o.id LIMIT rows_max) AS o
            ON o.topic = a.topic AND o.key = a.key AND o.id > a.outbox_id
         WHERE o.published_at IS NOT NULL
        UNION ALL
        SELECT a.id, r.outbox_id
          FROM asked a
          JOIN dead_letter r
            ON hashtextextended(r.key, hashtextextended(r.topic, 0)) = hashtextextended(a.key, hashtextextended(a.topic, 0))
           AND r.key IS NOT NULL AND r.topic = a.topic AND r.key = a.key AND r.outbox = a.outbox
           AND r.outbox_id > a.outbox_id
         WHERE r.status = 'replayed'
    ), found AS (
        SELECT n.id, min(n.newer_id) AS newer_id FROM newer n GROUP BY n.id
    )
    SELECT a.id, a.outbox_id, a.topic, f.newer_id,
           CASE WHEN f.newer_id IS NOT NULL THEN 'published'
                WHEN unread IS NOT NULL THEN 'too many'
                ELSE 'deleted' END
      FROM asked a
      LEFT JOIN found f ON f.id = a.id
     WHERE f.newer_id IS NOT NULL
        -- Nothing newer can have gone while it held its key. What is found all the same is of another key, that it was given.
        OR NOT a.holds_key
       AND (unread IS NOT NULL
            OR EXISTS (SELECT FROM lease l
                        WHERE l.outbox = a.outbox AND (l.deleted_through IS NULL OR l.deleted_through > a.outbox_id)))
     ORDER BY a.outbox_id;
END
$$;

COMMENT ON FUNCTION replay_obstacles(bigint[]) IS
    'Of these dead letters, those whose replay could deliver an older row after a newer one of its key, and why. ''published'': '
    'newer_id is such a row. ''too many'': more than 200,000 rows follow, which are not all looked at. ''deleted'': published '
    'rows that followed may be gone (after_publish = "delete", or the retention), so none can be excluded. Rows without a key '
    'have no order; those that hold their key kept newer rows from going, unless they were given another key. What is in flight at this moment is not seen. Needs '
    'SELECT on outbox (id, topic, key, published_at), dead_letter and lease.';

CREATE FUNCTION replay(ids bigint[], force boolean DEFAULT false, note text DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = @schema@, pg_temp
    SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    asked bigint;
    taken bigint;
    obstacles bigint;
    first_id bigint;
    first_topic text;
    first_newer bigint;
    first_obstacle text;
BEGIN
    -- Locked in the order of ids, so that two who replay at once wait for each other instead of failing.
    PERFORM FROM dead_letter d WHERE d.id = ANY (replay.ids) AND d.status = 'dead' ORDER BY d.id FOR UPDATE;
    GET DIAGNOSTICS asked = ROW_COUNT;
    IF NOT coalesce(replay.force, false) THEN
        SELECT count(*), (array_agg(o.id ORDER BY known, o.id))[1], (array_agg(o.topic ORDER BY known, o.id))[1],
               (array_agg(o.newer_id ORDER BY known, o.id))[1], (array_agg(o.obstacle ORDER BY known, o.id))[1]
          INTO obstacles, first_id, first_topic, first_newer, first_obstacle
          FROM (SELECT o.*, o.newer_id IS NULL AS known FROM replay_obstacles(replay.ids) o) AS o;
        IF obstacles > 0 THEN
            RAISE EXCEPTION '% of % dead letters not replayed: %', obstacles, asked,
                CASE first_obstacle
                    WHEN 'published' THEN format('newer rows of the same key were published since, such as row %s after dead '
                        'letter %s of topic %s', first_newer, first_id, first_topic)
                    WHEN 'too many' THEN format('newer published rows of the same key cannot be excluded: more than 200,000 '
                        'rows follow, as after dead letter %s of topic %s', first_id, first_topic)
                    ELSE format('newer published rows of the same key cannot be excluded: they are deleted after '
                        'publishing, as for dead letter %s of topic %s', first_id, first_topic)
                END
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Consumers would see the older row after the newer one. If they can take that, repeat it with '
                             'force => true. Nothing was changed.';
        END IF;
    END IF;
    UPDATE dead_letter AS d
       SET status = 'replaying', resolved_at = now(), resolved_by = session_user,
           note = concat_ws(E'\n', past_note(d), replay.note)
     WHERE d.id = ANY (replay.ids) AND d.status = 'dead';
    GET DIAGNOSTICS taken = ROW_COUNT;
    RETURN taken;
END
$$;

CREATE FUNCTION past_note(letter dead_letter) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = @schema@, pg_temp
AS $$
    -- A row that died again after a replay: who asked for that, and when, must outlive the next entry.
    SELECT CASE WHEN letter.resolved_by IS NULL THEN letter.note
                ELSE format('%s (replayed by %s, %s)', coalesce(letter.note, 'no reason given'), letter.resolved_by,
                            to_char(letter.resolved_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) END
$$;

COMMENT ON FUNCTION past_note(dead_letter) IS 'The note of a dead letter as history, before another entry is added to it.';

CREATE FUNCTION replay(id bigint, force boolean DEFAULT false, note text DEFAULT NULL) RETURNS bigint
    LANGUAGE sql
    SET search_path = @schema@, pg_temp
AS $$
    SELECT replay(ARRAY[$1], $2, $3)
$$;

COMMENT ON FUNCTION replay(bigint[], boolean, text) IS
    'Sends dead letters again, in place: they get status ''replaying'' and the daemon sends each with its own id and event id, '
    'before the rows that its key holds. Returns how many were taken: those that were ''dead''. Refuses all of them when the '
    'replay of one could deliver an older row of its key after a newer one (see replay_obstacles), unless force => true. '
    'Keeps who asked, when and why in resolved_by, resolved_at and note. To undo it before the daemon has sent: UPDATE '
    'dead_letter SET status = ''dead'' WHERE id = … AND status = ''replaying''. Needs SELECT on dead_letter and lease and on '
    'outbox (id, topic, key, published_at), and UPDATE on dead_letter (status, resolved_at, resolved_by, note).';
COMMENT ON FUNCTION replay(bigint, boolean, text) IS 'The same for one dead letter: returns 1, or 0 when it is not ''dead''.';

CREATE FUNCTION replay_where(
    topic text DEFAULT NULL, error_code text DEFAULT NULL, since timestamptz DEFAULT NULL, max_rows integer DEFAULT 1000,
    dry_run boolean DEFAULT true, force boolean DEFAULT false, note text DEFAULT NULL
) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = @schema@, pg_temp
    SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    chosen bigint[];
    obstacles bigint;
BEGIN
    SELECT array_agg(c.id) INTO chosen
      FROM (SELECT d.id
              FROM dead_letter d
             WHERE d.status = 'dead'
               AND (replay_where.topic IS NULL OR topic_is(d.topic, replay_where.topic))
               AND (replay_where.error_code IS NULL OR d.error_code = replay_where.error_code)
               AND (replay_where.since IS NULL OR d.died_at >= replay_where.since)
             ORDER BY d.died_at, d.id
             LIMIT coalesce(replay_where.max_rows, 1000)) AS c;
    IF NOT coalesce(replay_where.dry_run, true) THEN
        RETURN replay(coalesce(chosen, '{}'), replay_where.force, replay_where.note);
    END IF;
    SELECT count(*) INTO obstacles FROM replay_obstacles(coalesce(chosen, '{}'));
    RAISE NOTICE 'dry run, nothing is changed: % would be taken, % of them only with force => true; dry_run => false takes them',
        coalesce(cardinality(chosen), 0), obstacles;
    RETURN coalesce(cardinality(chosen), 0);
END
$$;

COMMENT ON FUNCTION replay_where(text, text, timestamptz, integer, boolean, boolean, text) IS
    'Replays dead letters by topic, error code and time of death, oldest first, at most max_rows of them; what is null does not '
    'filter. By default it only says how many it would take: dry_run => false takes them. Repeat it until it returns 0. '
    'Otherwise as replay.';

CREATE FUNCTION discard(ids bigint[], note text DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = @schema@, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    taken bigint;
BEGIN
    PERFORM FROM dead_letter d WHERE d.id = ANY (discard.ids) AND d.status = 'dead' ORDER BY d.id FOR UPDATE;
    UPDATE dead_letter AS d
       SET status = 'discarded', resolved_at = now(), resolved_by = session_user,
           note = concat_ws(E'\n', past_note(d), discard.note)
     WHERE d.id = ANY (discard.ids) AND d.status = 'dead';
    GET DIAGNOSTICS taken = ROW_COUNT;
    RETURN taken;
END
$$;

CREATE FUNCTION discard(id bigint, note text DEFAULT NULL) RETURNS bigint
    LANGUAGE sql
    SET search_path = @schema@, pg_temp
AS $$
    SELECT discard(ARRAY[$1], $2)
$$;

COMMENT ON FUNCTION discard(bigint[], text) IS
    'Gives dead letters up: they get status ''discarded'', are never sent, and let the rows go that their keys hold. Returns '
    'how many were taken: those that were ''dead''. Keeps who, when and why. Needs SELECT on dead_letter and UPDATE on '
    'dead_letter (status, resolved_at, resolved_by, note).';
COMMENT ON FUNCTION discard(bigint, text) IS 'The same for one dead letter: returns 1, or 0 when it is not ''dead''.';

-- --------------------------------------------------------------------------------------------------------------- pausing

CREATE FUNCTION sole_outbox() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = @schema@, pg_temp
AS $$
DECLARE
    names text[];
BEGIN
    SELECT array_agg(DISTINCT outbox) INTO names FROM lease;
    IF cardinality(names) > 1 THEN
        RAISE EXCEPTION 'several outboxes are relayed from this schema: %', array_to_string(names, ', ')
            USING ERRCODE = 'ambiguous_parameter', HINT = 'Name the one that is meant: outbox => ''…''.';
    END IF;
    RETURN coalesce(names[1], 'default');
END
$$;

COMMENT ON FUNCTION sole_outbox() IS 'The name of the outbox where there is only one; ''default'' before the first start.';

CREATE FUNCTION pause(topic_pattern text, note text DEFAULT NULL, outbox text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path = @schema@, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF coalesce(pause.topic_pattern, '') = '' OR length(pause.topic_pattern) > 249 THEN
        RAISE EXCEPTION 'a topic pattern has 1 to 249 characters' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Name a topic, or a glob such as ''metrics.*''; ''*'' pauses all.';
    END IF;
    INSERT INTO control (outbox, topic_pattern, who, note)
    VALUES (coalesce(pause.outbox, sole_outbox()), pause.topic_pattern, session_user, pause.note)
    ON CONFLICT (outbox, topic_pattern) DO NOTHING;
    RETURN FOUND;
END
$$;

CREATE FUNCTION resume(topic_pattern text, outbox text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path = @schema@, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM control AS c
     WHERE c.outbox = coalesce(resume.outbox, sole_outbox()) AND c.topic_pattern = resume.topic_pattern;
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION pause(text, text, text) IS
    'Pauses the topics that match a glob, over restarts too, until resume with the same pattern: their rows wait and nothing of '
    'them is counted. True when it was not paused before. Needs SELECT on lease, and SELECT and INSERT on control.';
COMMENT ON FUNCTION resume(text, text) IS
    'Ends the pause with this very pattern. True when there was one. Needs SELECT on lease, and SELECT and DELETE on control.';
