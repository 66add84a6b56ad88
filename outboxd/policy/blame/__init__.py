"""Whose fault a failure is, and what becomes of its row.

    code ──faults──▶ class, meaning, remedy ──verdicts──▶ outcome: Retry, DeadLetter, Hold, Alone or Unknown

A row's fault costs that row, the cluster's costs none: only what is a row's own by nature, or fails while other keys
of its topic are delivered, dies. A batch is not a culprit: what a whole batch was refused for goes alone first. A code
that nobody listed never kills. `routes` say how a topic is sent and judged, `backoff` when the next try is due,
`cause` is the sentence that is stored, and `fencings` count rivals.
"""
