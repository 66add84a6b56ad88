ALTER FUNCTION readable(bytea, integer) PARALLEL SAFE;
