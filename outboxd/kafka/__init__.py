"""Everything that speaks to Kafka, behind the relay's port `Publisher`.

- `plain`: at-least-once delivery, one shared idempotent producer.
- `transactional`: exactly-once delivery, one `transactional.id` a shard.
- `trials`: after a crash, a process apart that sends what may have caused it.
- `checks`: what `outboxd check` and the start look at.
- `cluster`: questions about topics, off the hot path.
- `client`: what all of them share.

Beside them: `inbox` (records are their own delivery callbacks), `messages` (from a record to what `produce()` takes),
`dead_letter_copies` and `embedded` (the demo's broker).

In all of them a clean `produce()` proves nothing, a record is delivered by its own report only, and a callback appends
to a list and does nothing else. A producer that failed is never mended: it is replaced, and what it had is unknown.
"""
