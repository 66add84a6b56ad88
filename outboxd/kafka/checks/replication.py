"""Whether a topic keeps what its brokers acknowledged, looked at before a broker is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from confluent_kafka.admin import TopicDescription

from outboxd.policy.exchange.findings import Finding, Weight


def replication_warnings(
    area: str, topic: str, description: TopicDescription, config: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield what may lose acknowledged records of the topic, or stop it.

    Args:
        area: where `check` shows it.
        topic: its name.
        description: what the brokers say of it.
        config: its effective configuration, as far as it may be seen.
    """

    def warning(message: str, remedy: str) -> Finding:
        return Finding(area, Weight.WARNING, f"{topic}: {message}", remedy)

    replicas = min((len(partition.replicas) for partition in description.partitions), default=0)
    in_sync = min((len(partition.isr) for partition in description.partitions), default=0)
    wanted = int(config.get("min.insync.replicas", 0))
    if any(partition.leader is None for partition in description.partitions):
        yield warning("a partition has no leader", "look at the brokers; its rows wait")
    if replicas == 1:
        yield warning("one replica: a lost broker loses acknowledged records", "raise the replication factor to 3")
    elif wanted == 1:
        yield warning(
            f"min.insync.replicas is 1 of {replicas}: acknowledged records can be lost with one broker",
            "set min.insync.replicas to 2",
        )
    elif wanted and wanted > in_sync:
        yield warning(f"{in_sync} replicas are in sync, {wanted} are needed", "look at the brokers; its rows wait")
    elif wanted and wanted == replicas:
        yield warning(f"min.insync.replicas is all {replicas}: one broker down stops it", "set it one lower")
    if config.get("unclean.leader.election.enable") == "true":
        yield warning("unclean leader election is on: acknowledged records can be lost", "turn it off")
