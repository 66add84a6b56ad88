-- Whether an earlier dead letter of a key is replayed too, however many of its others are dead or resolved.
CREATE INDEX dead_letter_replaying_key_idx ON dead_letter (hashtextextended(key, hashtextextended(topic, 0)), outbox_id)
    WHERE status = 'replaying' AND key IS NOT NULL;
