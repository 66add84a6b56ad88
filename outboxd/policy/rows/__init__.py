"""What a row is, and what can be known of it before it is sent: `records`, `headers`, `row_checks`; `event_pieces`
tell it from another that was given its id later, `content` what was sent from what it was changed to, and
`transaction_size` says how many go at once.
"""
