"""The manual pages outboxd(8) and outboxd.toml(5), from the texts that the command line and the configuration have.

`python -m outboxd.cli.manual DIRECTORY` writes them; a test holds docs/man/ to the code.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outboxd.cli.main import ABOUT
from outboxd.cli.registry import COMMANDS, load_command
from outboxd.config.librdkafka import GUARDS, KafkaSettings
from outboxd.config.model import SECTIONS
from outboxd.config.section import Section, kind_of
from outboxd.config.sections import RetryOverrides, RouteSettings
from outboxd.daemon.reload import NEEDS_RESTART

EXIT_STATUS = (
    (0, "All is well; for a daemon: it was told to stop, and drained."),
    (
        64,
        (
            "The command line is wrong, a trigger or a constraint in PostgreSQL refuses what it asks for, or something "
            "was left as it is since it needs --force."
        ),
    ),
    (
        69,
        (
            "A server is unavailable, no thread can be started, or the output cannot be written. With --until-empty "
            "also: rows wait for Kafka, or a signal came before the outbox was empty. Of audit also: rows are lost, or "
            "topics cannot be read. The unit tries again."
        ),
    ),
    (70, "A bug; the message says where to look. The unit tries again."),
    (75, "Rivals took the lease or the transactional.id again and again while it was held. The unit tries on."),
    (77, "PostgreSQL or Kafka does not allow what is needed: a grant, an ACL or a password."),
    (78, "The configuration or the schema is wrong; the message lists every mistake with its place."),
    (130, "A command was interrupted with Ctrl+C, or not confirmed when it asked."),
    (141, "Who read the output went away before all of it was written."),
)
SIGNALS = (
    ("SIGTERM, SIGINT", "Drain: read nothing more, await the reports of what is in flight, settle, end."),
    ("the same again", "End at once. Unsettled rows stay pending."),
    ("SIGHUP", "Read the configuration again; take what a running daemon can, and say what needs a restart."),
)
SHARED = ("-c", "--set", "-h", "--help")


def pages() -> dict[str, str]:
    """File name → text of each page."""
    return {"outboxd.8": "\n".join(_commands_page()) + "\n", "outboxd.toml.5": "\n".join(_configuration_page()) + "\n"}


def _commands_page() -> Iterator[str]:
    yield _title("OUTBOXD", 8, "System administration")
    yield from _section("NAME", ["outboxd \\- relay of the transactional outbox from PostgreSQL to Kafka"])
    synopsis = r"\fBoutboxd\fR [\fB\-c\fR \fIFILE\fR] [\fB\-\-set\fR \fISECTION.KEY=VALUE\fR]... \fICOMMAND\fR [...]"
    yield from _section("SYNOPSIS", [synopsis])
    yield from _section("DESCRIPTION", [_plain(ABOUT)])
    yield ".SH COMMANDS"
    for name in COMMANDS:
        yield from _command(name, load_command(name))
    yield ".SH OPTIONS OF EVERY COMMAND"
    first = load_command(next(iter(COMMANDS)))
    for parameter in first.params:
        if parameter.param_type_name == "option" and parameter.opts[0] in SHARED:
            yield from _entry(_option(parameter), _plain(parameter.help or ""))
    yield ".SH SIGNALS"
    for signal, meaning in SIGNALS:
        yield from _entry(rf"\fB{_plain(signal)}\fR", _plain(meaning))
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_STATUS:
        yield from _entry(rf"\fB{code}\fR", _plain(meaning))
    yield ".SH ENVIRONMENT"
    yield from _entry(r"\fBOUTBOXD_CONFIG\fR", "The configuration file, where \\-c names none.")
    yield from _entry(r"\fBOUTBOXD_\fISECTION\fB__\fIKEY\fR", "One setting; see outboxd.toml(5).")
    yield from _entry(r"\fBOUTBOXD_DEBUG=1\fR", "Show the traceback of a bug.")
    yield from _entry(r"\fBCREDENTIALS_DIRECTORY\fR", "Where systemd has put credentials, named \\fISECTION.KEY\\fR.")
    yield from _section("SEE ALSO", [r"\fBoutboxd.toml\fR(5), \fBsystemd.exec\fR(5)"])


def _command(name: str, command: Any) -> Iterator[str]:
    children: dict[str, Any] = getattr(command, "commands", {})
    if children:
        for child, each in children.items():
            yield from _command(f"{name} {child}", each)
        return
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [
        parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.hidden and parameter.opts[0] not in SHARED
    ]
    shown = "".join(rf" \fI{_plain(_argument(parameter))}\fR" for parameter in arguments)
    yield f'.SS "outboxd {name}{shown}"'
    paragraphs = re.split(r"\n\s*\n", command.help or "")
    yield "\n.PP\n".join(_plain(paragraph) for paragraph in paragraphs)
    for parameter in options:
        yield from _entry(_option(parameter), _plain(parameter.help or ""))


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).upper()
    return f"{name}..." if parameter.nargs == -1 else str(name)


def _option(parameter: Any) -> str:
    names = ", ".join(rf"\fB{_plain(name)}\fR" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.is_flag:
        return names
    return rf"{names} \fI{_plain(parameter.metavar or parameter.name.upper())}\fR"


def _configuration_page() -> Iterator[str]:
    yield _title("OUTBOXD.TOML", 5, "File formats")
    yield from _section("NAME", [r"outboxd.toml \- configuration of outboxd"])
    yield from _section("SYNOPSIS", [r"\fI/etc/outboxd/outboxd.toml\fR"])
    yield from _section(
        "DESCRIPTION",
        [
            "A file in TOML. What wins, highest first:",
            r"\fB\-\-set\fR \fISECTION.KEY=VALUE\fR, the environment (\fBOUTBOXD_\fISECTION\fB__\fIKEY\fR), systemd",
            r"credentials named \fISECTION.KEY\fR, this file, the defaults. \fBoutboxd config show\fR prints what is",
            r"in effect and where it came from, \fBoutboxd config init\fR writes a file with every option.",
            ".PP",
            "Durations are written 250ms, 5s, 24h, 90d; sizes 500kB, 64MiB. A key that does not exist is an error.",
            ".PP",
            f"SIGHUP takes a changed file at once, except what needs a restart: {_needs_restart()}.",
        ],
    )
    for name, model in SECTIONS.items():
        yield f'.SH "[{name}]"'
        yield _plain(model.title)
        yield from _settings(model)
        if name == "database":
            yield from _kafka()
        if name == "retry":
            yield '.SH "[[route]]"'
            yield _plain(RouteSettings.title)
            yield from _settings(RouteSettings)
            yield from _settings(RetryOverrides, "retry.")
    yield from _section("SEE ALSO", [r"\fBoutboxd\fR(8)"])


def _needs_restart() -> str:
    names = [f"{name}*" if name.endswith(".") else name for name in NEEDS_RESTART]
    return _plain(", ".join(names))


def _kafka() -> Iterator[str]:
    yield '.SH "[kafka]"'
    yield _plain(KafkaSettings.title)
    yield from _entry(r'\fB"bootstrap.servers"\fR', "The brokers to ask first; no default, needed by all that sends.")
    yield ".PP"
    yield "A secret may be given by a file: \\fBsasl.password_file\\fR takes its content, less one newline at the end."
    yield ".PP"
    yield "Refused, since a guarantee would be void:"
    for key, guard in GUARDS.items():
        yield from _entry(rf"\fB{_plain(key)}\fR", _plain(f"Allowed: {guard.allowed}. Why: {guard.reason}."))


def _settings(model: type[Section], prefix: str = "") -> Iterator[str]:
    for key, (_, info) in model.fields_by_key().items():
        kind = kind_of(info)
        if kind is None:  # pragma: no cover - fields_by_key has settings only
            continue
        if info.is_required():
            default = "required"
        elif info.default is None:
            default = "default: as there"
        else:
            default = f"default: {json.dumps(kind.plain(info.default))}"
        sentence = f"{info.description} [{kind.unit}; {default}]"
        yield from _entry(rf"\fB{_plain(prefix + key)}\fR", _plain(sentence))


def _title(name: str, section: int, kind: str) -> str:
    return f'.\\" Made by `make man` from the code\'s own texts.\n.TH {name} {section} "" "outboxd" "{kind}"'


def _section(title: str, lines: list[str]) -> list[str]:
    return [f".SH {title}", *lines]


def _entry(term: str, meaning: str) -> list[str]:
    return [".TP", term, meaning]


def _plain(text: str) -> str:
    """Text as roff takes it: one line, no escapes, no request at its beginning."""
    line = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    line = "".join(sign if sign.isascii() else rf"\[u{ord(sign):04X}]" for sign in line)
    return f"\\&{line}" if line.startswith((".", "'")) else line


def main() -> None:
    """Write all pages into the directory that the command line names."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
