"""Wanted: what waits to be read again, in the order in which that came up. Pure state.

What is of a held topic stays wanted without being asked for, for as long as the topic is held. So the entries of each
topic are counted: whether any may be asked for is known without a look at all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Wanted(Generic[T]):
    """An ordered set; each entry is of a topic."""

    def __init__(self) -> None:
        """Start with nothing wanted."""
        self._topics: dict[T, str] = {}
        """By entry, oldest wish first."""
        self._counts: dict[str, int] = {}

    def __iter__(self) -> Iterator[T]:
        """Go through the entries, oldest wish first."""
        return iter(self._topics)

    def add(self, entry: T, topic: str) -> None:
        """Want the entry; one that is wanted already keeps its place."""
        if entry not in self._topics:
            self._topics[entry] = topic
            self._counts[topic] = self._counts.get(topic, 0) + 1

    def discard(self, entry: T) -> None:
        """Want the entry no more, where it was wanted."""
        topic = self._topics.pop(entry, None)
        if topic is None:
            return
        self._counts[topic] -= 1
        if not self._counts[topic]:
            del self._counts[topic]

    def put_last(self, entry: T) -> None:
        """Have the others looked at before this wanted entry."""
        self._topics[entry] = self._topics.pop(entry)

    def are_open(self, closed: AbstractSet[str]) -> bool:
        """Say whether any entry is of a topic that is not `closed`."""
        return not self._counts.keys() <= closed
