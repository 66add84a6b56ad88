"""A daemon whose records of few keys go together, and what it says of how many did."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

from tests.support.children import free_ports, wait_for
from tests.support.daemon import Section
from tests.support.rig import Rig


class Chained:
    """One daemon of a rig, with its metrics."""

    def __init__(self, rig: Rig, *routes: Section, **sections: Section) -> None:
        """It is not started yet. `routes` and `sections` are its own."""
        (self._port,) = free_ports(1)
        self._rig = rig
        self.daemon = rig.daemon(routes, http={"listen": f"127.0.0.1:{self._port}"}, **sections)

    def rows(self) -> int:
        """How many records went together by now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
            found = re.search(r"(?m)^outboxd_chained_records_total (\S+)$", answer.read().decode())
        assert found is not None
        return int(float(found[1]))

    def status(self) -> dict[str, Any]:
        """What the daemon says of its relay at `/status`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/status", timeout=5) as answer:
            relay: dict[str, Any] = json.load(answer)["relay"]
        return relay

    def go(self, topic: str, rows: int, *, keys: int) -> None:
        """Start it with nothing to do, commit so many rows of so many keys, and wait until some of them are on their
        way together.
        """
        self.daemon.start()
        self.daemon.wait_for_event("owner")
        self._rig.insert(topic, "key-0")
        self._rig.wait_until_settled()
        before = self.rows()
        self._rig.insert_many([topic], rows, keys=keys)
        self.wait_until_they_go(before)

    def wait_until_they_go(self, before: int = 0) -> None:
        """Wait until more went together than `before`: count those before the rows are committed, since all of them may
        be through by the time that a busy machine would ask.
        """
        wait_for(lambda: self.rows() > before, timeout_seconds=20, what="records go together", poll_seconds=0.002)
