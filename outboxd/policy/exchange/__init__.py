"""What rooms say to each other, as plain values, since none imports another: `requests` (to the store), `messages`
(events, answers, reports), `findings` (of `outboxd check`), `auditing` (of `outboxd audit`), `dead_letter_copies`
(to a topic).
"""
