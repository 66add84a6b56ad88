"""How large the next transaction may be: what goes through within about a second. Pure; times are arguments.

Below the limits it is the traffic that decides: what gathers while one transaction is under way is the next one, so
it is small and quick when little comes. The limit only matters when much comes: over a slow way it keeps a
transaction far from its time-out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TARGET_SECONDS = 1.0
SLOW_SECONDS = 2.0
ROWS_MIN = 100


@dataclass(slots=True)
class TransactionSize:
    """The limits of the next transaction: `rows` and `size_bytes` stay in proportion to their maxima."""

    rows_max: int
    bytes_max: int
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        """Begin with all that is allowed."""
        self.rows = self.rows_max

    @property
    def size_bytes(self) -> int:
        """How many bytes the next one may have."""
        return max(1, self.bytes_max * self.rows // self.rows_max)

    def took(self, seconds: float) -> None:
        """A transaction took so long: smaller ones follow where that was too long, else larger ones."""
        if seconds > SLOW_SECONDS:
            smaller = round(self.rows * TARGET_SECONDS / seconds)
            self.rows = min(self.rows_max, max(ROWS_MIN, smaller))
        elif seconds < TARGET_SECONDS and self.rows < self.rows_max:
            self.rows = min(self.rows_max, self.rows * 2)
