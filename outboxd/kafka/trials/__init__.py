"""After a crash: a process apart sends the rows that may have caused it, and its death is the proof.

    suspects ──pipe──▶ the child sends one, or a group ──▶ it tells what the broker said
                              ├ it died with a group: this goes again in parts
                              └ it died with one row, and so did the next one: the row kills, and is dead

The daemon lives on, so a row that kills is told apart from a daemon that somebody killed. `trial` is the daemon's side
and `child` the other one. With at-least-once delivery suspects go one by one. With exactly-once they go in groups, a
transaction each with its progress record (`lone_transactions`), and what a child committed before it died is found by a
recovery. What was never told goes again.
"""
