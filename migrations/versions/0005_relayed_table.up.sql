ALTER TABLE lease ADD COLUMN relayed_table text;

COMMENT ON COLUMN lease.relayed_table IS
    'The table that the owner relays. Two outboxes of different names on one table would publish each row twice.';
