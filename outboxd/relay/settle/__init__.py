"""The loop's last step: outcomes are written, and what was written leaves memory.

    gathered ──▶ one statement under way ──written──▶ leaves memory; what the rows held goes on
                        ├─ the connection failed: the same again, before any other, since it may have been committed
                        ├─ refused: in parts, until the rows to blame are alone and set aside
                        └─ fenced: another owns the outbox; the relay stands down

`writing` is the step. With exactly-once delivery `restating` says what later progress records state again of rows that
Kafka has and PostgreSQL refuses to settle.
"""
