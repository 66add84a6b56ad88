"""The relay's database port: `begin_…` returns at once, and exactly one event follows.

- *Fetch* (`fetch_sql`, `fetching`, `record_rows`, `record_sizes`, `prepared`): all kinds of pending records, due
  retries, replays and pauses in one statement, so from one snapshot. `load_sql` is what a new owner reads first, and
  the sweep.
- *Settle* (`settle_sql`, `letter_sql`): all outcomes of a batch in one autocommit statement. It locks the lease's row
  where token and holder are ours, and every write joins that: after a takeover nothing is written, and while it runs
  nobody takes over. Whether one that failed was committed is unknown; written once more it changes nothing.
  `kept_rows` are those that it was to change and did not; `lock_holders` says who has what it waited for, in
  whichever of the `table_parts`.

No transaction is open while a broker is waited for.
"""
