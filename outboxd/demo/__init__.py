"""`outboxd demo`: the real daemon between an embedded PostgreSQL and an in-process broker, watched and checked.

Modules: `database` runs PostgreSQL, `writer` is the application, `stumble` lets one record fail once, `reader` reads
the broker back, `findings` holds what was read against what was written, `stage` has all of it running at once, `show`
tells the story. It may use everything else of outboxd; nothing but the command line uses it.
"""
