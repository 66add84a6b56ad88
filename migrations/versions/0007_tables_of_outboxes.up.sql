-- Several outboxes may share a schema, each with a table of its own. The views read the schema's own table by the rights of
-- their owner, as before; another table is only known at run time, and is read by the rights of who asks.

CREATE FUNCTION table_of(outbox text) RETURNS regclass
    LANGUAGE sql STABLE
    SET search_path = @schema@, pg_temp
AS $$
    -- With its schema: a name such as pg_class would else mean a table of PostgreSQL.
    SELECT to_regclass(format('%I.%I', current_schema(), coalesce(
        (SELECT l.relayed_table FROM lease l WHERE l.outbox = table_of.outbox AND l.shard = 0), 'outbox')))
$$;

COMMENT ON FUNCTION table_of(text) IS
    'The table that this outbox''s daemon relays; the schema''s own one before the first start; null where it is not there. '
    'Needs SELECT on lease.';

CREATE FUNCTION retried_keys(outbox text)
    RETURNS TABLE (topic text, key text, since timestamptz, outbox_id bigint, error_code text)
    LANGUAGE plpgsql STABLE
    SET search_path = @schema@, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    relayed regclass;
BEGIN
    relayed := table_of(retried_keys.outbox);
    IF relayed IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        -- One row for one, by the primary key: a join may read the whole table.
        'SELECT held.topic, held.key, r.first_failed_at, r.outbox_id, r.error_code
           FROM retry AS r CROSS JOIN LATERAL (
                SELECT o.topic, o.key FROM %s AS o
                 WHERE o.id = r.outbox_id AND o.key IS NOT NULL AND o.published_at IS NULL LIMIT 1) AS held
          WHERE r.outbox = $1', relayed) USING retried_keys.outbox;
EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
    RETURN;  -- The rest of the view is for those too who may not read this table.
END
$$;

COMMENT ON FUNCTION retried_keys(text) IS
    'The keys that rows of this outbox hold which are tried again. Nothing where its table may not be read: needs SELECT on '
    'lease, retry, and on that table (id, topic, key, published_at).';

CREATE FUNCTION backlog_of(outbox text, OUT rows bigint, OUT oldest_due_at timestamptz)
    LANGUAGE plpgsql STABLE
    SET search_path = @schema@, pg_temp
    -- By the index in order of available_at: by old statistics, to read and sort all that is pending looks as cheap.
    SET enable_sort = off
AS $$
DECLARE
    relayed regclass;
BEGIN
    relayed := table_of(backlog_of.outbox);
    IF relayed IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format(
        'SELECT (SELECT count(*) FROM (SELECT FROM %1$s AS o WHERE o.published_at IS NULL
                  ORDER BY o.id LIMIT (SELECT 10001)) AS bounded),
                least((SELECT p.created_at
                         FROM (SELECT o.created_at, o.available_at FROM %1$s AS o WHERE o.published_at IS NULL
                                ORDER BY o.id LIMIT (SELECT 100000)) AS p
                        WHERE p.available_at IS NULL LIMIT 1),
                      (SELECT greatest(o.created_at, o.available_at) FROM %1$s AS o
                        WHERE o.published_at IS NULL AND o.available_at <= now()
                        ORDER BY o.available_at, o.id LIMIT (SELECT 1)))', relayed) INTO rows, oldest_due_at;
EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
    RETURN;  -- The rest of the view is for those too who may not read this table.
END
$$;

COMMENT ON FUNCTION backlog_of(text) IS
    'How many rows of this outbox are pending, counted up to 10,001, and since when the oldest due one is due. Null where its '
    'table may not be read: needs SELECT on lease, and on that table (id, created_at, available_at, published_at).';

