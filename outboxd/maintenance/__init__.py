"""What is done beside the relay and never on its way: removing, measuring, copying, telling people, auditing.

`jobs` are APScheduler's, each on a thread of its own for each run: one run of a job at a time, late ones are run and
not dropped, and one that fails is told once until it succeeds again. No end of the daemon waits for one.

- `gauges`, every quarter of a minute, on each daemon: what is pending, how old it is, what is dead, and whether
  dead letters of a new kind appeared. A failure leaves the last values, which say when they were measured.
- `purge`, on the owner only: published rows and resolved dead letters past their retention, retries whose row is gone,
  old notes of starts. In small batches with rests between, so that nothing else notices; what is left is the next
  run's.
- `dead_letter_copies`, on the owner only: dead letters to the configured topic, at least once, from the table. A copy
  is noted once it was acknowledged; what was not is copied again.
- `memory`, every five minutes, on each daemon: what the C library keeps free goes back to the system.

`alerts` run the configured program with the event as JSON. They have a bounded queue and a thread: one event of a kind
and topic goes out at once, more of them within a minute are held back, and the last one goes out at the end of that
minute with their number. A program that fails or hangs is told in the log, and keeps nobody waiting.

`audit` is not the daemon's but the command's: it holds published rows against the log, in two passes, since a row that
was sent twice may stand elsewhere; and it sends lost ones again where that is asked for.
"""
