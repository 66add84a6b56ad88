-- It catches errors, which takes a subtransaction, and none can be begun while processes work on a query in parallel.
ALTER FUNCTION readable(bytea, integer) PARALLEL UNSAFE;
