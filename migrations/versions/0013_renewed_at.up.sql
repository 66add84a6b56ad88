ALTER TABLE lease ADD COLUMN renewed_at timestamptz;

COMMENT ON COLUMN lease.renewed_at IS
    'When expires_at was written: the time between them is how long a standby has to see the lease unchanged until it is over, whatever becomes of the server''s clock.';
