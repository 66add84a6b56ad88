"""After a crash: a process apart sends the rows that may have caused it, one by one, and its death is the proof.

    suspects ──pipe──▶ the child sends one ──▶ it tells what the broker said
                              └ it died, and so did the next one with that row: the row kills, and is dead

The daemon lives on, so a row that kills is told apart from a daemon that somebody killed. `trial` is for at-least-once
delivery; with exactly-once a suspect is a transaction of its own, with its progress record (`lone_transactions`), and
what a child committed before it died is found by a recovery. What was never told goes again.
"""
