ALTER TABLE lease ADD COLUMN undrained boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN lease.undrained IS
    'An owner with at-least-once delivery may have published rows that are not marked: exactly-once delivery does not begin on these.';
