"""Pure decisions: no clock, no I/O, the standard library only. Time and randomness are arguments.

So every decision can be tried by itself, and the simulation tries them by the thousand. What has state here has an
owner, mostly the relay, and is changed on that one's thread.

- `faults`: what each error code means; `blame`: whose fault a failure is, and what becomes of its row.
- `keys` and `topics`: which record may go.
- `fetch`: what is to be read, and when. `careful`: how an ownership begins after an unclean end.
- `rows`: what a row is; `exchange`: what the rooms say to each other, since none imports another.
"""
