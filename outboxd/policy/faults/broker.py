"""The codes that a broker can answer to a producer (Kafka's protocol, zero and above, and -1).

The numbers and the retriability follow Kafka 4.1's `Errors`; where the class differs from Java's view the test of
this table gives the reason.
"""

from __future__ import annotations

from typing import Final

from outboxd.policy.faults.kinds import GO_AGAIN, WAIT, Fault, FaultClass

_ROW = FaultClass.ROW_PERMANENT
_PASSING = FaultClass.ROW_PASSING
_TOPIC = FaultClass.TOPIC
_CLUSTER = FaultClass.CLUSTER
_PRODUCER = FaultClass.PRODUCER
_UNLISTED = FaultClass.UNLISTED

_LEADER: Final = (
    "Look for a broker that is down or a partition without a leader: the topic's rows wait and go when it is back."
)
_COORDINATOR: Final = "It passes by itself within seconds; else look at the brokers that hold __transaction_state."
_REBUILD: Final = (
    "The producer is rebuilt and the rows go again in order; look for a second daemon on the same outbox if it comes "
    "back."
)
_RENEW: Final = "Renew or correct the delegation token in [kafka] and reload; rows wait meanwhile and none is lost."
_CREDENTIALS: Final = (
    "Correct the SASL settings or credentials in [kafka] and reload; rows wait meanwhile and none is lost."
)
_PROTOCOL: Final = (
    "Compare the versions of the brokers and of the client and the [kafka] settings: `outboxd check` shows what the "
    "brokers accept."
)

