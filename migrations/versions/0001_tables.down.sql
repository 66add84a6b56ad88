DROP TABLE outbox, retry, dead_letter, lease, control, start, progress;
DROP FUNCTION wake_relay();
DROP FUNCTION wakeup_channel(text);
