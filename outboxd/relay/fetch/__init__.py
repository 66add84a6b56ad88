"""The loop's first step: what is asked of the database, when, and what its answers change.

- `loading`: before its first fetch a new owner asks what the owner before held. With exactly-once delivery
  `recovering` comes before that: what was committed in Kafka is settled first.
- `reading`: one fetch at a time, as soon as there is room and reason; one that failed is given again after a pause,
  from the beginning of the outbox. `orders` are what an answer tells beside records: retries that are due, replays,
  discards, pauses.
- `sweeping`: a slow walk over all that is pending, for rows that no other read would show. `forgetting` drops what is
  kept of topics that nothing is left of.
"""
