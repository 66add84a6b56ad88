"""Everything that speaks to PostgreSQL. The application's database is a guest house: short statements, few of them.

- `store`: the relay's port, fetch and settle, each one statement.
- `lease`: the right to relay an outbox, by the database's clock.
- `connections`: threads with a connection each, and what refusals mean.
- `upkeep`: purges and gauges, in small batches.
- `operators`: dead letters, pauses, how things stand.
- `checks`: what `outboxd check` and the start look at.
- `schema`: names, revisions and tables; `migrate` runs Alembic.

What always holds: every write of the relay proves that it owns the outbox, in the same statement; a statement that
failed is one of unknown outcome, and can be given again; no transaction is open while a broker is waited for.
"""
