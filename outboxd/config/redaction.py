"""Keeps secrets out of everything that is shown: `config show`, errors, logs, status."""

from __future__ import annotations

import re
from urllib.parse import unquote

from outboxd.config.libpq import parameters_of

HIDDEN = "********"

# Names whose value is a secret. A key that ends in `_file` names a path, which is none.
_SECRET_NAME = re.compile(
    r"password|passphrase|secret|jaas|(^|[._])token$|\.pem$|oauthbearer\.config$|\.key\.data$|^scram_\w+_key$",
    re.IGNORECASE,
)
# Shown as a whole these are told to nobody, though they need be no secret: any word of a command may be a password.
_COMMANDS = frozenset({"sasl.kerberos.kinit.cmd"})
_DATABASE_URL = re.compile(r"\s*postgres(?:ql)?(?:\+\w*)?:", re.IGNORECASE)
# `user:password@` of a URL, and a password among a URL's parameters or in a connection string.
_URL_PASSWORD = re.compile(r"(?<=://)([^:@/\s]*):[^@/\s]*@")
_PARAMETER = re.compile(r"(?<=[?&])([^=&]*)=[^&]*")
_PARAMETER_WITHIN = re.compile(r"(?<=[?&])([^=&\s]*)=[^&\s]*")
_PARAMETER_PASSWORD = re.compile(r"((?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*'|[^&\s]*)", re.IGNORECASE)


def is_secret(key: str) -> bool:
    """Whether the value of the setting or librdkafka property `key` must not be shown."""
    return not key.endswith("_file") and _SECRET_NAME.search(key) is not None


def redact(key: str, value: object) -> object:
    """`value` of the setting `key` as it may be shown: secrets hidden, passwords within URLs too; empty stays empty."""
    if value in ("", None):
        return value
    if is_secret(key) or key in _COMMANDS:
        return HIDDEN
    return redact_url(value) if isinstance(value, str) else value


def redact_url(text: str) -> str:
    """`text` with the passwords and other secrets of any URL or connection string in it hidden; a database's URL that
    PostgreSQL's client library cannot read is hidden whole.
    """
    if _DATABASE_URL.match(text):
        return _redact_database_url(text)
    shown = _PARAMETER_WITHIN.sub(_hidden_parameter, _URL_PASSWORD.sub(rf"\g<1>:{HIDDEN}@", text))
    return _PARAMETER_PASSWORD.sub(rf"\g<1>{HIDDEN}", shown)


def secrets_of_url(url: str) -> list[str]:
    """The passwords that PostgreSQL's client library finds in the database's URL."""
    return [value for name, value in (parameters_of(url) or {}).items() if is_secret(name)]


def _redact_database_url(url: str) -> str:
    before = parameters_of(url)
    if before is None:
        return HIDDEN
    shown = _PARAMETER.sub(_hidden_parameter, _URL_PASSWORD.sub(rf"\g<1>:{HIDDEN}@", url))
    after = parameters_of(shown) or {}
    # Whatever the patterns overlooked, the library sees.
    expected = {name: value for name, value in before.items() if not is_secret(name)}
    found = {name: value for name, value in after.items() if not (is_secret(name) and value == HIDDEN)}
    return shown if found == expected else HIDDEN


def _hidden_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={HIDDEN}" if is_secret(unquote(found[1])) else found[0]
