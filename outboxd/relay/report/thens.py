"""What became of a topic that people were told waits, or is stuck: the events' sentences go on with these words."""

from __future__ import annotations

from typing import Final

GOES_ON: Final = "goes on"
MOVES: Final = "moves again"
GOES_ON_BY_ANOTHER: Final = "goes on with another producer"
LEFT: Final = "is left to the next owner, which tries it anew"
