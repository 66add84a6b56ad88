"""The lease: the right to relay an outbox.

    standing by ──acquired: a new holder, a higher token──▶ holding ──renewed──▶ holding
         ▲                                                     │ another holder, or trust runs out; or given up
         └─────────────────────────────────────────────────────┘

The database's clock decides who holds it, and what a standby saw itself (`sightings`) where that clock was set; this
daemon trusts its own clock (`trust`), from before a renewal was sent, and stops by itself before anybody else may
start. A server of another timeline proves nothing: the lease has to be acquired anew there. `leases` is the port, on a
thread and a connection of its own, with the statements of `lease_sql`; `ownership` is what other statements show of it,
`lease_obstacles` what keeps a daemon from it, in sentences, and `starts` notes each ownership, and whether it ended
cleanly.
"""
