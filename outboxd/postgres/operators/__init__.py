"""What people do and see: each by short statements of its own, whether a daemon runs or not.

`dead_letters` (with `dead_letter_rows`, and `dead_letter_copies` for those that go to a topic), `pauses`, `overview`
(how things stand, from the database alone), `pending` (what a relay that ran until empty left), `published` (for the
audit), `writing` (`outboxd send`). `sql_by_hand` shows the same as SQL for psql.
"""
