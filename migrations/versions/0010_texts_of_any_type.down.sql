DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('retried_keys(text)'::regprocedure),
        'SELECT held.topic::text, held.key::text, r.', 'SELECT held.topic, held.key, r.');
END
$$;
