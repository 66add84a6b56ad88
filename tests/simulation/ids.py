"""How rows of the outbox get their ids: by a sequence, which may be set back, or by who names one."""

from __future__ import annotations

from collections.abc import Iterable


class Ids:
    """The sequence. `highest` is the highest id that was ever given, unless the database went back before that."""

    def __init__(self, begin_after: int) -> None:
        self.last = begin_after
        self.highest = begin_after
        self._again: list[int] = []
        self._given_again: set[int] = set()
        self._named: set[int] = set()

    def draw(self) -> int:
        if self._again:
            self._given_again.add(self._again[-1])
            return self._again.pop()
        self.last += 1
        while self.last in self._named:
            # An application whose row is refused tries the next one.
            self.last += 1
        self.highest = max(self.highest, self.last)
        return self.last

    def name(self, row_id: int) -> int:
        """An application gives a row this id, which is above all that were given."""
        self._named.add(row_id)
        self.highest = max(self.highest, row_id)
        return row_id

    def set_back(self, free: Iterable[int]) -> None:
        """The sequence gives these once more, from the lowest on, but none a third time. All others below are taken,
        which an application finds out and tries the next one.
        """
        self._again = sorted(set(free) - self._given_again, reverse=True)

    def is_below(self, row_id: int) -> bool:
        """Say whether it, or a higher id, was given before: reading may be past it."""
        return row_id < self.highest or row_id in self._given_again

    def go_back(self, last: int, there: Iterable[int], *, is_noticed: bool) -> None:
        """The database went back to where `last` was given last; `there` are the ids that it has.

        Where that `is_noticed`, all is read anew. Else what is given again may be known by its id as another row.
        """
        self.last = last
        self.highest = max([last, *there]) if is_noticed else self.highest + 1
        self._again.clear()
