ALTER TABLE lease DROP COLUMN undrained;
