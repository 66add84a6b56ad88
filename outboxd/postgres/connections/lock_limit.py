"""A limit on lock waits that a statement brings along.

Behind a pooler a session is nobody's own, and a transaction of several statements could be left open by a daemon that
freezes in between. So the limit is set by the statement itself, for its own transaction: PostgreSQL looks at it when
a wait begins.
"""

from __future__ import annotations

LIMITED = "(SELECT set_config('lock_timeout', %(lock_timeout)s, true)) AS limited"
"""A part of `FROM`: what is locked is locked after it."""


def milliseconds(seconds: float) -> str:
    """Return the limit as PostgreSQL reads it."""
    return f"{max(1, round(seconds * 1000))}ms"
