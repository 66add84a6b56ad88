"""At least once: one shared idempotent producer with `acks=all` and no time-out of its own, since a time-out would
drop the middle of a queue. Everything runs on the relay's thread, callbacks included.

    taken ──▶ produce() ──▶ delivery callback ──▶ inbox ──▶ the relay takes the reports

- A clean `produce()` proves nothing; each record that was taken has one report, unless its producer is replaced.
- What the client refuses by itself is that record's report at once; a full queue is backpressure, and no report.
- A fatal error ends the producer: `failure` tells it, the relay has it rebuilt, and reports of the old one never come.

`publisher` is the relay's port, `lone_producer` sends suspects one record a batch, and `no_transactions` is what this
room answers to questions about transactions.
"""
