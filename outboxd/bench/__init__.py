"""The benchmark for users: how fast outboxd goes on their own database and broker, and what bounds it.

Each drain is measured against a bare produce loop of as many rows just before it: a ratio says more than a rate. The
relay is the real daemon, in a process of its own, on a scratch schema and scratch topics, which are removed whatever
happens. Modules: `scratch` (what is made and removed), `children` (the processes), `bare` (the loop), `reading` (the
consumer), `measuring` (drains and latencies), `verdict` (what bounds it: pure), `run` (all of it in order).
"""
