-- An application may insert any time, infinity too: one such row at the head must not keep everybody from looking.
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

-- Who asked, and when, is of a replay that was; after the undo there was none.
COMMENT ON FUNCTION replay(bigint[], boolean, text) IS
    'Sends dead letters again, in place: they get status ''replaying'' and the daemon sends each with its own id and event id, '
    'before the rows that its key holds. Returns how many were taken: those that were ''dead''. Refuses all of them when the '
    'replay of one could deliver an older row of its key after a newer one (see replay_obstacles), unless force => true. '
    'Keeps who asked, when and why in resolved_by, resolved_at and note. To undo it before the daemon has sent: UPDATE '
    'dead_letter SET status = ''dead'', resolved_at = NULL, resolved_by = NULL WHERE id = … AND status = ''replaying''. Needs SELECT on dead_letter and lease and on '
    'outbox (id, topic, key, published_at), and UPDATE on dead_letter (status, resolved_at, resolved_by, note).';
