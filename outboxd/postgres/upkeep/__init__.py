"""What is done beside the relay, in small batches of short statements: `housekeeping` removes what is past its
retention and counts; `backlog` estimates what is too much to be counted, and `due` says since when the oldest row
waits.
"""
