"""From what was admitted to the producer, and from its reports to `report`.

    ready ──▶ suspects first ──▶ the batch, as much as the producer's queue takes ──▶ in flight ──▶ reports

- `publishing` is the loop's step. A full queue is backpressure: the same record is given again.
- A producer that failed is replaced, later each time where several end in a row (`producer_ends`); what was in flight
  has an unknown outcome and goes again, in order.
- After an unclean end rows go by way of `careful`, or `careful_transactions`, which record what is in the air before
  it goes, so that a row that kills the process is found. Both are publishers within a publisher (`forwarding`).
"""
