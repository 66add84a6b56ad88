ALTER TABLE lease DROP COLUMN relayed_table;
