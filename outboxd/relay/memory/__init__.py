"""What one ownership keeps: the records in memory and out of it, what is known of their topics, what is owed to the
database.

    admitted ──▶ ledger ──▶ settled, or deferred: it leaves memory
                    └ failed, unsettled ──▶ held records ──admitted again──▶ ledger

- A record counts in the `ledger`, in rows and bytes, from admission to settlement.
- What failed and is unsettled is a `held_record` and stands among the `held_records` by id; dead letters that hold
  their keys, by id and key, are `letters`. `lanes` have a topic's route, breaker and how it does.
- `settling` gathers the outcomes of a batch; what PostgreSQL would not write is kept by `refusals`, and parted by
  `refused_parts` until the rows that are to blame are found. Nothing that was gathered is dropped before it was
  written.

Nothing here asks anybody anything: the steps of the loop do.
"""
