"""The WSGI application: a few paths, each a short method; what it cannot answer it refuses in a sentence."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

import orjson
from prometheus_client import CollectorRegistry, make_wsgi_app

from outboxd.errors import OutboxdError, UnavailableError
from outboxd.observability.status import StatusBoard
from outboxd.policy.exchange.messages import TellEvent
from outboxd.policy.rows.records import ID_MAX
from outboxd.postgres.operators.dead_letter_rows import Filters
from outboxd.web.dead_letters import DeadLetters, taken_as_dict, whole_as_dict
from outboxd.web.guard import Guard, Refusal, hide_rows
from outboxd.web.health import Health, liveness, readiness
from outboxd.web.page import load_page

StartResponse = Callable[..., Any]
Environ = dict[str, Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

BODY_BYTES_MAX: Final = 64 * 1024
LENGTH_DIGITS_MAX: Final = 19
IDS_MAX: Final = 1_000
ROWS_SHOWN_MAX: Final = 200
QUERIES_MAX: Final = 2
"""So many requests may work with the database at once; another one waits for a moment, then is refused."""
QUERY_WAIT_SECONDS: Final = 5.0
SUMMARY_KEPT_SECONDS: Final = 5.0
_HEADERS: Final = (
    ("Server", "outboxd"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: status, type, body, and headers beyond the usual ones."""

    body: bytes
    status: str = "200 OK"
    content_type: str = "application/json"
    policy: str = _NOTHING
    headers: tuple[tuple[str, str], ...] = field(default_factory=tuple)


class App:
    """Answers requests on any thread."""

    def __init__(
        self,
        board: StatusBoard,
        registry: CollectorRegistry,
        guard: Guard,
        *,
        event: TellEvent,
        dead_letters: DeadLetters | None = None,
        schema: str = "outboxd",
    ) -> None:
        """`dead_letters` works in the schema `schema`; without it the page shows none. `event` is the observer's."""
        self._board = board
        self._guard = guard
        self._event = event
        self._dead_letters = dead_letters
        self._schema = schema
        # Now, since an upgrade puts another one there while this code runs.
        self._shown = load_page()
        self._metrics: WsgiApp = make_wsgi_app(registry)
        self._queries = threading.BoundedSemaphore(QUERIES_MAX)
        self._summary: tuple[float, bytes] | None = None
        self._reads: dict[str, Callable[[Environ], Answer]] = {
            "/": self._page,
            "/livez": lambda _: _verdict(liveness(board)),
            "/readyz": lambda environ: _verdict(readiness(board, shows_rows=guard.may_read_keys(environ))),
            "/status": self._status,
            "/api/points": self._points,
            "/api/dead-letters": self._groups,
            "/api/dead-letters/rows": self._rows,
        }
        self._changes: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "/api/dead-letters/replay": self._replay,
            "/api/dead-letters/discard": self._discard,
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            self._guard.check_host(environ)
            if environ["PATH_INFO"] == "/metrics" and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
                told = self._scraped(environ, start_response)
                return [] if environ["REQUEST_METHOD"] == "HEAD" else told
            answer = self._answer(environ)
        except Refusal as refusal:
            answer = _problem(refusal.status, refusal.sentence)
        except UnavailableError as error:
            answer = _problem("503 Service Unavailable", str(error))
        except OutboxdError as error:
            answer = _problem("409 Conflict", str(error))
        except Exception as error:  # noqa: BLE001 - one request's bug is told, and costs no other request
            self._event("request_failed", path=environ["PATH_INFO"], cause=f"{type(error).__name__}: {error}")
            answer = _problem("500 Internal Server Error", "this failed, and the log says why")
        headers = [
            ("Content-Type", f"{answer.content_type}; charset=utf-8"),
            ("Content-Length", str(len(answer.body))),
            ("Content-Security-Policy", answer.policy),
            *_HEADERS,
            *answer.headers,
        ]
        start_response(answer.status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _scraped(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]]) -> Any:
            return start_response(status, [*headers, ("Content-Security-Policy", _NOTHING), *_HEADERS])

        # The registry's own application knows no HEAD.
        asked = {**environ, "REQUEST_METHOD": "GET"}
        try:
            return self._metrics(asked, start)
        except (TypeError, ValueError):
            # It cannot compare a version in Accept that is none.
            return self._metrics({**asked, "HTTP_ACCEPT": ""}, start)

    def _answer(self, environ: Environ) -> Answer:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path in self._changes:
            if method != "POST":
                raise _not_allowed("POST")
            self._guard.check_changing(environ)
            return self._changes[path](_body(environ))
        if method not in ("GET", "HEAD"):
            raise _not_allowed("GET")
        if path in self._reads:
            return self._reads[path](environ)
        first, _, last = path.rpartition("/")
        if first == "/api/dead-letters" and last.isdecimal() and len(last) <= 19:
            return self._whole(environ, int(last))
        raise Refusal("404 Not Found", "there are /, /metrics, /livez, /readyz and /status")

    # Reading.

    def _page(self, _: Environ) -> Answer:
        return Answer(self._shown.content, content_type="text/html", policy=self._shown.policy)

    def _status(self, environ: Environ) -> Answer:
        told = self._board.as_dict()
        told["may_change"] = bool(self._guard.token) and self._dead_letters is not None
        if not self._guard.may_read_keys(environ):
            hide_rows(told)
        return _json(told)

    def _points(self, environ: Environ) -> Answer:
        try:
            after = float(_query(environ).get("after") or 0)
        except ValueError:
            raise Refusal("400 Bad Request", "after is a time in seconds") from None
        return _json(
            [
                [point.at, point.rows_per_second, point.bytes_per_second, point.lag_seconds, point.in_memory_rows]
                for point in self._board.points()
                if point.at > after
            ]
        )

    def _groups(self, environ: Environ) -> Answer:
        self._guard.check_reading(environ)
        letters, now = self._letters(), self._board.monotonic()
        with _Turn(self._queries):
            # Counting a million dead letters takes a second or two: pages that ask at the same time share it.
            # A change drops the kept one, at any moment, on another thread.
            kept = self._summary
            if kept is None or now - kept[0] > SUMMARY_KEPT_SECONDS:
                groups = letters.summary()
                body = orjson.dumps({"groups": groups, "total": sum(group.count for group in groups)})
                self._summary = kept = (self._board.monotonic(), body)
            return Answer(kept[1])

    def _rows(self, environ: Environ) -> Answer:
        self._guard.check_reading(environ)
        asked = _query(environ)
        filters = Filters(asked.get("topic"), asked.get("error_code"), asked.get("key"), asked.get("reason"))
        with _Turn(self._queries):
            return _json({"rows": self._letters().list(filters, ROWS_SHOWN_MAX)})

    def _whole(self, environ: Environ, letter_id: int) -> Answer:
        self._guard.check_reading(environ)
        with _Turn(self._queries):
            whole = self._letters().show(letter_id)
        if whole is None:
            raise Refusal("404 Not Found", f"there is no dead letter {letter_id}")
        return _json(whole_as_dict(whole, self._schema))

    def _letters(self) -> DeadLetters:
        if self._dead_letters is None:
            raise Refusal("404 Not Found", "this daemon shows no dead letters")
        return self._dead_letters

    # Changing.

    def _replay(self, body: dict[str, Any]) -> Answer:
        ids, note, who = _asked(body)
        with _Turn(self._queries):
            taken = self._letters().replay(ids, force=body.get("force") is True, note=note, who=who)
        self._summary = None
        self._event("dead_letters_replayed", rows=taken.taken, who=who, sample_id=ids[0])
        return _json(taken_as_dict(taken))

    def _discard(self, body: dict[str, Any]) -> Answer:
        ids, note, who = _asked(body)
        with _Turn(self._queries):
            taken = self._letters().discard(ids, note=note, who=who)
        self._summary = None
        self._event("dead_letters_discarded", rows=taken.taken, who=who, sample_id=ids[0])
        return _json(taken_as_dict(taken))


