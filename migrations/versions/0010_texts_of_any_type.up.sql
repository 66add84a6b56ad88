-- One line of the function; the rest stays as it is. A table of another outbox that has varchar would else take both views from
-- all outboxes of the schema.
DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('retried_keys(text)'::regprocedure),
        'SELECT held.topic, held.key, r.', 'SELECT held.topic::text, held.key::text, r.');
END
$$;
