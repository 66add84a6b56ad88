"""Everything that speaks to PostgreSQL. The application's database is a guest house: short statements, few of them.

The store (`store`) is the relay's port. `begin_…` returns at once; a session (`sessions`: a thread with a connection)
executes one statement, and leaves exactly one event: its answer, or that it failed. A connection on which something
failed is closed.

- *Fetch* (`fetch_sql`, `fetching`, `record_rows`, `record_sizes`, `prepared`, `arrays`): all kinds of pending records,
  due retries, replays and pauses in one statement, so from one snapshot. `load_sql` is what a new owner reads first,
  and the sweep.
- *Settle* (`settle_sql`): all outcomes of a batch in one autocommit statement. It locks the lease's row where token and
  holder are ours, and every write joins that: after a takeover nothing is written, and while it runs nobody takes
  over. Whether one that failed was committed is unknown; written once more it changes nothing.

The lease (`leases`, `lease_sql`, `lease_obstacles`, `ownership`):

    standing by ──acquired: a new holder, a higher token──▶ holding ──renewed──▶ holding
         ▲                                                     │ another holder, or trust runs out; or given up
         └─────────────────────────────────────────────────────┘

Only the database's clock decides who holds it; this daemon trusts its own monotonic clock, from before a renewal was
sent, and stops by itself before anybody else may start. A server of another timeline proves nothing: the lease has to
be acquired anew there. `starts` notes each ownership, and whether it ended cleanly.

Connections: `engine`, `failures` (what refusals mean to people), `connection_refusals` (what a server that speaks
another language meant), `lock_limit`, `lock_holders` (who has what a settlement waits for), `wakeup` (LISTEN, which
only saves polling). No transaction is open while a broker is waited for.

Beside the relay: `housekeeping`, `due` and `backlog` (purges and gauges, in small batches), `dead_letters`,
`dead_letter_rows`, `dead_letter_copies`, `sql_by_hand`, `pauses`, `overview`, `pending`, `published` (for the audit),
`inspection` and `grants` (for `outboxd check`), `writing` (`outboxd send`).

The schema: `migrate` (Alembic), `revisions`, `tables`, `names` and `sql_text` (it is configurable, so quoted wherever
it stands), `finite` (times that people may have set to infinity).
"""
