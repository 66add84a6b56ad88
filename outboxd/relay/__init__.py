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
- Of a key at most one record is in flight, or a chain by a producer that stops where one fails; but in a transaction,
  which is all or nothing, there may be any. A failed one holds its key:
  nothing newer of it goes before it is settled, and what was deferred is read again before anything newer.
- At most one fetch (or load, or sweep) and one settlement are under way; each leaves exactly one event in the mailbox.
- What is in memory is counted in rows and bytes, from admission to settlement; where it is full nothing is read.

What happens on failure: a read is given again after a growing pause, from the beginning of the outbox; a settlement is
given again whole, before any other, since it may have been committed, and in halves where the server refused it, until
the row to blame is alone and set aside. A producer that failed is replaced, and what was in flight goes again in
order; with transactions the ownership begins anew and recovers what was committed. A lost lease, or a database that is
another one, drops all memory and stands by.

The rooms are the data's way: `fetch`, `admit`, `publish`, `report`, `settle`, and `memory`, which they work on. Around
them is the life: `relay` (the loop), `ownership` (begins, begins anew, stands down), `state` (one ownership's memory),
`watch` (what has been with the producer for too long), `resting`, `ending`, and `status`, which others may read.
`ports` are all that this room knows of the outside.

Imports point one way: the loop, ownership, the steps (`fetch`, `publish`, `settle`), `state`, `admit` and `report`,
`memory`, `ports`.
"""