CREATE OR REPLACE VIEW held_keys AS
    SELECT outbox, topic, key, 'dead letter' AS why, died_at AS since, outbox_id AS by_outbox_id, error_code
      FROM dead_letter
     WHERE holds_key AND status IN ('dead', 'replaying') AND key IS NOT NULL
    UNION ALL
    -- One row for one, by the primary key: a join may read the whole table.
    SELECT retry.outbox, held.topic, held.key, 'retry', retry.first_failed_at, retry.outbox_id, retry.error_code
      FROM retry CROSS JOIN LATERAL (
           SELECT o.topic, o.key FROM outbox AS o
            WHERE o.id = retry.outbox_id AND o.key IS NOT NULL AND o.published_at IS NULL LIMIT 1) AS held
     WHERE NOT EXISTS (SELECT FROM lease AS l
                        WHERE l.outbox = retry.outbox AND l.shard = 0 AND l.relayed_table <> 'outbox')
    UNION ALL
    SELECT l.outbox, held.topic, held.key, 'retry', held.since, held.outbox_id, held.error_code
      FROM lease AS l CROSS JOIN LATERAL retried_keys(l.outbox) AS held
     WHERE l.shard = 0 AND l.relayed_table <> 'outbox';

COMMENT ON VIEW held_keys IS
    'Keys whose later rows wait, each with why (''dead letter'': until it is replayed or discarded; ''retry'': until it is '
    'delivered or dead), since when, and for which row. Of an outbox with a table of its own, those in retry are only shown to '
    'who may read that table (id, topic, key, published_at).';

-- In the order of ids, and with limits that the planner cannot see, so that it goes by the index of what is pending: by old
-- statistics it may else read the whole table. A pending row without a time of its own is as old as it is; the oldest of the
-- others comes by the index of those.
CREATE OR REPLACE VIEW status AS
    WITH known AS (
        SELECT outbox, coalesce(relayed_table, 'outbox') AS relayed_table FROM lease WHERE shard = 0
        UNION ALL
        SELECT 'default', 'outbox' WHERE NOT EXISTS (SELECT FROM lease)
    )
    SELECT known.outbox,
           CASE WHEN backlog.rows > 10000 THEN 10000 ELSE backlog.rows END AS pending,
           backlog.rows > 10000 AS pending_is_lower_bound,
           backlog.oldest_due_at AS oldest_pending_at,
           -- What is not finite has no age; PostgreSQL cannot even subtract it.
           CASE WHEN isfinite(backlog.oldest_due_at) THEN clock_timestamp() - backlog.oldest_due_at END
               AS oldest_pending_age,
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
           SELECT (SELECT count(*) FROM (SELECT FROM outbox o WHERE o.published_at IS NULL
                     ORDER BY o.id LIMIT (SELECT 10001)) AS bounded) AS rows,
                  least((SELECT p.created_at
                           FROM (SELECT o.created_at, o.available_at FROM outbox o WHERE o.published_at IS NULL
                                  ORDER BY o.id LIMIT (SELECT 100000)) AS p
                          WHERE p.available_at IS NULL LIMIT 1),
                        (SELECT greatest(o.created_at, o.available_at) FROM outbox o
                          WHERE o.published_at IS NULL AND o.available_at <= now()
                          ORDER BY o.available_at, o.id LIMIT (SELECT 1))) AS oldest_due_at
            WHERE known.relayed_table = 'outbox'
           UNION ALL
           SELECT b.rows, b.oldest_due_at FROM backlog_of(known.outbox) AS b WHERE known.relayed_table <> 'outbox'
     ) AS backlog
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
    'to 1,000, no further, so that a large backlog costs nothing to look at: then …_is_lower_bound is true. pending counts the '
    'rows of the table that the outbox''s daemon relays, and is null for who may not read it (the schema''s own one can be read '
    'here). oldest_pending_at is since when the oldest row is due whose available_at has come, or that has none, among the first '
    '100,000; null: none. lease_holder is null while no daemon relays; paused is null while nothing is paused.';

CREATE OR REPLACE FUNCTION replay_obstacles(ids bigint[])
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
    outbox_asked text;
    oldest bigint;
    relayed regclass;
    unread bigint;
