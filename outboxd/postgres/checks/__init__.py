"""What the daemon needs of the database, looked at all at once; for `outboxd check` and the start.

`inspection` has the server, the schema and the table; `grants` what the role may do, and what row-level security hides
from it; `sql_interface` which views and functions were dropped; `pooling` how a pooler shares its connections;
`table_habits` what does no harm at once and loses rows later; `other_outboxes` what waits for outboxes that no daemon
relays. Nothing is changed.
"""
