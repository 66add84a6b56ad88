"""The lease: the right to relay an outbox.

    standing by ──acquired: a new holder, a higher token──▶ holding ──renewed──▶ holding
         ▲                                                     │ another holder, or trust runs out; or given up
         └─────────────────────────────────────────────────────┘

Only the database's clock decides who holds it; this daemon trusts its own monotonic clock, from before a renewal was
sent, and stops by itself before anybody else may start. A server of another timeline proves nothing: the lease has to
be acquired anew there. `leases` is the port, on a thread and a connection of its own, with the statements of
`lease_sql`; `ownership` is what other statements show of it, `lease_obstacles` what keeps a daemon from it, in
sentences, and `starts` notes each ownership, and whether it ended cleanly.
"""