BEGIN
    FOR outbox_asked, oldest IN
        SELECT d.outbox, min(d.outbox_id)
          FROM dead_letter d
         WHERE d.id = ANY (replay_obstacles.ids) AND d.status = 'dead' AND d.key IS NOT NULL
         GROUP BY d.outbox ORDER BY d.outbox
    LOOP
        relayed := table_of(outbox_asked);
        unread := NULL;
        IF relayed IS NOT NULL THEN
            EXECUTE format('SELECT o.id FROM %s AS o WHERE o.id > $1 ORDER BY o.id OFFSET $2 LIMIT 1', relayed)
               INTO unread USING oldest, rows_max;
        END IF;
        RETURN QUERY EXECUTE format(
            'WITH asked AS MATERIALIZED (
                SELECT d.id, d.outbox, d.outbox_id, d.topic, d.key, d.holds_key
                  FROM dead_letter d
                 WHERE d.id = ANY ($1) AND d.outbox = $2 AND d.status = ''dead'' AND d.key IS NOT NULL
            ), newer AS (
                SELECT a.id, o.id AS newer_id
                  FROM asked a
                  JOIN %s AS o ON o.topic = a.topic AND o.key = a.key AND o.id > a.outbox_id
                 WHERE o.published_at IS NOT NULL
                UNION ALL
                SELECT a.id, r.outbox_id
                  FROM asked a
                  JOIN dead_letter r
                    ON hashtextextended(r.key, hashtextextended(r.topic, 0))
                       = hashtextextended(a.key, hashtextextended(a.topic, 0))
                   AND r.key IS NOT NULL AND r.topic = a.topic AND r.key = a.key AND r.outbox = a.outbox
                   AND r.outbox_id > a.outbox_id
                 WHERE r.status = ''replayed''
            ), found AS (
                SELECT n.id, min(n.newer_id) AS newer_id FROM newer n GROUP BY n.id
            )
            SELECT a.id, a.outbox_id, a.topic, f.newer_id,
                   CASE WHEN f.newer_id IS NOT NULL THEN ''published''
                        WHEN $5 THEN ''too many''
                        ELSE ''deleted'' END
              FROM asked a
              LEFT JOIN found f ON f.id = a.id
             WHERE f.newer_id IS NOT NULL
                -- Nothing newer can have gone while it held its key. What is found all the same is of another key, that it
                -- was given.
                OR NOT a.holds_key
               AND ($5 OR $6
                    OR EXISTS (SELECT FROM lease l WHERE l.outbox = a.outbox
                                  AND (l.deleted_through IS NULL OR l.deleted_through > a.outbox_id)))
             ORDER BY a.outbox_id',
            CASE WHEN relayed IS NOT NULL THEN
                format('(SELECT o.id, o.topic, o.key, o.published_at FROM %s AS o
                          WHERE o.id > $3 ORDER BY o.id LIMIT $4)', relayed)
            ELSE '(SELECT e.id, e.topic, e.key, e.died_at AS published_at FROM dead_letter AS e
                    WHERE e.id > $3 LIMIT 0 * $4)' END)
        USING replay_obstacles.ids, outbox_asked, oldest, rows_max, unread IS NOT NULL, relayed IS NULL;
    END LOOP;
END
$$;

COMMENT ON FUNCTION replay_obstacles(bigint[]) IS
    'Of these dead letters, those whose replay could deliver an older row after a newer one of its key, and why, by the table '
    'that their outbox relays. ''published'': newer_id is such a row. ''too many'': more than 200,000 rows follow, which are not '
    'all looked at. ''deleted'': published rows that followed may be gone (after_publish = "delete", the retention, or the whole '
    'table), so none can be excluded. Rows without a key have no order; those that hold their key kept newer rows from going, '
    'unless they were given another key. What is in flight at this moment is not seen. Needs SELECT on that table (id, topic, '
    'key, published_at), dead_letter and lease.';
