"""How PostgreSQL is spoken to: with bounded waits, and refusals that people understand.

`engine` is SQLAlchemy's pool over psycopg; `sessions` are threads with a connection each, which execute one statement
at a time and leave exactly one event: its answer, or that it failed. A connection on which something failed is closed.
`wakeup` listens for notifications, which only saves polling. `failures` and `connection_refusals` say what a refusal
means; a statement brings its limit on lock waits along (`lock_limit`); `arrays` are parameters.
"""
