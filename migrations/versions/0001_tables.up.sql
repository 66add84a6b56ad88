-- Names without a schema are made in the configured one: the search_path of the migration's transaction names it.

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY,
    event_id uuid NOT NULL DEFAULT gen_random_uuid(),
    topic text NOT NULL,
    key text,
    payload bytea,
    headers jsonb NOT NULL DEFAULT '{}'::jsonb,
    partition integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    available_at timestamptz,
    published_at timestamptz,
    published_partition integer,
    published_offset bigint,
    CONSTRAINT outbox_pkey PRIMARY KEY (id)
) WITH (
    -- Every row is marked or deleted once, so the dead rows come as fast as the application writes. Small thresholds keep the
    -- indexes of pending rows small; they do not wait for a fifth of a large table as the defaults do.
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_vacuum_insert_threshold = 10000,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_analyze_threshold = 10000,
    autovacuum_vacuum_cost_delay = 1,
    autovacuum_vacuum_cost_limit = 1000
    -- No fillfactor: marking a row takes it out of the partial indexes, so it is never a heap-only update, and room kept free on
    -- its page would serve nothing.
);

CREATE INDEX outbox_pending_idx ON outbox (id) WHERE published_at IS NULL;

-- By hash, so that a key or a topic of any length can be inserted: a B-tree refuses entries above 2,704 bytes.
CREATE INDEX outbox_pending_key_idx ON outbox (hashtextextended(key, hashtextextended(topic, 0)), id)
    WHERE published_at IS NULL AND key IS NOT NULL;

-- Rows that wait for their time, by that time; others are not in it and cost nothing.
CREATE INDEX outbox_delayed_idx ON outbox (available_at, id) WHERE published_at IS NULL AND available_at IS NOT NULL;

-- No index on published_at: it would cost every mark another entry. The purge walks the primary key from the oldest id.

COMMENT ON TABLE outbox IS
    'Rows to publish. The application inserts them in the transaction of its change; outboxd publishes, then marks or deletes them.';
COMMENT ON COLUMN outbox.payload IS 'The message''s value. Null is a tombstone; an empty value is not null.';
COMMENT ON COLUMN outbox.headers IS
    'An object, or an array of [name, value] pairs where order or repeats matter; a value is a string or null.';
COMMENT ON COLUMN outbox.partition IS 'The Kafka partition, where the application chooses it; null leaves it to the key.';
COMMENT ON COLUMN outbox.available_at IS 'Not to be published before this time. The row then leaves the order of its key.';

CREATE TABLE retry (
    outbox text NOT NULL,
    outbox_id bigint NOT NULL,
    attempts integer NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    first_failed_at timestamptz NOT NULL DEFAULT now(),
    error_code text NOT NULL,
    error_message text NOT NULL,
    CONSTRAINT retry_pkey PRIMARY KEY (outbox, outbox_id)
);

CREATE INDEX retry_due_idx ON retry (outbox, next_attempt_at, outbox_id);

COMMENT ON TABLE retry IS 'Rows whose delivery failed and will be tried again; the rows themselves stay in the outbox table.';

CREATE TABLE dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY,
    outbox text NOT NULL,
    outbox_id bigint NOT NULL,
    event_id uuid NOT NULL,
    topic text NOT NULL,
    key text,
    payload bytea,
    headers jsonb NOT NULL DEFAULT '{}'::jsonb,
    partition integer,
    created_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    reason text NOT NULL,
    error_code text NOT NULL,
    error_message text NOT NULL,
    first_failed_at timestamptz NOT NULL DEFAULT now(),
    died_at timestamptz NOT NULL DEFAULT now(),
    daemon text,
    holds_key boolean NOT NULL DEFAULT false,
    status text NOT NULL DEFAULT 'dead',
    resolved_at timestamptz,
    resolved_by text,
    note text,
    copied_at timestamptz,
    CONSTRAINT dead_letter_pkey PRIMARY KEY (id),
    -- A row that is replayed and dies again is the same dead letter. The event id is part of it because a sequence can be reset.
    CONSTRAINT dead_letter_outbox_key UNIQUE (outbox, outbox_id, event_id),
    CONSTRAINT dead_letter_reason_check CHECK (reason IN ('fatal', 'exhausted', 'expired', 'invalid')),
    CONSTRAINT dead_letter_status_check CHECK (status IN ('dead', 'replaying', 'replayed', 'discarded'))
);

CREATE INDEX dead_letter_recent_idx ON dead_letter (died_at DESC, id DESC);
CREATE INDEX dead_letter_status_idx ON dead_letter (status, died_at DESC, id DESC);
-- The topic by hash here and below: an illegal topic of any length must find room among the dead letters.
CREATE INDEX dead_letter_topic_idx ON dead_letter (hashtextextended(topic, 0), died_at DESC, id DESC) WHERE status = 'dead';
CREATE INDEX dead_letter_kind_idx ON dead_letter (hashtextextended(topic, 0), error_code, died_at DESC, id DESC)
    WHERE status = 'dead';
CREATE INDEX dead_letter_code_idx ON dead_letter (error_code, died_at DESC, id DESC) WHERE status = 'dead';
CREATE INDEX dead_letter_key_idx ON dead_letter (hashtextextended(key, hashtextextended(topic, 0)), outbox_id)
    WHERE key IS NOT NULL;
