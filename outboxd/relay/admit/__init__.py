"""What is to be read, and what of an answer may go.

    wishes ──▶ one request ──▶ its answer, in id order ──▶ admission: key gate and holds ──▶ goes, waits, or is deferred

- `wishes` know how far the outbox was read and what is to be read again; `answers` say what an answer is complete for,
  where a limit cut it. What was not shown for a limit stays wished for.
- All parts of an answer are one snapshot, and are merged in id order before anything of it is admitted (`admission`).
- Behind a breaker only its probe goes, which `probing` chooses: the lowest unsettled row of its key.
"""
