"""The log: events of the catalogue, by structlog, to the journal, as JSON or for a terminal; never in the way."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO

import orjson
import structlog

from outboxd.observability.events import kind_of
from outboxd.observability.library_lines import LibraryLines
from outboxd.observability.sink import QUEUE_LINES_MAX, Sink
from outboxd.policy.blame.cause import plain

Format = Literal["journal", "json", "console"]
Line = str | dict[str, object]

LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_CHARS_MAX: Final = 4_000
_HIDDEN: Final = "***"
SECRET_CHARS_MIN: Final = 4
"""Shorter secrets are found by the names of their fields only: hiding each "a" would leave nothing to read."""
SECRETS_MAX: Final = 1_000
"""So many are hidden: passwords that change by the hour would else make each line dearer for ever."""

_OWN_FIELDS: Final = frozenset({"event", "level", "timestamp"})
_SECRET_FIELD: Final = re.compile(r"password|passwd|secret|credential|authorization|api_?key|private", re.IGNORECASE)
_SECRET_TEXT: Final = (
    re.compile(r"(://[^\s:/@]*:)[^\s@]+(?=@)"),
    re.compile(
        r"((?:password|passwd|secret|sasl\.oauthbearer\.\w+)\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;&'\"]+)",
        re.IGNORECASE,
    ),
)


def choose_format(asked: str, environ: Mapping[str, str], stream: TextIO) -> Format:
    """Return what `auto` means here: the journal where systemd listens to this stream, a terminal's form on one, else
    JSON.

    The journal is taken only when `JOURNAL_STREAM` names this very stream: it is inherited by children whose output
    goes elsewhere.
    """
    if asked in ("journal", "json", "console"):
        return asked  # type: ignore[return-value]  # narrowed by the line above
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return "json"
    if environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}":
        return "journal"
    return "console" if stream.isatty() else "json"


def takes_colours(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Whether lines are coloured: on a terminal that can, where nobody asked for none (https://no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") not in ("dumb", "unknown")


class Log:
    """Takes events from any thread and never waits for whoever reads them."""

    def __init__(
        self,
        write: Callable[[Any], None],
        form: Format,
        level: str = "info",
        *,
        secrets: Iterable[str] = (),
        colours: bool = False,
        lines_max: int = QUEUE_LINES_MAX,
    ) -> None:
        """`write` gets a line of text, or for the journal the fields of an entry; it may block. Use `open_log` for a
        daemon's.
        """
        self.count: Callable[[str], None] = lambda _: None
        """Is told the name of each event, on its thread, whether it is logged or not."""
        self._level = LEVELS[level]
        self._secrets: tuple[str, ...] = ()
        self._given: dict[str, None] = {}
        self.hide(secrets)
        self._sink: Sink[Line] = Sink(write, on_dropped=self._tell_dropped, lines_max=lines_max)
        self._logger = structlog.wrap_logger(
            _Queued(self._sink),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                self._clean,
                *_renderers(form, colours=colours),
            ],
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )

    @property
    def dropped(self) -> int:
        """How many lines were dropped since the start."""
        return self._sink.dropped

    def event(self, name: str, **fields: object) -> None:
        """Log an event of the catalogue with these fields."""
        kind = kind_of(name)
        self.count(name)
        if LEVELS[kind.level] >= self._level:
            getattr(self._logger, kind.level)(name, message=kind.message(fields), **fields)

    def is_enabled(self, level: str) -> bool:
        """Say whether events of this level are logged."""
        return LEVELS[level] >= self._level

    def set_level(self, level: str) -> None:
        """Log from this level on."""
        self._level = LEVELS[level]

    def hide(self, secrets: Iterable[str]) -> None:
        """Show none of these texts in any line from now on. Those given before stay hidden too, but for the oldest of
        very many. One thread at a time.
        """
        for secret in secrets:
            # As lines have it: a key's line breaks, or a tab, are no longer there when it is looked for.
            text = plain(secret, len(secret) + 1)
            if len(text) >= SECRET_CHARS_MIN:
                # What is given again is as good as new.
                self._given.pop(text, None)
                self._given[text] = None
        while len(self._given) > SECRETS_MAX:
            del self._given[next(iter(self._given))]
        # Longest first: one secret may be the beginning of another.
        self._secrets = tuple(sorted(self._given, key=len, reverse=True))

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Write what is queued, for no longer than this."""
        self._sink.close(timeout_seconds)

    def take_libraries(self) -> None:
        """Let warnings of libraries (the standard logging) come out as events, and nothing beside."""
        root = logging.getLogger()
        root.handlers = [LibraryLines(self.event)]
        root.setLevel(logging.WARNING)
        logging.captureWarnings(True)
        # Its failures come by a listener, and a job that is still at work when its time comes again is no news.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)

    def _tell_dropped(self, lines: int) -> None:
        self.event("log_lines_dropped", lines=lines)

    def _clean(self, _: object, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """One line each, nothing that drives a terminal, and no secret."""
        for name, value in fields.items():
            if name in _OWN_FIELDS:
                # Of a few known words, one of which may be a secret too.
                continue
            if _SECRET_FIELD.search(name):
                fields[name] = _HIDDEN
            elif isinstance(value, str):
                fields[name] = self._without_secrets(plain(value, _CHARS_MAX))
            elif not isinstance(value, int | float | None):
                fields[name] = self._without_secrets(plain(str(value), _CHARS_MAX))
        return fields

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        for pattern in _SECRET_TEXT:
            text = pattern.sub(r"\1" + _HIDDEN, text)
        return text


def open_log(level: str, form: str = "auto", *, secrets: Iterable[str] = (), stream: TextIO | None = None) -> Log:
    """Open the daemon's log on standard error, or in the journal. `form` is `log.format`, `level` is `log.level`."""
    stream = stream or sys.stderr
    chosen = choose_format(form, os.environ, stream)
    if chosen == "journal":
        from outboxd.observability.journal import SOCKET, send

        return Log(lambda entry: send(entry, SOCKET), chosen, level, secrets=secrets)
    colours = takes_colours(os.environ, stream)
    return Log(_descriptor_writer(stream.fileno()), chosen, level, secrets=secrets, colours=colours)


def _descriptor_writer(descriptor: int) -> Callable[[str], None]:
    """A writer past the stream's lock: a thread that blocks in it at the end would keep the interpreter from ending."""

    def write(line: str) -> None:
        rest = memoryview((line + "\n").encode(errors="backslashreplace"))
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    return write


class _Queued:
    """What structlog takes for a logger: every level puts the rendered line into the sink."""

    def __init__(self, sink: Sink[Line]) -> None:
        self._put = sink.put

    def debug(self, line: Line) -> None:
        self._put(line)

    info = warning = error = debug


def _renderers(form: Format, *, colours: bool) -> list[Any]:
    match form:
        case "json":
            return [structlog.processors.JSONRenderer(serializer=_dumps)]
        case "journal":
            return [_journal_entry]
        case "console":
            return [_for_people, structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0)]


def _dumps(value: object, **_: object) -> str:
    return orjson.dumps(value, default=str).decode()


def _for_people(_: object, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The sentence, and behind it the event's name and what the sentence does not say."""
    name = fields["event"]
    told = kind_of(name).told
    kept = {key: value for key, value in fields.items() if key not in told}
    kept["event"] = kept.pop("message")
    kept["name"] = name
    return kept


def _journal_entry(_: object, __: str, fields: MutableMapping[str, Any]) -> tuple[tuple[Any], dict[str, Any]]:
    """The fields of a journal entry; structlog hands a tuple's parts to the sink as they are."""
    level = fields.pop("level")
    fields.pop("timestamp")
    entry: dict[str, Any] = {
        "MESSAGE": fields.pop("message"),
        "PRIORITY": _PRIORITIES[level],
        "SYSLOG_IDENTIFIER": "outboxd",
        "OUTBOXD_EVENT": fields.pop("event"),
    }
    entry.update({f"OUTBOXD_{name.upper()}": str(value) for name, value in fields.items()})
    return (entry,), {}
