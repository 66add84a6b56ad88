"""The database's URL as PostgreSQL's client library reads it, which alone decides what in it is a password."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PORT_MAX: Final = 65_535

_DRIVER = re.compile(r"^postgres(?:ql)?\+psycopg://")
# What follows `user:password@`, up to the parameters.
_PLACE = re.compile(r"^[^:]*://(?:[^@/]*@)?([^?]*)")
_WHOLE_NUMBERS = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
# The one word that the library judges by the kind of the server's address too.
_GSS_MODES = ("disable", "prefer", "require")
# How the library begins when the parameters are to blame; anything else it says is of the machine or of a server.
_MISUSE = ("invalid ", "definition of service ", "syntax error in service file ", "weak sslmode ", "require_auth ",
           "negative require_auth ")  # fmt: skip
_QUOTED = re.compile(r':? "([^"]*)"')


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
    """What is wrong with a URL of the right form; None when the library can use it. Repeats no value of the URL."""
    if url.startswith("postgres+"):
        return "of a scheme that PostgreSQL's client library does not know"
    found = parameters_of(url)
    if found is None:
        return (
            "nothing that PostgreSQL's client library can read: look at the port, at the parameters' names, and at "
            "special characters in names and password, which are written as %XX"
        )
    problems = [*_unusable_numbers(found), *_unusable_addresses(found), *_refused_values(found)]
    return f"nothing that PostgreSQL's client library can use: {'; '.join(problems)}" if problems else None


def _unusable_numbers(found: Mapping[str, str]) -> Iterator[str]:
    """What is only read when a connection is made: the ports, seconds and counts."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import timeout_from_conninfo

    ports = [port for port in found.get("port", "").split(",") if port]
    if not all(re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= PORT_MAX for port in ports):
        yield f"a port is none of 1 to {PORT_MAX}"
    try:
        # The one that the driver reads, not the library.
        timeout_from_conninfo({"connect_timeout": found.get("connect_timeout", "0")})
    except (ProgrammingError, OverflowError):
        yield "connect_timeout is no number of seconds"
    for name in _WHOLE_NUMBERS:
        if name in found and not re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", found[name], re.ASCII):
            yield f"{name} is no whole number"


def _unusable_addresses(found: Mapping[str, str]) -> Iterator[str]:
    hosts, addresses, ports = (found[name].split(",") if name in found else [] for name in ("host", "hostaddr", "port"))
    if not all(_is_address(address) for address in addresses if address):
        yield "hostaddr is no address in numbers"
    if hosts and addresses and len(hosts) != len(addresses):
        yield "host and hostaddr list unequally many"
    if len(ports) > 1 and len(ports) != len(addresses or hosts or [""]):
        yield "there are neither as many ports as hosts nor one for all"
    # The library goes to this one whatever host the URL names.
    variable = "" if "hostaddr" in found else os.environ.get("PGHOSTADDR", "")
    if not all(_is_address(address) for address in variable.split(",") if address):
        yield _of_environment("PGHOSTADDR", "no address in numbers")


def _is_address(text: str) -> bool:
    try:
        # What asks no name server, as the library does.
        socket.getaddrinfo(text, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def _of_environment(variable: str, words: str) -> str:
    return f"the environment's {variable}: {words}"


def _refused_values(found: Mapping[str, str]) -> Iterator[str]:
    """What the library itself says of words such as those of `sslmode`, before it looks for a server."""
    rest = {name: value for name, value in found.items() if name not in ("host", "hostaddr", "port", "gssencmode")}
    if "port" in found:
        # Judged above; in its place the environment's would be.
        rest["port"] = "5432"
    if found.get("gssencmode", "prefer") not in _GSS_MODES:
        yield "invalid gssencmode value"
    elif "gssencmode" not in found and os.environ.get("PGGSSENCMODE", "prefer") not in _GSS_MODES:
        yield _of_environment("PGGSSENCMODE", "invalid gssencmode value")
    said = _refusal(rest)
    if not said:
        return
    variable = _variable_to_blame(said, rest)
    if variable is not None:
        yield _of_environment(variable, said)
        return
    values = "\n".join(rest.values())
    whole = said if '"' not in values else said.partition('"')[0].rstrip(" :")
    yield _QUOTED.sub(lambda quote: "" if quote[1] in values else quote[0], whole)


def _refusal(parameters: Mapping[str, str]) -> str:
    """What the library says against these parameters, and what the environment adds to them; "" where it takes them."""
    from psycopg import Error, pq
    from psycopg.conninfo import make_conninfo

    # Which server is meant matters not: the library judges first, and then finds that there is no socket here. Without
    # an empty address it would go to that of the environment.
    nowhere = {"host": "/dev/null", "hostaddr": "", "gssencmode": "disable"}
    try:
        connection = pq.PGconn.connect_start(make_conninfo("", **{**parameters, **nowhere}).encode())
    except Error:
        return ""
    said = connection.get_error_message().strip()
    connection.finish()
    return said if said.startswith(_MISUSE) else ""


def _variable_to_blame(said: str, parameters: Mapping[str, str]) -> str | None:
    """The variable of the environment without which the library would say something else; None: it is the URL's own."""
    from psycopg import pq

    for option in pq.Conninfo.get_defaults():
        variable, name = (option.envvar or b"").decode(), option.keyword.decode()
        if variable not in os.environ or name in parameters:
            continue
        if _refusal({**parameters, name: (option.compiled or b"").decode()}) != said:
            return variable
    return None
