"""Which record of a key may go.

A key is free, busy (one record with the producer, others behind it), held (a failed one is unsettled) or being read
again. Nothing newer goes before what was held or deferred. `key_gate` is the way in; `key_states`, `key_queues`,
`key_rereads` and `deferrals` are its parts, and `wanted` the order in which things are read again.
"""