CREATE INDEX dead_letter_holding_idx ON dead_letter (outbox, outbox_id)
    WHERE holds_key AND status IN ('dead', 'replaying');
CREATE INDEX dead_letter_replaying_idx ON dead_letter (outbox, outbox_id) WHERE status = 'replaying';
-- What was not copied to `alerts.dead_letter_topic`, or died again since.
CREATE INDEX dead_letter_uncopied_idx ON dead_letter (outbox, id) WHERE copied_at IS NULL OR copied_at < died_at;
CREATE INDEX dead_letter_resolved_idx ON dead_letter (resolved_at) WHERE status IN ('replayed', 'discarded');

COMMENT ON TABLE dead_letter IS
    'Rows that will not be delivered as they are: each moved here whole from the outbox table, with its cause. Resolved, never '
    'silently deleted.';
COMMENT ON COLUMN dead_letter.error_code IS 'The name in Kafka''s list of errors, such as MSG_SIZE_TOO_LARGE, or one of outboxd.';
COMMENT ON COLUMN dead_letter.holds_key IS
    'Later rows of the same topic and key wait until this row is delivered by a replay, or discarded.';
COMMENT ON COLUMN dead_letter.note IS 'Why it was replayed or discarded; each entry has its time and who asked.';
COMMENT ON COLUMN dead_letter.copied_at IS 'When it was copied to the topic for dead letters, where one is configured.';

CREATE TABLE lease (
    outbox text NOT NULL,
    shard integer NOT NULL DEFAULT 0,
    holder uuid NOT NULL,
    daemon text NOT NULL,
    token bigint NOT NULL,
    acquired_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    listening boolean NOT NULL DEFAULT false,
    deleted_through bigint,
    CONSTRAINT lease_pkey PRIMARY KEY (outbox, shard)
) WITH (
    -- Renewed every few seconds: room on the page keeps the renewals out of the index, and vacuum keeps the table at one page.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 100
);

COMMENT ON TABLE lease IS 'The right to relay an outbox: one row a shard, by the database''s clock only.';
COMMENT ON COLUMN lease.token IS 'The fencing number: it grows with each acquisition.';
COMMENT ON COLUMN lease.listening IS 'The holder waits for notifications; only then do inserts send them.';
COMMENT ON COLUMN lease.deleted_through IS
    'Published rows with ids up to this one may have been deleted from the outbox table; null: any may have been. A replay '
    'consults it: what is deleted can no longer show that a newer row of the key was published.';

CREATE TABLE control (
    outbox text NOT NULL,
    topic_pattern text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    who text NOT NULL DEFAULT session_user,
    note text,
    CONSTRAINT control_pkey PRIMARY KEY (outbox, topic_pattern)
);

COMMENT ON TABLE control IS 'Topics that operators paused, as glob patterns; they stay paused over restarts.';

CREATE TABLE start (
    id bigint GENERATED ALWAYS AS IDENTITY,
    outbox text NOT NULL,
    daemon text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    clean boolean NOT NULL DEFAULT false,
    published_ids bigint[],
    CONSTRAINT start_pkey PRIMARY KEY (id)
);

CREATE INDEX start_recent_idx ON start (outbox, id DESC);

COMMENT ON TABLE start IS 'Starts and clean ends of daemons: several starts without an end are a crash loop.';
COMMENT ON COLUMN start.published_ids IS
    'After an unclean end: the ids about to be published, written before, so that a row that kills the process is found.';

CREATE TABLE progress (
    outbox text NOT NULL,
    shard integer NOT NULL DEFAULT 0,
    settled_transaction bigint NOT NULL,
    CONSTRAINT progress_pkey PRIMARY KEY (outbox, shard)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

COMMENT ON TABLE progress IS 'Exactly-once delivery: the last Kafka transaction whose rows are settled.';

-- An insert wakes a relay that listens. It runs with the owner's rights, so that the application needs none on the leases, once a
-- statement, and sends nothing while nobody listens. Every listening relay of the schema is woken: a needless wake-up costs one
-- poll. Notifications of one transaction that are the same are sent once.
CREATE FUNCTION wakeup_channel(outbox text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    -- A longer channel is refused, which would fail the application's insert: a long name goes by its hash.
    SELECT 'outboxd_' || CASE WHEN octet_length($1) <= 55 THEN $1
                              ELSE left(encode(sha256(convert_to($1, 'UTF8')), 'hex'), 40) END;
END;

COMMENT ON FUNCTION wakeup_channel(text) IS 'The channel of NOTIFY on which the relay of this outbox is woken.';

CREATE FUNCTION wake_relay() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = @schema@, pg_temp
AS $outboxd$
BEGIN
    PERFORM pg_notify(wakeup_channel(outbox), '') FROM lease WHERE listening AND expires_at > now();
    RETURN NULL;
END
$outboxd$;

REVOKE ALL ON FUNCTION wake_relay() FROM PUBLIC;

COMMENT ON FUNCTION wake_relay() IS 'Trigger of the outbox table: notifies the relays that listen.';

CREATE TRIGGER outbox_wake_relay AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION wake_relay();
