"""Which topic, or partition of one, may go.

A topic is free, held (paused, behind a breaker, stormed) or catching up: `topic_holds`. `breakers` are open for
systemic faults, with their probes and the storm guard. Where only some partitions of a topic are stuck these are held:
`partition_holds`, by where `partitioners` foretells that keys go. `remade_topics` says which ones are other topics
than before under their names.
"""
