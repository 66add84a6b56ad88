"""PostgreSQL and Kafka on the machine, at the addresses that the guides print."""

from __future__ import annotations

from pathlib import Path

from tests.support.kafka import JAVA_OPTIONS
from tests.support.kafka_config import NodePorts, Security, node_properties
from tests.support.postgres import find_installation
from tests.systemd.machine import Machine

#: Its superuser is trusted, as an administrator who has logged in is; the daemon's role is not.
_HBA = """\
local all outboxd peer
local all all trust
host all outboxd localhost scram-sha-256
host all all localhost trust
"""


def start_postgres(machine: Machine) -> None:
    """A PostgreSQL at localhost:5432 with the database `app`."""
    programs = find_installation().bin_dir
    machine.run("install -d -o nobody -m 0700 /srv/postgresql && install -d -o nobody /run/postgresql")
    machine.run(
        f"systemd-run --quiet --wait --uid=nobody {programs}/initdb --pgdata=/srv/postgresql/data --username=postgres"
        " --auth=trust --no-sync"
    )
    machine.write("/srv/postgresql/data/pg_hba.conf", _HBA)
    run_postgres(machine)
    machine.run("psql -c 'CREATE DATABASE app' postgresql://postgres@localhost/postgres")


def run_postgres(machine: Machine) -> None:
    """Run the server, which was made before; SIGINT ends it at once, whoever is connected."""
    machine.run(
        "systemd-run --quiet --unit=database --uid=nobody --property=Type=notify --property=KillSignal=SIGINT"
        f" {find_installation().bin_dir}/postgres -D /srv/postgresql/data -c unix_socket_directories=/run/postgresql"
    )


def start_kafka(machine: Machine) -> None:
    """A broker at localhost:9092, with the jars at /srv/kafka."""
    ports = NodePorts(9092, 9093, 9094, advertised=9092)
    properties = node_properties(0, [ports], Path("/srv/kafka-data"), Security(False, False, {}, None), {})
    machine.write("/srv/kafka.properties", "".join(f"{name}={value}\n" for name, value in properties.items()))
    java = f"java {' '.join(JAVA_OPTIONS)} -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '/srv/kafka/*'"
    machine.run(
        f"{java} kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg -c /srv/kafka.properties\n"
        f"systemd-run --quiet --unit=kafka {java} kafka.Kafka /srv/kafka.properties"
    )
    machine.wait("(: </dev/tcp/127.0.0.1/9092) 2>/dev/null", "a broker listens")


def create_topic(machine: Machine, topic: str) -> None:
    """Make a topic of one partition."""
    machine.run(
        "/opt/outboxd/bin/python -c '"
        "from confluent_kafka.admin import AdminClient, NewTopic\n"
        'admin = AdminClient({"bootstrap.servers": "localhost:9092"})\n'
        f'admin.create_topics([NewTopic("{topic}", 1, 1)])["{topic}"].result(30)\''
    )
