"""What the daemon needs of the cluster, looked at before it is needed; for `outboxd check` and the start.

`inspection` asks all at once: do brokers answer, at each address that they advertise, and are the topics there and
safe (`replication`)? `transaction_checks` are for exactly-once delivery. Nothing is changed, and what cannot be asked
is a warning.
"""
