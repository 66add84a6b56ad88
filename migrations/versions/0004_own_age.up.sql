ALTER TABLE retry ADD COLUMN own_age interval NOT NULL DEFAULT '0';

COMMENT ON COLUMN retry.own_age IS
    'Time from the first counted failure to the last one, without that on hold or paused: retry.max_age bounds it.';
