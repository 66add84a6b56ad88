"""The chaos campaign: real daemons, a PostgreSQL with a standby, three brokers, a load, and faults from a seed.

    .venv/bin/python -m tests.chaos.campaign --minutes 60 --seed 1 --rows 5000000 --log DIRECTORY

`servers` and `daemons` are what is broken, `faults` the ways to break it, `schedule` decides when, `load` writes all
the time, `checker` holds what a consumer sees against what was committed, `log` keeps one JSON line a fault.
"""
