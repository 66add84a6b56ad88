"""`outboxd check`: every problem at once, before it is one."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outboxd.cli.context import load_settings
from outboxd.cli.database import FIRST_ANSWER_SECONDS_MAX
from outboxd.cli.output import print_json, print_line, printable
from outboxd.errors import EXIT_CONFIG, EXIT_OK, EXIT_PERMISSION, EXIT_UNAVAILABLE, ConfigError
from outboxd.policy.exchange.findings import Finding, Weight, worst

if TYPE_CHECKING:
    from outboxd.config import Settings
    from outboxd.config.places import Origin

app = typer.Typer(add_completion=False)

EXIT_CODES = {
    Weight.FINE: EXIT_OK,
    Weight.WARNING: EXIT_OK,
    Weight.UNAVAILABLE: EXIT_UNAVAILABLE,
    Weight.FORBIDDEN: EXIT_PERMISSION,
    Weight.MISCONFIGURED: EXIT_CONFIG,
}
#: librdkafka's properties that name a file, which it only opens when a client is made.
_FILE_PROPERTIES = (
    "ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location", "ssl.crl.location",
    "sasl.kerberos.keytab",
)  # fmt: skip
_KEY_FILES = ("ssl.key.location", "ssl.keystore.location", "sasl.kerberos.keytab")
_SECRETS = ("database.password", "http.token")
#: Hidden where the configuration is shown, for their length; everybody may know them.
_CERTIFICATES = ("ssl.ca.pem", "ssl.certificate.pem", "https.ca.pem")


@app.command()
def check(
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only the configuration and the installation; opens no connection.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> int:
    """Look at configuration, connection, schema, grants, broker and the topics of pending rows; name every problem.

    Exits 0 when nothing keeps the daemon from working, whatever the warnings; else with the code of the worst problem:
    78 configuration or schema, 77 a missing right, 69 a server or a topic that is not there.
    """
    findings = list(_configuration(offline=offline))
    code = EXIT_CODES[worst(findings)]
    if as_json:
        print_json(
            {
                "exit_code": code,
                "problems": sum(finding.weight.is_problem for finding in findings),
                "warnings": sum(finding.weight is Weight.WARNING for finding in findings),
                "findings": [
                    {
                        "area": finding.area,
                        "weight": finding.weight.value,
                        "message": printable(finding.message),
                        "remedy": printable(finding.remedy),
                    }
                    for finding in findings
                ],
            }
        )
        return code
    _print(findings)
    return code


def _configuration(*, offline: bool) -> Iterator[Finding]:
    has_brokers = True
    try:
        settings = load_settings(needs_brokers=True)
    except ConfigError as error:
        yield from _mistakes(error)
        try:
            settings = load_settings()
        except ConfigError:
            return
        # Brokers are all that is missing: the database can be looked at.
        has_brokers = False
    if has_brokers:
        file = "defaults and environment, no file" if settings.file is None else str(settings.file)
        yield Finding("configuration", Weight.FINE, file)
    yield from _files(settings)
    yield from _installation()
    if not offline:
        yield from _page(settings)
        yield from _servers(settings, has_brokers=has_brokers)
        yield from _daemon(settings)


def _mistakes(error: ConfigError) -> Iterator[Finding]:
    lines = str(error).splitlines()
    for line in lines[1:] if len(lines) > 1 else [lines[0].removeprefix("the configuration has a mistake: ")]:
        yield Finding("configuration", Weight.MISCONFIGURED, line.strip())


def _files(settings: Settings) -> Iterator[Finding]:
    for name in _FILE_PROPERTIES:
        path = settings.kafka.properties.get(name, "")
        if path and path != "probe" and not os.access(path, os.R_OK):
            there = Path(path).exists()
            weight = Weight.FORBIDDEN if there else Weight.MISCONFIGURED
            what = "cannot be read by this user" if there else "is not there"
            yield Finding("configuration", weight, f"{path} {what}", f"look at kafka.{name}")
    yield from _alert_program(settings)
    yield from _exposed(settings)


def _alert_program(settings: Settings) -> Iterator[Finding]:
    """A program that is not there would be found out by the first alert, which nobody would hear of."""
    words = shlex.split(settings.alerts.command)
    if words and shutil.which(words[0]) is None:
        yield Finding(
            "configuration", Weight.WARNING, f"alerts.command: there is no program {words[0]} that this user may run",
            "look at its path and rights: nobody would hear of an alert. The daemon may have another PATH than you",
        )  # fmt: skip


def _exposed(settings: Settings) -> Iterator[Finding]:
    """Which files with a secret everybody may read: the configuration itself, and those that it names."""
    origins = _of_secrets(settings)
    in_file = any(origin.source == "file" and not origin.read_from for origin in origins)
    if settings.file is not None and in_file and _is_open(settings.file):
        yield Finding(
            "configuration", Weight.WARNING, f"{settings.file} holds a secret and everybody may read it",
            "give secrets by *_file settings or systemd credentials, which a service's own user gets; where the daemon "
            f"runs as this file's owner, chmod o= {settings.file} does as well",
        )  # fmt: skip
    named = [origin.read_from for origin in origins] + [settings.kafka.properties.get(name, "") for name in _KEY_FILES]
    for path in sorted(set(filter(None, named))):
        if _is_open(Path(path)):
            yield Finding(
                "configuration", Weight.WARNING, f"{path} holds a secret and everybody may read it",
                f"chmod o= {path}, and where the daemon runs as another user than its owner, make it a systemd "
                "credential",
            )  # fmt: skip


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _of_secrets(settings: Settings) -> list[Origin]:
    """Where each secret came from."""
    from outboxd.config.redaction import is_secret, redact_url

    given = sorted(settings.kafka.properties.items())
    properties = [name for name, value in given if is_secret(name) or redact_url(value) != value]
    keys = [*_SECRETS, *(f"kafka.{name}" for name in properties if name not in _CERTIFICATES)]
    if redact_url(settings.database.url) != settings.database.url:
        keys.append("database.url")
    return [settings.origin(key) for key in keys]


def _installation() -> Iterator[Finding]:
    from outboxd.errors import SchemaError
    from outboxd.postgres.schema.revisions import required_revision

    try:
        yield Finding("installation", Weight.FINE, f"needs schema revision {required_revision()}")
    except SchemaError as error:
        yield Finding("installation", Weight.MISCONFIGURED, str(error))


def _page(settings: Settings) -> Iterator[Finding]:
    from outboxd.web.listening import why_missing

    if settings.http.address is None:
        return
    host = settings.http.address[0]
    cause = why_missing(host)
    if cause is not None:
        yield Finding(
            "configuration", Weight.WARNING, f"http.listen: this machine has no address {host} at present: {cause}",
            "without it the daemon relays, and has no page and no metrics; it takes the address once it is there",
        )  # fmt: skip


def _daemon(settings: Settings) -> Iterator[Finding]:
    """What a daemon that has its page on this machine is troubled by: the servers themselves may look well."""
    from outboxd.cli.daemon_page import DaemonPage, troubles

    status = DaemonPage(settings.http.address).status()
    if status is None or status["outbox"] != settings.outbox.name:
        return
    found = troubles(status)
    if not found:
        yield Finding("daemon", Weight.FINE, f"{status['daemon']}: {status['state']}")
    for trouble in found:
        yield Finding("daemon", Weight.WARNING, f"{status['daemon']}: {trouble}", "look at the daemon's log")


def _servers(settings: Settings, *, has_brokers: bool) -> Iterator[Finding]:
    from outboxd.kafka.checks import inspection as kafka
    from outboxd.kafka.checks.transaction_checks import inspect_transactions
    from outboxd.kafka.transactional.progress import progress_topic, transactional_id
    from outboxd.postgres.checks import inspection as postgres
    from outboxd.postgres.connections.engine import make_engine

    topics: dict[str, int] = {}
    transactional: tuple[str, str, int, str] | None = None
    try:
        engine = make_engine(
            settings.database.url, settings.database.password, statement_timeout_seconds=30.0,
            first_answer_seconds=FIRST_ANSWER_SECONDS_MAX,
        )  # fmt: skip
    except ConfigError as error:
        yield Finding("database", Weight.MISCONFIGURED, str(error))
    else:
        try:
            database, outbox = settings.database, settings.outbox
            exactly_once = settings.relay.is_exactly_once
            found = postgres.inspect(
                engine, database.schema_, outbox.table, outbox.name, exactly_once=exactly_once,
                listens=settings.relay.listen,
            )  # fmt: skip
        finally:
            engine.dispose()
        yield from found.findings
        topics |= found.pending_topics
        if exactly_once and found.database:
            names = (found.database, settings.database.schema_, settings.outbox.name)
            transactional = (
                transactional_id(*names),
                progress_topic(*names),
                found.settled_transaction,
                found.lineage,
            )
    if settings.alerts.dead_letter_topic:
        topics.setdefault(settings.alerts.dead_letter_topic, 0)
    if has_brokers:
        findings = kafka.inspect(settings.kafka.properties, topics)
        yield from findings
        answers = not any(finding.area == "broker" and finding.weight.is_problem for finding in findings)
        if transactional is not None and answers:
            yield from inspect_transactions(settings.kafka.properties, *transactional)


def _print(findings: list[Finding]) -> None:
    from outboxd.cli.plain_text import count_of, one_line

    for finding in findings:
        label = "problem" if finding.weight.is_problem else finding.weight.value
        print_line(f"{label:<8} {finding.area:<14} {one_line(finding.message)}")
        if finding.remedy:
            print_line(f"{'':<8} {'':<14} → {one_line(finding.remedy)}")
    problems = sum(finding.weight.is_problem for finding in findings)
    warnings = sum(finding.weight is Weight.WARNING for finding in findings)
    print_line(f"{count_of(problems, 'problem')}, {count_of(warnings, 'warning')}")
