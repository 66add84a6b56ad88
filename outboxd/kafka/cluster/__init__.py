"""What the cluster is asked about topics, off the hot path: each question on a thread of its own, each with a time
limit.

`topic_limits` (sizes, compaction, is it there, with how many partitions?), `topic_sights` (is it led, and with which
id?), `partitions` (is the one that a row names really missing?), `remade_topics` (is one that stands still another than
before?), `acknowledged` (is what was acknowledged still in the log, after a failure as of a lossy election?) by way of
the `log_reader`, which `outboxd audit` reads with too. No answer means that nothing is known, never that a row is to
blame.
"""
