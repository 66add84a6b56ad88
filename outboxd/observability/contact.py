"""The daemon's contact with a server, as everybody may know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Contact:
    """Whether a server answers; `cause` says why not, `refuses` whether it does and only refuses to write what became
    of rows. None: nobody tried yet.
    """

    answers: bool | None = None
    cause: str = ""
    since: float = 0.0
    refuses: bool = False

    @property
    def is_up(self) -> bool:
        """Whether it answered the last time that somebody tried."""
        return self.answers is True

    @property
    def trouble(self) -> str:
        """What ails it, as what follows its name."""
        return "refuses to settle rows that were sent" if self.refuses else "does not answer"


NOT_ASKED: Final = Contact()
"""Nobody tried yet."""
