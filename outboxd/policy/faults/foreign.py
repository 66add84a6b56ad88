"""The codes that belong to consumers, administration, brokers among themselves, share groups and streams.

A producer should never see one. If one comes, nobody knows what it says about the row: it is tried again, then its
topic is held, and the log shows the full text. They share sentences by origin.
"""

from __future__ import annotations

from typing import Final

from outboxd.policy.faults.kinds import Fault, FaultClass

# Grouped to be read as lists; the formatter would give each code a line of its own.
# fmt: off
_CODES_BY_ORIGIN: Final[dict[str, dict[int, str]]] = {
    "the consumer side of the client": {
        -191: "_PARTITION_EOF", -179: "_UNKNOWN_GROUP", -176: "_EXISTING_SUBSCRIPTION", -175: "_ASSIGN_PARTITIONS",
        -174: "_REVOKE_PARTITIONS", -168: "_NO_OFFSET", -160: "_KEY_DESERIALIZATION",
        -159: "_VALUE_DESERIALIZATION", -147: "_MAX_POLL_EXCEEDED", -142: "_ASSIGNMENT_LOST",
        -140: "_AUTO_OFFSET_RESET", -139: "_LOG_TRUNCATION",
    },
    "the inner workings of the client": {
        -182: "_NODE_UPDATE", -167: "_OUTDATED", -163: "_INTR", -156: "_NOENT", -146: "_UNKNOWN_BROKER",
        -141: "_NOOP",
    },
    "a consumer group": {
        12: "OFFSET_METADATA_TOO_LARGE", 22: "ILLEGAL_GENERATION", 23: "INCONSISTENT_GROUP_PROTOCOL",
        24: "INVALID_GROUP_ID", 25: "UNKNOWN_MEMBER_ID", 26: "INVALID_SESSION_TIMEOUT", 27: "REBALANCE_IN_PROGRESS",
        28: "INVALID_COMMIT_OFFSET_SIZE", 30: "GROUP_AUTHORIZATION_FAILED", 68: "NON_EMPTY_GROUP",
        69: "GROUP_ID_NOT_FOUND", 79: "MEMBER_ID_REQUIRED", 81: "GROUP_MAX_SIZE_REACHED", 82: "FENCED_INSTANCE_ID",
        86: "GROUP_SUBSCRIBED_TO_TOPIC", 88: "UNSTABLE_OFFSET_COMMIT", 110: "FENCED_MEMBER_EPOCH",
        111: "UNRELEASED_INSTANCE_ID", 112: "UNSUPPORTED_ASSIGNOR", 113: "STALE_MEMBER_EPOCH",
        128: "INVALID_REGULAR_EXPRESSION",
    },
    "reading from the log": {
        1: "OFFSET_OUT_OF_RANGE", 70: "FETCH_SESSION_ID_NOT_FOUND", 71: "INVALID_FETCH_SESSION_EPOCH",
    },
    "the administration of topics and the cluster": {
        36: "TOPIC_ALREADY_EXISTS", 37: "INVALID_PARTITIONS", 38: "INVALID_REPLICATION_FACTOR",
        39: "INVALID_REPLICA_ASSIGNMENT", 57: "LOG_DIR_NOT_FOUND", 60: "REASSIGNMENT_IN_PROGRESS",
        73: "TOPIC_DELETION_DISABLED", 84: "ELECTION_NOT_NEEDED", 85: "NO_REASSIGNMENT_IN_PROGRESS",
        91: "RESOURCE_NOT_FOUND", 92: "DUPLICATE_RESOURCE", 96: "FEATURE_UPDATE_FAILED",
    },
    "brokers and controllers among themselves": {
        11: "STALE_CTRL_EPOCH", 77: "STALE_BROKER_EPOCH", 94: "INCONSISTENT_VOTER_SET",
        95: "INVALID_UPDATE_VERSION", 116: "UNKNOWN_CONTROLLER_ID", 119: "INVALID_REGISTRATION",
        125: "INVALID_VOTER_KEY", 126: "DUPLICATE_VOTER", 127: "VOTER_NOT_FOUND",
    },
    "the client's telemetry": {117: "UNKNOWN_SUBSCRIPTION_ID", 118: "TELEMETRY_TOO_LARGE"},
    "a share group": {
        121: "INVALID_RECORD_STATE", 122: "SHARE_SESSION_NOT_FOUND", 123: "INVALID_SHARE_SESSION_EPOCH",
        124: "FENCED_STATE_EPOCH", 133: "SHARE_SESSION_LIMIT_REACHED",
    },
    "Kafka Streams": {
        130: "STREAMS_INVALID_TOPOLOGY", 131: "STREAMS_INVALID_TOPOLOGY_EPOCH", 132: "STREAMS_TOPOLOGY_FENCED",
    },
}
# fmt: on

_REMEDY: Final = (
    "The row is tried again, then its topic is held; nothing is dead-lettered. Look for a proxy or a broker that "
    "answers wrongly, and report the code with the versions of client and broker."
)

FOREIGN_FAULTS: Final[tuple[Fault, ...]] = tuple(
    Fault(
        code,
        name,
        FaultClass.UNLISTED,
        f"This code belongs to {origin}; a producer should never see it, so the outcome is unknown.",
        _REMEDY,
    )
    for origin, names_by_code in _CODES_BY_ORIGIN.items()
    for code, name in names_by_code.items()
)
