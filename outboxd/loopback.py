"""Whether an address is this machine only: what may be listened on, and read, without a token hangs on it."""

from __future__ import annotations


def is_loopback(host: str) -> bool:
    """Say whether the name or address is this machine only.

    Of names only `localhost` is (RFC 6761): what others lead to is the resolver's to say, and so may be elsewhere.
    """
    import ipaddress  # Most commands never ask.

    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