class _Turn:
    """A place at the database, or a refusal when others take too long."""

    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self._places = places

    def __enter__(self) -> None:
        if not self._places.acquire(timeout=QUERY_WAIT_SECONDS):
            raise Refusal("503 Service Unavailable", "others are asking the database; try again")

    def __exit__(self, *_: object) -> None:
        self._places.release()


def _query(environ: Environ) -> dict[str, str]:
    try:
        parsed = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise Refusal("400 Bad Request", "the query has too many parameters") from None
    if any("\0" in value for values in parsed.values() for value in values):
        raise Refusal("400 Bad Request", "no text of PostgreSQL's has a NUL")
    return {name: values[-1] for name, values in parsed.items()}


def _body(environ: Environ) -> dict[str, Any]:
    length = str(environ.get("CONTENT_LENGTH") or "")
    if not length.isdecimal():
        raise Refusal("411 Length Required", "send the length of the body")
    if len(length) > LENGTH_DIGITS_MAX or int(length) > BODY_BYTES_MAX:
        raise Refusal("413 Content Too Large", f"at most {BODY_BYTES_MAX} bytes")
    try:
        body = orjson.loads(environ["wsgi.input"].read(int(length)))
    except TimeoutError:
        raise Refusal("408 Request Timeout", "the body did not come in time") from None
    except orjson.JSONDecodeError:
        raise Refusal("400 Bad Request", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refusal("400 Bad Request", "the body is not a JSON object")
    return body


def _asked(body: dict[str, Any]) -> tuple[list[int], str | None, str]:
    """The ids, the note and who asks, from the body of a change."""
    ids, note, who = body.get("ids"), body.get("note"), body.get("who")
    if not isinstance(ids, list) or not 1 <= len(ids) <= IDS_MAX or not all(_is_id(each) for each in ids):
        raise Refusal("400 Bad Request", f'"ids" is a list of 1 to {IDS_MAX} ids')
    if not all(value is None or (isinstance(value, str) and len(value) <= 1_000) for value in (note, who)):
        raise Refusal("400 Bad Request", '"note" and "who" are texts of at most 1,000 characters')
    cleaned = [None if value is None else value.replace("\0", "").strip() for value in (note, who)]
    return ids, cleaned[0] or None, f"{cleaned[1] or 'somebody'}, by the page"


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= ID_MAX


def _json(value: object, status: str = "200 OK") -> Answer:
    return Answer(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS), status)


def _verdict(health: Health) -> Answer:
    return _json(health.as_dict(), "200 OK" if health.ok else "503 Service Unavailable")


def _problem(status: str, sentence: str) -> Answer:
    headers = (("WWW-Authenticate", "Bearer"),) if status.startswith("401") else ()
    return Answer(orjson.dumps({"error": sentence}), status, headers=headers)


def _not_allowed(method: str) -> Refusal:
    return Refusal("405 Method Not Allowed", f"this path takes {method}")
