-- Roles with the least rights, for the schema of outboxd. Run it with psql after `outboxd migrate`, as the role that migrated
-- (or a superuser), and again after each upgrade; it changes nothing that is already so:
--
--     psql -v schema=outboxd -f postgresql-roles.sql "postgresql://owner@localhost/app"
--
-- They are group roles without a login: grant them to the roles that log in, such as
--
--     GRANT outboxd_writer TO app;       -- the application
--     GRANT outboxd_relay TO outboxd;    -- the daemon
--     GRANT outboxd_operator TO anna;    -- who mends, replays, discards and pauses
--     GRANT outboxd_reader TO grafana;   -- who only looks
--
-- Roles belong to the whole cluster: with several schemas of outboxd, give each set its prefix with -v prefix=….
-- Where further outboxes share the schema, run it once more for each table, with -v outbox=… (as outbox.table has it).

\set ON_ERROR_STOP on
\if :{?schema}
\else
    \set schema outboxd
\endif
\if :{?prefix}
\else
    \set prefix outboxd
\endif
\if :{?outbox}
\else
    \set outbox outbox
\endif
\set writer :prefix _writer
\set relay :prefix _relay
\set operator :prefix _operator
\set reader :prefix _reader

BEGIN;

-- Nothing but PostgreSQL's own: a function of another's making in public, that fits better, would run as who runs this.
SET LOCAL search_path = pg_catalog, pg_temp;

SELECT format('CREATE ROLE %I NOLOGIN', name)
  FROM unnest(ARRAY[:'writer', :'relay', :'operator', :'reader']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

SET LOCAL search_path = :"schema", pg_temp;

GRANT USAGE ON SCHEMA :"schema" TO :"writer", :"relay", :"operator", :"reader";

-- Functions can be called by all at first; here each role gets its own. (They run with the caller's rights in any case.)
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA :"schema" FROM PUBLIC;
-- But for what the views call: by the caller's rights they tell nobody what he could not read, and whoever was granted a view
-- alone can go on reading it.
GRANT EXECUTE ON FUNCTION readable(bytea, integer), table_of(text), retried_keys(text), backlog_of(text) TO PUBLIC;

-- --- writer: puts rows in, and cannot read, change or delete them. The id is what INSERT … RETURNING gives back.
GRANT INSERT (topic, key, payload, headers, partition, event_id, created_at, available_at), SELECT (id)
    ON :"outbox" TO :"writer";
GRANT EXECUTE ON FUNCTION enqueue(text, text, bytea, jsonb), enqueue(text, text, text, jsonb),
    enqueue(text, text, jsonb, jsonb), enqueue(text, text, json, jsonb) TO :"writer";

-- --- relay: what the daemon does, and no DDL. It inserts into the outbox for `outboxd send` only.
GRANT SELECT, INSERT, UPDATE, DELETE ON :"outbox", retry, dead_letter, lease, control, start, progress TO :"relay";
GRANT SELECT ON alembic_version, status, held_keys, dead_letter_summary, dead_letter_recent TO :"relay";
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA :"schema" TO :"relay";

-- --- reader and operator: the views, and what `outboxd status`, `top` and `dead summary|list|show|export` read. That shows
-- dead letters with their payloads, and of the rows on their way neither payload nor headers.
GRANT SELECT ON status, held_keys, dead_letter_summary, dead_letter_recent, dead_letter, retry, lease, control, start
    TO :"reader", :"operator";
GRANT SELECT (id, topic, key, created_at, available_at, published_at) ON :"outbox" TO :"reader", :"operator";
GRANT EXECUTE ON FUNCTION readable(bytea, integer), topic_is(text, text), replay_obstacles(bigint[])
    TO :"reader", :"operator";

-- --- operator: mends dead letters besides (a trigger allows it while they are 'dead'), replays, discards, pauses.
GRANT UPDATE (topic, key, payload, headers, partition, status, resolved_at, resolved_by, note) ON dead_letter TO :"operator";
GRANT INSERT (outbox, topic_pattern, who, note), DELETE ON control TO :"operator";
GRANT EXECUTE ON FUNCTION past_note(dead_letter), replay(bigint, boolean, text), replay(bigint[], boolean, text),
    replay_where(text, text, timestamptz, integer, boolean, boolean, text),
    discard(bigint, text), discard(bigint[], text), sole_outbox(), pause(text, text, text), resume(text, text)
    TO :"operator";

COMMIT;
