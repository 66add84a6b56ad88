"""The codes that librdkafka itself makes up (below zero) and that a producer can see.

Read with librdkafka 2.16. The classes lean to the safe side: what may be the connection's, the process's or the
instance's is never the row's.
"""

from __future__ import annotations

from typing import Final

from outboxd.policy.faults.kinds import WAIT, Fault, FaultClass

_ROW = FaultClass.ROW_PERMANENT
_PASSING = FaultClass.ROW_PASSING
_TOPIC = FaultClass.TOPIC
_CLUSTER = FaultClass.CLUSTER
_PRODUCER = FaultClass.PRODUCER

_REBUILD: Final = (
    "The producer is rebuilt and the rows go again in order. If it comes back, report it with the log of the minute "
    "before."
)
_REACH: Final = (
    'Nothing to do if it heals by itself; else check that the brokers run and that "bootstrap.servers" and every '
    "advertised listener can be reached from this host."
)
_SETTINGS: Final = (
    "Correct the [kafka] settings, or the version of the client, and restart: `outboxd check` shows what the brokers "
    "accept."
)

# One fault is one entry of few lines; the formatter would give each argument a line of its own.
# fmt: off
LOCAL_FAULTS: Final[tuple[Fault, ...]] = (
    Fault(-199, "_BAD_MSG", _PRODUCER,
          "The client could not parse an answer of a broker, so the outcome of the request is unknown.",
          "The producer is rebuilt and the rows go again. If it comes back, look for a proxy that meddles with the "
          "connection."),
    Fault(-198, "_BAD_COMPRESSION", _PRODUCER, "The client failed to compress or decompress data.",
          "The producer is rebuilt. If it comes back, set another \"compression.type\" and look at the host's memory."),
    Fault(-197, "_DESTROY", _PRODUCER,
          "The client was being closed while the record waited, so its outcome is unknown.",
          "Nothing: the row is sent again by the next producer."),
    Fault(-196, "_FAIL", _CLUSTER, "The connection to a broker failed while the request was under way.", _REACH),
    Fault(-195, "_TRANSPORT", _CLUSTER, "The connection to a broker broke, or could not be made.", _REACH),
    Fault(-194, "_CRIT_SYS_RESOURCE", _CLUSTER, "The client got no memory, thread or socket from the operating system.",
          "Raise the daemon's limits (MemoryMax, TasksMax, LimitNOFILE) or free the host, then restart outboxd."),
    Fault(-193, "_RESOLVE", _CLUSTER, "A broker's host name could not be resolved.",
          "Check the names in \"bootstrap.servers\", the brokers' advertised listeners and this host's DNS."),
    Fault(-192, "_MSG_TIMED_OUT", _TOPIC,
          "No broker confirmed the record in time: its partition's leader is away or too slow.",
          "Look for a partition without a leader or a slow broker. The row is in the log perhaps; it goes again when "
          "probes pass.", of_one_partition=True),
    Fault(-190, "_UNKNOWN_PARTITION", _TOPIC,
          "The topic has no partition of that number, or the topic was deleted while the record waited.",
          "Compare the row's partition with the topic's description: create the topic again, add partitions, or "
          "correct the row. A partition that fresh metadata of an unchanged topic lacks is reported as "
          "UNKNOWN_PARTITION."),
    Fault(-189, "_FS", _CLUSTER, "The client could not read or write a file, such as a certificate or a key.",
          "Check that the files named in [kafka] exist and that the daemon's user may read them; look for a full "
          "disk."),
    Fault(-188, "_UNKNOWN_TOPIC", _TOPIC, "The topic does not exist, or the daemon may not see it.",
          "Create the topic, or correct the name where rows are written; a missing DESCRIBE right looks the same."),
    Fault(-187, "_ALL_BROKERS_DOWN", _CLUSTER, "No broker of the cluster can be reached.", _REACH),
    Fault(-186, "_INVALID_ARG", _ROW,
          "The client refused the record: a part of it is not allowed (partition, timestamp or key).",
          "Correct the dead letter's partition, key or headers with an UPDATE, then replay it."),
    Fault(-185, "_TIMED_OUT", _CLUSTER, "A broker did not answer the request in time.", _REACH),
    Fault(-184, "_QUEUE_FULL", _CLUSTER, "The client's queue is full: brokers take records more slowly than rows come.",
          "Nothing if it passes: it is backpressure. Else look at the brokers' load, or lower "
          "relay.max_in_flight_rows."),
    Fault(-183, "_ISR_INSUFF", _TOPIC, "The partition has too few replicas in step to accept writes.",
          "Bring the missing brokers back, or compare min.insync.replicas with the replication factor.",
          of_one_partition=True),
    Fault(-181, "_SSL", _CLUSTER, "The TLS connection to a broker failed: certificate, name, protocol or cipher.",
          "Check \"ssl.ca.location\", the certificates' dates and names, and that the port speaks TLS."),
    Fault(-180, "_WAIT_COORD", _CLUSTER, "The coordinator of the transaction is not known yet.", WAIT),
    Fault(-178, "_IN_PROGRESS", _PRODUCER, "A call to the client came while the same call was still running.",
          _REBUILD),
    Fault(-177, "_PREV_IN_PROGRESS", _PRODUCER, "A transactional call came before the one before it had ended.",
          _REBUILD),
    Fault(-173, "_CONFLICT", _PRODUCER, "Two calls to the client exclude each other.", _REBUILD),
    Fault(-172, "_STATE", _PRODUCER,
          "The client was called in a state that does not allow it, such as outside a transaction.", _REBUILD),
    Fault(-171, "_UNKNOWN_PROTOCOL", _CLUSTER, "Client and broker do not speak the same protocol on that port.",
          _SETTINGS),
    Fault(-170, "_NOT_IMPLEMENTED", _CLUSTER, "The installed client lacks what the settings ask for.", _SETTINGS),
    Fault(-169, "_AUTHENTICATION", _CLUSTER, "The brokers refuse the credentials.",
          "Correct the user, password or token in [kafka] and reload; rows wait meanwhile and none is lost."),
    Fault(-166, "_TIMED_OUT_QUEUE", _CLUSTER,
          "The request never left this host: it waited too long for the connection.", _REACH),
    Fault(-165, "_UNSUPPORTED_FEATURE", _CLUSTER, "The brokers are too old for what the settings ask for.",
          "Update the brokers, or take back the setting (such as idempotence, transactions or zstd)."),
    Fault(-164, "_WAIT_CACHE", _PASSING, "The client waits for the cluster's metadata.", WAIT),
    Fault(-162, "_KEY_SERIALIZATION", _ROW, "The key could not be turned into bytes.",
          "Correct the dead letter's key with an UPDATE, then replay it."),
    Fault(-161, "_VALUE_SERIALIZATION", _ROW, "The payload could not be turned into bytes.",
          "Correct the dead letter's payload with an UPDATE, then replay it."),
    Fault(-158, "_PARTIAL", _PASSING, "A broker's answer was incomplete.", WAIT),
    Fault(-157, "_READ_ONLY", _PRODUCER, "The client was told to change what cannot be changed.", _REBUILD),
    Fault(-155, "_UNDERFLOW", _PRODUCER, "A broker's answer ended too early to be parsed.", _REBUILD),
    Fault(-154, "_INVALID_TYPE", _ROW, "A part of the record has a type that the client does not take.",
          "Correct the dead letter's headers or key with an UPDATE, then replay it."),
    Fault(-153, "_RETRY", _PASSING, "The client asks for the same again.", WAIT),
    Fault(-152, "_PURGE_QUEUE", _PRODUCER,
          "The record was taken out of the client's queue when its producer was given up; it may have been sent "
          "before.", "Nothing: the row is sent again by the next producer."),
    Fault(-151, "_PURGE_INFLIGHT", _PRODUCER,
          "The producer was given up while the record was on its way; most likely it is in the log.",
          "Nothing: the row is sent again; consumers drop the duplicate by outbox-event-id."),
    Fault(-150, "_FATAL", _PRODUCER,
          "The producer instance is dead after a fatal error; the error before it is the cause.",
          "The producer is rebuilt and the rows go again in order. Read the fatal error in the log just before this "
          "one."),
    Fault(-149, "_INCONSISTENT", _PRODUCER, "The producer lost track of what the broker has written.",
          "The producer is rebuilt and the rows go again in order. Run `outboxd audit` if a broker was lost."),
    Fault(-148, "_GAPLESS_GUARANTEE", _PRODUCER,
          "A batch failed for good and enable.gapless.guarantee stops the producer before anything later is sent.",
          'Remove "enable.gapless.guarantee" from [kafka]: outboxd keeps the order by itself, at less cost.'),
    Fault(-145, "_NOT_CONFIGURED", _CLUSTER, "The settings lack what this call needs, such as a transactional.id.",
          _SETTINGS),
    Fault(-144, "_FENCED", _PRODUCER,
          "A newer producer with the same transactional.id took over, or the transaction ran past its time-out.",
          "Look for a second daemon on this outbox. If the lease is still held, a new producer is built and the rows "
          "go again."),
    Fault(-143, "_APPLICATION", _PRODUCER, "A callback of the application made the client stop.", _REBUILD),
    Fault(-138, "_INVALID_DIFFERENT_RECORD", _ROW,
          "Another record of the same batch was invalid; nothing is known against this one.",
          "Nothing: the row is sent again alone, and only the record that fails alone is blamed.", batch_wide=True),
    Fault(-137, "_DESTROY_BROKER", _PASSING, "A broker left the cluster while the record waited for it.", WAIT),
)
# fmt: on
