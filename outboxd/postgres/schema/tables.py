"""The tables as SQLAlchemy knows them; a test holds them equal to what the migrations make."""

from __future__ import annotations

import functools

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, UUID
from sqlalchemy.schema import SchemaItem

KEY_HASH = text("hashtextextended(key, hashtextextended(topic, 0))")


@functools.lru_cache(maxsize=16)
def metadata_for(schema: str) -> MetaData:
    """The tables of outboxd in this schema."""
    metadata = MetaData(schema=schema)
    for define in (_outbox, _retry, _dead_letter, _lease, _control, _start, _progress):
        define(metadata)
    return metadata


def table(schema: str, name: str) -> Table:
    """One table of outboxd, such as `lease`."""
    return metadata_for(schema).tables[f"{schema}.{name}"]


def _text(name: str, *, null: bool = False, default: str | None = None) -> Column[str]:
    return Column(name, Text, nullable=null, server_default=None if default is None else text(default))


def _time(name: str, *, null: bool = False, now: bool = False) -> Column[object]:
    return Column(name, TIMESTAMP(timezone=True), nullable=null, server_default=func.now() if now else None)


def _identity() -> Column[int]:
    return Column("id", BigInteger, Identity(always=True), nullable=False)


def _shard() -> Column[int]:
    return Column("shard", Integer, nullable=False, server_default=text("0"))


def _false(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=text("false"))


def _content() -> list[SchemaItem]:
    """What is published of a row, the same in the outbox and among the dead letters."""
    return [
        _text("topic"),
        _text("key", null=True),
        Column("payload", LargeBinary, nullable=True),
        Column("headers", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
        Column("partition", Integer, nullable=True),
    ]


def _outbox(metadata: MetaData) -> Table:
    pending = text("published_at IS NULL")
    return Table(
        "outbox",
        metadata,
        _identity(),
        Column("event_id", UUID, nullable=False, server_default=func.gen_random_uuid()),
        *_content(),
        _time("created_at", now=True),
        _time("available_at", null=True),
        _time("published_at", null=True),
        Column("published_partition", Integer, nullable=True),
        Column("published_offset", BigInteger, nullable=True),
        PrimaryKeyConstraint("id", name="outbox_pkey"),
        Index(
            "outbox_delayed_idx",
            "available_at",
            "id",
            postgresql_where=text("published_at IS NULL AND available_at IS NOT NULL"),
        ),
        Index("outbox_pending_idx", "id", postgresql_where=pending),
        Index(
            "outbox_pending_key_idx", KEY_HASH, "id", postgresql_where=text("published_at IS NULL AND key IS NOT NULL")
        ),
    )


def _retry(metadata: MetaData) -> Table:
    return Table(
        "retry",
        metadata,
        _text("outbox"),
        Column("outbox_id", BigInteger, nullable=False),
        Column("attempts", Integer, nullable=False),
        _time("next_attempt_at"),
        _time("first_failed_at", now=True),
        _text("error_code"),
        _text("error_message"),
        Column("own_age", Interval, nullable=False, server_default=text("'0'::interval")),
        PrimaryKeyConstraint("outbox", "outbox_id", name="retry_pkey"),
        Index("retry_due_idx", "outbox", "next_attempt_at", "outbox_id"),
    )


def _dead_letter(metadata: MetaData) -> Table:
    topic_hash, newest_first = text("hashtextextended(topic, 0)"), (text("died_at DESC"), text("id DESC"))
    return Table(
        "dead_letter",
        metadata,
        _identity(),
        _text("outbox"),
        Column("outbox_id", BigInteger, nullable=False),
        Column("event_id", UUID, nullable=False),
        *_content(),
        _time("created_at"),
        Column("attempts", Integer, nullable=False),
        _text("reason"),
        _text("error_code"),
        _text("error_message"),
        _time("first_failed_at", now=True),
        _time("died_at", now=True),
        _text("daemon", null=True),
        _false("holds_key"),
        _text("status", default="'dead'"),
        _time("resolved_at", null=True),
        _text("resolved_by", null=True),
        _text("note", null=True),
        _time("copied_at", null=True),
        PrimaryKeyConstraint("id", name="dead_letter_pkey"),
        UniqueConstraint("outbox", "outbox_id", "event_id", name="dead_letter_outbox_key"),
        CheckConstraint("reason IN ('fatal', 'exhausted', 'expired', 'invalid')", name="dead_letter_reason_check"),
        CheckConstraint("status IN ('dead', 'replaying', 'replayed', 'discarded')", name="dead_letter_status_check"),
        Index("dead_letter_recent_idx", *newest_first),
        Index("dead_letter_status_idx", "status", *newest_first),
        Index("dead_letter_topic_idx", topic_hash, *newest_first, postgresql_where=text("status = 'dead'")),
        Index(
            "dead_letter_kind_idx", topic_hash, "error_code", *newest_first, postgresql_where=text("status = 'dead'")
        ),
        Index("dead_letter_code_idx", "error_code", *newest_first, postgresql_where=text("status = 'dead'")),
        Index("dead_letter_key_idx", KEY_HASH, "outbox_id", postgresql_where=text("key IS NOT NULL")),
        Index(
            "dead_letter_holding_idx",
            "outbox",
            "outbox_id",
            postgresql_where=text("holds_key AND status IN ('dead', 'replaying')"),
        ),
        Index("dead_letter_replaying_idx", "outbox", "outbox_id", postgresql_where=text("status = 'replaying'")),
        Index(
            "dead_letter_replaying_key_idx",
            KEY_HASH,
            "outbox_id",
            postgresql_where=text("status = 'replaying' AND key IS NOT NULL"),
        ),
        Index(
            "dead_letter_uncopied_idx",
            "outbox",
            "id",
            postgresql_where=text("copied_at IS NULL OR copied_at < died_at"),
        ),
        Index("dead_letter_resolved_idx", "resolved_at", postgresql_where=text("status IN ('replayed', 'discarded')")),
    )


def _lease(metadata: MetaData) -> Table:
    return Table(
        "lease",
        metadata,
        _text("outbox"),
        _shard(),
        Column("holder", UUID, nullable=False),
        _text("daemon"),
        Column("token", BigInteger, nullable=False),
        _time("acquired_at", now=True),
        _time("expires_at"),
        _false("listening"),
        Column("deleted_through", BigInteger, nullable=True),
        _false("undrained"),
        _text("relayed_table", null=True),
        _time("renewed_at", null=True),
        PrimaryKeyConstraint("outbox", "shard", name="lease_pkey"),
    )


def _control(metadata: MetaData) -> Table:
    return Table(
        "control",
        metadata,
        _text("outbox"),
        _text("topic_pattern"),
        _time("since", now=True),
        _text("who", default="session_user"),
        _text("note", null=True),
        PrimaryKeyConstraint("outbox", "topic_pattern", name="control_pkey"),
    )


def _start(metadata: MetaData) -> Table:
    return Table(
        "start",
        metadata,
        _identity(),
        _text("outbox"),
        _text("daemon"),
        _time("started_at", now=True),
        _time("ended_at", null=True),
        _false("clean"),
        Column("published_ids", ARRAY(BigInteger), nullable=True),
        PrimaryKeyConstraint("id", name="start_pkey"),
        Index("start_recent_idx", "outbox", text("id DESC")),
    )


def _progress(metadata: MetaData) -> Table:
    return Table(
        "progress",
        metadata,
        _text("outbox"),
        _shard(),
        Column("settled_transaction", BigInteger, nullable=False),
        PrimaryKeyConstraint("outbox", "shard", name="progress_pkey"),
    )