# One fault is one entry of few lines; the formatter would give each argument a line of its own.
# fmt: off
BROKER_FAULTS: Final[tuple[Fault, ...]] = (
    Fault(-1, "UNKNOWN", _UNLISTED,
          "A broker failed in a way that it could not name, such as a broken authorizer or a bug.",
          "Read the broker's log at that time. The row is tried again, then its topic is held; it is not "
          "dead-lettered."),
    Fault(0, "NO_ERROR", _UNLISTED, "A failure was reported with the code of success, so its outcome is unknown.",
          "The row is tried again. Report it with the client's version: it should not occur."),
    Fault(2, "INVALID_MSG", _PASSING,
          "The batch arrived damaged (its checksum is wrong), or the broker is old and found a record without a key "
          "on a compacted topic.",
          f"{GO_AGAIN}. If it lasts, look for faulty memory or network, or "
          "give the row a key.",
          batch_wide=True),
    Fault(3, "UNKNOWN_TOPIC_OR_PART", _TOPIC, "The broker knows no such topic or partition.",
          "Create the topic, or correct the name where rows are written; a missing DESCRIBE right looks the same."),
    Fault(4, "INVALID_MSG_SIZE", _ROW, "The broker refused the size of the batch.",
          "Raise the topic's segment.bytes and max.message.bytes, or make the payload smaller, then replay.",
          batch_wide=True),
    Fault(5, "LEADER_NOT_AVAILABLE", _TOPIC, "The partition has no leader just now.", _LEADER, of_one_partition=True),
    Fault(6, "NOT_LEADER_FOR_PARTITION", _PASSING, "The partition's leader has moved to another broker.", WAIT),
    Fault(7, "REQUEST_TIMED_OUT", _PASSING, "The replicas did not confirm in time; the record may be written.",
          f"{GO_AGAIN}. If it lasts, look for a slow or overloaded broker."),
    Fault(8, "BROKER_NOT_AVAILABLE", _CLUSTER, "The broker is not available.",
          "Check that every broker of the cluster runs."),
    Fault(9, "REPLICA_NOT_AVAILABLE", _TOPIC, "The broker does not have that replica just now.", _LEADER,
          of_one_partition=True),
    Fault(10, "MSG_SIZE_TOO_LARGE", _ROW, "The record, or its batch, is larger than the topic or the client allows.",
          "Raise the topic's max.message.bytes (and \"message.max.bytes\" in [kafka]), or make the payload smaller "
          "with an UPDATE of the dead letter; then replay it.", batch_wide=True),
    Fault(13, "NETWORK_EXCEPTION", _PASSING,
          "The broker dropped the connection before it answered; the record may be written.", WAIT),
    Fault(14, "COORDINATOR_LOAD_IN_PROGRESS", _CLUSTER, "The transaction coordinator is loading its state.",
          _COORDINATOR),
    Fault(15, "COORDINATOR_NOT_AVAILABLE", _CLUSTER, "The transaction coordinator is not available.", _COORDINATOR),
    Fault(16, "NOT_COORDINATOR", _CLUSTER, "The transaction coordinator has moved to another broker.", _COORDINATOR),
    Fault(17, "TOPIC_EXCEPTION", _ROW,
          "The topic's name is illegal, or the topic is internal to Kafka and may not be written.",
          "Correct the dead letter's topic with an UPDATE, then replay it; correct the code that writes such rows."),
    Fault(18, "RECORD_LIST_TOO_LARGE", _ROW, "The batch is larger than the topic's segment size.",
          "Raise the topic's segment.bytes, or make the payload smaller, then replay.", batch_wide=True),
    Fault(19, "NOT_ENOUGH_REPLICAS", _TOPIC,
          "Fewer replicas are in step than min.insync.replicas asks for; nothing was written.",
          "Bring the missing brokers back, or compare min.insync.replicas with the replication factor.",
          of_one_partition=True),
    Fault(20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", _TOPIC,
          "The leader wrote the record but too few replicas followed; it may be lost or stay.",
          "Bring the missing brokers back. The row goes again; consumers drop the duplicate by outbox-event-id.",
          of_one_partition=True),
    Fault(21, "INVALID_REQUIRED_ACKS", _TOPIC, "The broker does not accept the number of acknowledgements asked for.",
          'Remove "acks" from [kafka]: outboxd needs acks=all.'),
    Fault(29, "TOPIC_AUTHORIZATION_FAILED", _TOPIC, "The daemon's user may not write to this topic.",
          "Grant it WRITE and DESCRIBE on the topic (kafka-acls --add --producer --topic …); the rows wait and go by "
          "themselves."),
    Fault(31, "CLUSTER_AUTHORIZATION_FAILED", _CLUSTER, "The daemon's user lacks a right on the cluster.",
          "Grant it IDEMPOTENT_WRITE on the cluster (old brokers need it); the rows wait and go by themselves."),
    Fault(32, "INVALID_TIMESTAMP", _TOPIC,
          "The record's time is further from the broker's clock than the topic allows: a wrong clock, or a very old "
          "row.",
          "Compare the clocks of PostgreSQL's host and the brokers, and the topic's message.timestamp.before.max.ms "
          "and message.timestamp.after.max.ms. If only this row fails, raise the limit and replay it; from before "
          "1970 no topic takes it: discard it, and insert it again with a real time.", batch_wide=True,
          unless_neighbour_passes=True),
    Fault(33, "UNSUPPORTED_SASL_MECHANISM", _CLUSTER, "The brokers do not offer the SASL mechanism that is configured.",
          _CREDENTIALS),
    Fault(34, "ILLEGAL_SASL_STATE", _CLUSTER, "The login to a broker went out of step.", _CREDENTIALS),
    Fault(35, "UNSUPPORTED_VERSION", _CLUSTER, "The broker does not know the version of the request.", _PROTOCOL),
    Fault(40, "INVALID_CONFIG", _CLUSTER, "The broker finds a setting invalid.", _PROTOCOL),
    Fault(41, "NOT_CONTROLLER", _PASSING, "The cluster's controller has moved.", WAIT),
    Fault(42, "INVALID_REQUEST", _CLUSTER,
          "The broker finds the request malformed: client and broker disagree on the protocol.", _PROTOCOL),
    Fault(43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", _TOPIC,
          "The topic's old message format has no room for what records carry.",
          "Raise the topic's message.format.version to 0.11 or later, or update the brokers."),
    Fault(44, "POLICY_VIOLATION", _ROW, "A policy of the broker refuses the record.",
          "Ask who runs the cluster which policy it is; correct the dead letter, then replay it.", batch_wide=True),
    Fault(45, "OUT_OF_ORDER_SEQUENCE_NUMBER", _PRODUCER,
          "The partition's log is behind what it had acknowledged: its topic was deleted and created again, or an "
          "unclean leader election may have lost acknowledged records.",
          "Run `outboxd audit` on the topic now and republish what it names, if it is still wanted; set "
          "unclean.leader.election.enable=false."),
    Fault(46, "DUPLICATE_SEQUENCE_NUMBER", _PRODUCER,
          "The broker already has this record; the answer to the first sending was lost.",
          "The producer is rebuilt and the row goes again to learn its offset; consumers drop the duplicate."),
    Fault(47, "INVALID_PRODUCER_EPOCH", _PRODUCER,
          "A newer producer with the same identity took over; nothing was written.", _REBUILD),
    Fault(48, "INVALID_TXN_STATE", _PRODUCER,
          "The broker's state of the transaction differs, often because it timed out.",
          "The producer is rebuilt and the rows go again. If it comes back, take smaller batches or a longer "
          "transaction.timeout.ms."),
    Fault(49, "INVALID_PRODUCER_ID_MAPPING", _PRODUCER,
          "The broker forgot the transactional.id, most likely after long idleness.", _REBUILD),
    Fault(50, "INVALID_TRANSACTION_TIMEOUT", _CLUSTER, "The transaction's time-out is longer than the brokers allow.",
          "Lower \"transaction.timeout.ms\" in [kafka] below the brokers' transaction.max.timeout.ms, and restart."),
    Fault(51, "CONCURRENT_TRANSACTIONS", _CLUSTER,
          "The transaction before this one is still being ended by the broker.", _COORDINATOR),
    Fault(52, "TRANSACTION_COORDINATOR_FENCED", _CLUSTER, "The transaction coordinator was replaced by another broker.",
          _COORDINATOR),
    Fault(53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", _CLUSTER, "The daemon's user may not use its transactional.id.",
          "Grant it WRITE and DESCRIBE on the transactional id (the prefix outboxd-); the rows wait and go by "
          "themselves."),
    Fault(54, "SECURITY_DISABLED", _CLUSTER,
          "The brokers have security features switched off that the settings ask for.", _CREDENTIALS),
    Fault(55, "OPERATION_NOT_ATTEMPTED", _PRODUCER,
          "The broker left this part of the transaction out because another part failed.",
          "The transaction is aborted and its rows go again with a new producer; the other error is the cause."),
    Fault(56, "KAFKA_STORAGE_ERROR", _TOPIC, "The broker cannot write the partition's files.",
          "Look at that broker's disks and log directories: the topic's rows wait.", of_one_partition=True),
    Fault(58, "SASL_AUTHENTICATION_FAILED", _CLUSTER, "The brokers refuse the user, password or token.", _CREDENTIALS),
    Fault(59, "UNKNOWN_PRODUCER_ID", _PRODUCER,
          "The broker has no state of this producer: its records were removed by retention, or the log lost its end.",
          "The producer is rebuilt and the rows go again. Run `outboxd audit` if a broker was lost."),
    Fault(61, "DELEGATION_TOKEN_AUTH_DISABLED", _CLUSTER, "The brokers do not accept delegation tokens.", _RENEW),
    Fault(62, "DELEGATION_TOKEN_NOT_FOUND", _CLUSTER, "The brokers do not know the delegation token.", _RENEW),
    Fault(63, "DELEGATION_TOKEN_OWNER_MISMATCH", _CLUSTER, "The delegation token belongs to somebody else.", _RENEW),
    Fault(64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", _CLUSTER, "Delegation tokens are not allowed on this listener.",
          _RENEW),
    Fault(65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", _CLUSTER, "The daemon's user may not use the delegation token.",
          _RENEW),
    Fault(66, "DELEGATION_TOKEN_EXPIRED", _CLUSTER, "The delegation token has expired.", _RENEW),
    Fault(67, "INVALID_PRINCIPAL_TYPE", _CLUSTER, "The brokers do not know that type of principal.", _CREDENTIALS),
    Fault(72, "LISTENER_NOT_FOUND", _TOPIC,
          "The partition's leader lacks the listener over which outboxd is connected.",
          "Give every broker the same listeners in advertised.listeners.", of_one_partition=True),
    Fault(74, "FENCED_LEADER_EPOCH", _PASSING, "The client knew an older leader of the partition.", WAIT),
    Fault(75, "UNKNOWN_LEADER_EPOCH", _PASSING,
          "The client knows a newer leader of the partition than the broker does.", WAIT),
    Fault(76, "UNSUPPORTED_COMPRESSION_TYPE", _TOPIC, "The broker or the topic does not take this compression.",
          'Set another "compression.type" in [kafka]; zstd needs brokers of 2.1 or later.'),
    Fault(78, "OFFSET_NOT_AVAILABLE", _PASSING, "The new leader of the partition is not ready yet.", WAIT),
    Fault(80, "PREFERRED_LEADER_NOT_AVAILABLE", _TOPIC, "The partition's preferred leader is away.", _LEADER,
          of_one_partition=True),
    Fault(83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", _TOPIC, "No replica of the partition may become its leader.", _LEADER,
          of_one_partition=True),
    Fault(87, "INVALID_RECORD", _ROW,
          "The broker's validation refused the record: no key on a compacted topic, or a schema or interceptor check.",
          "Give the dead letter a key, or correct its payload, with an UPDATE, then replay it; the broker's log "
          "names the check.", batch_wide=True),
    Fault(89, "THROTTLING_QUOTA_EXCEEDED", _CLUSTER, "The daemon's user has used up its quota.",
          "Raise the quota of that user or client.id, or wait: the rows go as the quota allows."),
    Fault(90, "PRODUCER_FENCED", _PRODUCER, "A newer producer with the same transactional.id took over.", _REBUILD),
    Fault(93, "UNACCEPTABLE_CREDENTIAL", _CLUSTER, "The credential does not meet the brokers' rules.", _CREDENTIALS),
    Fault(97, "PRINCIPAL_DESERIALIZATION_FAILURE", _CLUSTER,
          "The brokers cannot pass the daemon's user on among themselves.",
          "Check that all brokers use the same principal.builder.class."),
    Fault(100, "UNKNOWN_TOPIC_ID", _TOPIC,
          "The topic was deleted, or deleted and created again, since the client looked.",
          "Nothing if the topic is there again; else create it."),
    Fault(103, "INCONSISTENT_TOPIC_ID", _TOPIC,
          "The topic was deleted and created again; the broker still has the old one.",
          "Nothing: it passes when the broker has removed the old log."),
    Fault(114, "MISMATCHED_ENDPOINT_TYPE", _CLUSTER,
          "The request reached a controller where it wanted a broker, or the reverse.",
          'Name brokers, not controllers, in "bootstrap.servers".'),
    Fault(115, "UNSUPPORTED_ENDPOINT_TYPE", _CLUSTER, "The server does not support that kind of endpoint.",
          'Name brokers, not controllers, in "bootstrap.servers".'),
    Fault(120, "TRANSACTION_ABORTABLE", _PRODUCER, "The broker asks for the transaction to be aborted.",
          "The transaction is aborted and its rows go again with a new producer."),
    Fault(129, "REBOOTSTRAP_REQUIRED", _CLUSTER,
          "The cluster has changed so much that the client must look it up anew.",
          'Nothing if it passes; else check that "bootstrap.servers" still names brokers of this cluster.'),
)
# fmt: on
