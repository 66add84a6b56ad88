"""Pure decisions: no clock, no I/O, the standard library only. Time and randomness are arguments.

So every decision can be tried by itself, and the simulation tries them by the thousand. What has state here has an
owner, mostly the relay, and is changed on that one's thread.

Whose fault a failure is:

    code ──faults──▶ class, meaning, remedy ──verdicts──▶ outcome: Retry, DeadLetter, Hold, Alone or Unknown

A row's fault costs that row, the cluster's costs none: only what is a row's own by nature, or fails while other keys of
its topic are delivered, dies. A batch is not a culprit: what a whole batch was refused for goes alone first. A code
that nobody listed never kills. The modules: `faults`, `verdicts`, `outcomes`, `routes`, `backoff`, `breakers` (a topic
on hold, its probes, the storm guard), `cause` (the sentence that is stored), `careful` (after a crash), `fencings`.

Which record may go:

- A key is free, busy (one record with the producer, others behind it), held (a failed one is unsettled) or being read
  again. Nothing newer goes before what was held or deferred. `key_gate` is the way in; `key_states`, `key_queues`,
  `key_rereads` and `deferrals` are its parts, and `wanted` the order in which things are read again.
- A topic is free, held (paused, behind a breaker, stormed) or catching up: `topic_holds`. Where only some partitions of
  it are stuck, these are held: `partition_holds`, by where `partitioners` foretells that keys go.

What is to be read: `gaps` (ids that were drawn and not seen, until no transaction can bring them), `pacing` (how soon
again), `strides` (how far one statement of a walk goes), `limits`.

What a row is: `records`, `headers`, `row_checks` (what can be known before it is sent), `event_pieces`,
`transaction_size`, `dead_letter_copies`.

What rooms say to each other, since none imports another: `requests` (to the store), `messages` (events, answers,
reports), `findings` (of `outboxd check`), `auditing` (of `outboxd audit`).
"""
