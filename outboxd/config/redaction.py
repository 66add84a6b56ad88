"""Keeps secrets out of everything that is shown: `config show`, errors, logs, status."""

from __future__ import annotations

import re

HIDDEN = "********"

# Names whose value is a secret. A key that ends in `_file` names a path, which is none.
_SECRET_NAME = re.compile(
    r"password|passphrase|secret|jaas|(^|[._])token$|\.pem$|oauthbearer\.config$|\.key\.data$", re.IGNORECASE
)
# `user:password@` of a URL, and a password among a URL's parameters or in a connection string.
_URL_PASSWORD = re.compile(r"(?<=://)([^:/?#\s]*):[^/?#\s]*@")
_PARAMETER_PASSWORD = re.compile(r"((?:ssl)?password=)(?:'[^']*'|[^&\s]*)", re.IGNORECASE)


def is_secret(key: str) -> bool:
    """Whether the value of the setting or librdkafka property `key` must not be shown."""
    return not key.endswith("_file") and _SECRET_NAME.search(key) is not None


def redact(key: str, value: object) -> object:
    """`value` of the setting `key` as it may be shown: secrets hidden, passwords within URLs too; empty stays empty."""
    if value in ("", None):
        return value
    if is_secret(key):
        return HIDDEN
    return redact_url(value) if isinstance(value, str) else value


def redact_url(text: str) -> str:
    """`text` with the passwords of any URL or connection string in it hidden."""
    return _PARAMETER_PASSWORD.sub(rf"\g<1>{HIDDEN}", _URL_PASSWORD.sub(rf"\g<1>:{HIDDEN}@", text))
