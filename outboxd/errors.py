"""The one tree of errors that outboxd raises on purpose, each with the exit code that a shell sees.

The codes are those of sysexits.h where it has one. A message says what is wrong, where, and what to do about it; the
command line prints it as it is, without a traceback.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69
EXIT_BUG = 70
EXIT_FENCED = 75
EXIT_PERMISSION = 77
EXIT_CONFIG = 78


class OutboxdError(Exception):
    """Root of the tree. `exit_code` is what the process ends with when nobody handles the error."""

    exit_code: ClassVar[int] = EXIT_BUG


class UsageError(OutboxdError):
    """The command line asks for something that cannot be done as asked."""

    exit_code = EXIT_USAGE


class UnavailableError(OutboxdError):
    """A server that is needed does not answer, or not in time."""

    exit_code = EXIT_UNAVAILABLE


class DatabaseUnavailableError(UnavailableError):
    """PostgreSQL cannot be reached, is starting, shutting down, or is a read-only standby."""


class BrokerUnavailableError(UnavailableError):
    """No Kafka broker answers."""


class ThreadsError(UnavailableError):
    """The system lets this process start no thread."""

    def __init__(self, cause: str) -> None:
        """`cause` is what Python or a library says of it."""
        super().__init__(
            f"no thread can be started ({cause}): look at the limit of tasks (TasksMax of the service, ulimit -u), at "
            "memory, and at what else runs here"
        )


class BugError(OutboxdError):
    """Something that must never happen did happen; says which invariant broke."""


class FencedError(OutboxdError):
    """A rival took the lease while this daemon held it, too often to be an accident."""

    exit_code = EXIT_FENCED


class AccessDeniedError(OutboxdError):
    """PostgreSQL or Kafka refuses what the daemon needs to do: a grant or an ACL is missing."""

    exit_code = EXIT_PERMISSION


class ConfigError(OutboxdError):
    """The configuration cannot be used; the message lists every mistake with its place."""

    exit_code = EXIT_CONFIG


class SchemaError(ConfigError):
    """The tables are missing or of another revision than this version needs; says to run `outboxd migrate`."""


def threads_error(error: Exception) -> ThreadsError | None:
    """The error of ours that Python means by this one where no thread can be started; None where it means another."""
    is_it = isinstance(error, RuntimeError) and str(error) == "can't start new thread"
    return ThreadsError(str(error)) if is_it else None
