"""The flow from fetch to settle, behind ports: one loop on one thread, whose memory is nobody else's.

    fetch ──▶ admit ──▶ publish ──▶ report ──▶ settle ──▶ leaves memory
                │          ▲           │ failed
                │          │           ├─ its own: to `retry`, or dead ── once written: held, or its key goes on
                │          │           ├─ not its own: its topic's breaker opens; it is held behind that
                │          │           └─ a suspect, or its producer failed: published again, in order
                └─ may not go: waits in memory behind its key, or is deferred: dropped, and read again from that id on

What always holds:

- A row is settled only by its own delivery report, or by its own death; but on a route that asks for no confirmation
  the client's taking it is enough. What is not settled is pending, and a new owner knows it from the database alone.
- Of a key at most one record is in flight, but in a transaction, which is all or nothing. A failed one holds its key:
  nothing newer of it goes before it is settled, and what was deferred is read again before anything newer.
- At most one fetch (or load, or sweep) and one settlement are under way; each leaves exactly one event in the mailbox.
- What is in memory is counted in rows and bytes, from admission to settlement; where it is full nothing is read.

What happens on failure: a read is given again after a growing pause, from the beginning of the outbox; a settlement is
given again whole, before any other, since it may have been committed, and in halves where the server refused it, until
the row to blame is alone and set aside. A producer that failed is replaced, and what was in flight goes again in order;
with transactions the ownership begins anew and recovers what was committed. A lost lease, or a database that is another
one, drops all memory and stands by.

The modules, as the data goes:

- the life: `relay` (the loop), `ownership` (begins, begins anew, stands down), `state` (one ownership's memory),
  `loading`, `recovering`, `resting`, `ending`, `status` (what others may read of it)
- reading: `wishes` (what is to be read), `reading` (when, and what answers mean), `admission` and `answers` (what may
  go of them), `orders` (retries, replays, discards and pauses that they tell), `sweeping`
- publishing: `publishing`, `producer_ends` (how soon the next one comes), `forwarding` (a publisher within another),
  `careful` and `careful_transactions`
- outcomes: `aftermath`, `undecided`, `deliveries`, `histories`, `suspicion`, `holding`, `probing`, `watch`,
  `stuck_partitions`, `row_events`
- what is kept: `ledger` (in memory), `held_records` (out of memory, unsettled), `lanes` (by topic), `forgetting`
- writing: `settling` (gathers), `writing` (when, and what follows), `refusals` (what PostgreSQL would not write) and
  `refused_parts` (what of that goes next), `restating` (what later progress records state of that)
- `ports`: all that this room knows of the outside
"""
