"""Exactly once: one `transactional.id` a shard, and inside each transaction a progress record with its number and
rows.

    recovery: fence ──▶ read what was committed above the last settled transaction ──▶ the relay settles that ──▶
    gathered ──handover──▶ worker: begin, produce, progress record, commit ──▶ delivered
                                      │ a record failed: abort; who is to blame is reported, the others go again
                                      └ fenced, fatal, or its end unknown: the relay begins anew with a recovery

- Rows that PostgreSQL refuses to settle are stated again by later records, so that the number settled can go on.
- No other producer exists, and nothing goes by a new one before the progress topic shows that nobody committed
  meanwhile.
- What the progress topic holds above the settled number was committed; what it lacks never will be.

`transactional_publisher` is the relay's port. `handover` stands between the relay's thread and the
`transaction_worker`'s; `refusals` keeps what outboxd itself refuses until that may be told. `transactions`, `verdicts`
and `aborts` decide what goes in which; `transaction_client` sends one at a time, by the calls of
`transactional_producer`, which says what their failures mean; `transaction_recovery`, `progress` and `shard_clients`
are the way back in.
"""
