"""What rooms say to each other, as plain values, since none imports another: `requests` (to the store), `reads`
(its answers), `messages` (events, reports), `findings` (of `outboxd check`), `auditing` (of `outboxd audit`),
`dead_letter_copies` (to a topic).
"""
