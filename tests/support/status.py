"""What a running daemon says of itself at `/status`."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable


def held_by(port: int) -> Callable[[], dict[int, tuple[str, str | None]]]:
    """What the daemon says it holds: id, state and key."""

    def held() -> dict[int, tuple[str, str | None]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
            relay = json.load(answer)["relay"]
        return {each["outbox_id"]: (each["state"], each["key"]) for each in relay["held"]}

    return held
