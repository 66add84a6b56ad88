ALTER TABLE lease DROP COLUMN renewed_at;
