-- As 0002 and 0006 made them.

CREATE OR REPLACE VIEW held_keys AS
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

CREATE OR REPLACE VIEW status AS
    WITH known AS (
        SELECT outbox FROM lease WHERE shard = 0
        UNION ALL
        SELECT 'default' WHERE NOT EXISTS (SELECT FROM lease)
    )
    SELECT known.outbox,
           least(backlog.rows, 10000) AS pending,
           backlog.rows > 10000 AS pending_is_lower_bound,
           oldest.created_at AS oldest_pending_at,
           -- What is not finite has no age; PostgreSQL cannot even subtract it.
           CASE WHEN isfinite(oldest.created_at) THEN clock_timestamp() - oldest.created_at END AS oldest_pending_age,
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

DROP FUNCTION backlog_of(text);
DROP FUNCTION retried_keys(text);
DROP FUNCTION table_of(text);
