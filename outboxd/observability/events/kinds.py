"""What an event is: a stable name, a level, a sentence for people, and the fields that it may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Final, Literal

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class EventKind:
    """One kind of event.

    Attributes:
        name: stable, lower case with underscores.
        level: how severe it is.
        sentence: what a person reads; `{field}` stands for a field's value.
        fields: the fields that it may have, in order.
        alerts: whether `alerts.command` is told.
        ends: the event whose end this is; `alerts.command` is told of such a one only after it was told of that, as it
            comes with each start too.
    """

    name: str
    level: Level
    sentence: str
    fields: tuple[str, ...] = ()
    alerts: bool = False
    ends: str = ""

    def message(self, fields: Mapping[str, object]) -> str:
        """The sentence with the values in it; a field that is missing shows as `?`."""
        return _LENIENT.vformat(self.sentence, (), {name: fields.get(name, "?") for name in self.told})

    @property
    def told(self) -> frozenset[str]:
        """The fields whose values stand in the sentence."""
        return frozenset(name for _, name, _, _ in _LENIENT.parse(self.sentence) if name)


_LENIENT: Final = Formatter()
