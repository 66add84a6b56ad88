"""Everything that speaks to Kafka, behind the relay's port `Publisher`.

At least once (`publisher`): one shared idempotent producer with `acks=all` and no time-out of its own, since a time-out
would drop the middle of a queue. Everything runs on the relay's thread, callbacks included.

    taken ──▶ produce() ──▶ delivery callback ──▶ inbox ──▶ the relay takes the reports

- A clean `produce()` proves nothing; each record that was taken has one report, unless its producer is replaced.
- What the client refuses by itself is that record's report at once; a full queue is backpressure, and no report.
- A fatal error ends the producer: `failure` tells it, the relay has it rebuilt, and reports of the old one never come.

`inbox` (records are their own callbacks), `messages` (from a record to `produce()`), `lone_producer` (suspects, one
record a batch), `no_transactions`, `producer_maker` and `former_producers` (how one is made and let go),
`client_config`, `client_files`, `topic_limits` and `partitions` (what the cluster tells of a topic, asked by the
`lots`), `acknowledged` (is it still in the log?).

Exactly once (`transactional_publisher`): one `transactional.id` a shard, and inside each transaction a progress record
with its number and rows.

    recovery: fence ──▶ read what was committed above the last settled transaction ──▶ the relay settles that ──▶
    gathered ──handover──▶ worker: begin, produce, progress record, commit ──▶ delivered
                                      │ a record failed: abort; who is to blame is reported, the others go again
                                      └ fenced, fatal, or its end unknown: the relay begins anew with a recovery

- Rows that PostgreSQL refuses to settle are stated again by later records, so that the number settled can go on.
- No other producer exists, and nothing goes by a new one before the progress topic shows that nobody committed
  meanwhile.
- What the progress topic holds above the settled number was committed; what it lacks never will be.

`handover`, `transaction_worker`, `transactions` and `verdicts` (what goes in which), `transaction_client` (one at a
time), `transactional_producer` (the calls, and what their failures mean), `transaction_recovery`, `progress`,
`shard_clients`.

After a crash: `trial` and `lone_transactions`, a process apart that sends suspects. For people and upkeep:
`inspection`, `replication` and `transaction_checks` (`outboxd check`), `log_reader` (`outboxd audit`),
`dead_letter_copies`, `embedded` (the demo's broker). Shared: `consumers`, `codes`, `cluster_failure` and
`connection_remedies` (why no broker answers, and what to do).
"""
