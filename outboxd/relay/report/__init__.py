"""What becomes of a record once its report is in.

    report ──▶ aftermath ──delivered──▶ deliveries: its key goes on, its row is to be settled
                  ├─ its own fault ──▶ to `retry`, or dead
                  ├─ systemic ──▶ holding: its topic's breaker opens, it leaves memory
                  └─ whose fault is not clear ──▶ undecided, or a suspect that goes alone

- A row is settled only by its own report, and dies only where its neighbours show that the topic is well: `histories`
  and `suspicion` remember what tells that, `undecided` ones wait for it.
- Partitions that give no answer are held by themselves: `stuck_partitions`. A topic whose rows fail for good, one after
  the other, is held by `storming`. `thens` are the words for what became of a topic that waited; `row_events` are for
  the log's level debug.
"""
