"""The database's URL as PostgreSQL's client library reads it, which alone decides what in it is a password."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_DRIVER = re.compile(r"^postgres(?:ql)?\+psycopg://")
# What follows `user:password@`, up to the parameters.
_PLACE = re.compile(r"^[^:]*://(?:[^@/]*@)?([^?]*)")


def parameters_of(url: str) -> Mapping[str, str] | None:
    """What the library makes of `url`: parameter → value. None where it cannot read it, or reads a part of an unquoted
    password as the host, the port or the database.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        found = {name: str(value) for name, value in conninfo_to_dict(_DRIVER.sub("postgresql://", url)).items()}
    except (psycopg.Error, ValueError):
        # ValueError: what is no UTF-8.
        return None
    place = _PLACE.match(url)
    ports = [port for port in found.get("port", "").split(",") if port]
    if (place is not None and "@" in place[1]) or not all(port.isdecimal() for port in ports):
        return None
    return found


def url_problem(url: str) -> str | None:
    """What is wrong with a URL of the right form; None when the library can use it. Repeats nothing of the URL."""
    if url.startswith("postgres+"):
        return "of a scheme that PostgreSQL's client library does not know"
    if parameters_of(url) is None:
        return (
            "nothing that PostgreSQL's client library can read: look at the port, at the parameters' names, and at "
            "special characters in names and password, which are written as %XX"
        )
    return None
