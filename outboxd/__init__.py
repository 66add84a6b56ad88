"""outboxd: a transactional-outbox daemon, from PostgreSQL to Kafka.

An application writes its change and an event row in one PostgreSQL transaction; outboxd publishes the committed rows
to Kafka, marks what was delivered, retries what can be retried, and moves what never can be delivered into a
dead-letter table.
"""

__version__ = "0.1.0"
