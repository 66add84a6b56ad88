"""What every kind of value is: how it is read from TOML and from text, bounded, described and shown.

A kind stands in a field's `Annotated[...]` and is its pydantic validator. Values come in three ways, and each is taken
strictly as what it is: from TOML (an integer is an integer, a duration is a string), from places that have only text
(the environment, flags, credentials: `Textual`), and from code (already of the field's type).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError, core_schema

from outboxd.config.redaction import redact_url

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, ValidationInfo

#: The validation context that says: values are as the sources gave them.
AS_GIVEN = "as given"


class Textual(str):
    """A value from a place that has only text; the setting's kind turns it into the right type."""

    __slots__ = ()


class Kind(ABC):
    """How one kind of value is read, bounded, described and shown."""

    @property
    @abstractmethod
    def allowed(self) -> str:
        """What is allowed, as the end of a sentence that begins with "allowed: "."""

    @property
    def unit(self) -> str:
        """The unit, or what takes its place, for the shipped file."""
        return self.allowed

    @abstractmethod
    def from_toml(self, value: object) -> Any:
        """The typed value of what TOML gave; ValueError with the problem when it is of another type."""

    def from_text(self, text: str) -> Any:
        """The typed value of a text; ValueError with the problem."""
        return self.from_toml(text)

    @abstractmethod
    def check(self, value: Any) -> Any:
        """The typed value when it is within bounds; ValueError with the problem otherwise."""

    def plain(self, value: Any) -> object:
        """The value as TOML or JSON would hold it."""
        return value

    def show(self, value: object) -> str:
        """The problem value as an error quotes it."""
        return redact_url(repr(value))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Pydantic's hook: this kind is the field's only validator."""
        return core_schema.with_info_plain_validator_function(self._validate)

    def _validate(self, value: Any, info: ValidationInfo) -> Any:
        try:
            if isinstance(value, Textual):
                return self.check(self.from_text(str(value)))
            if info.context == AS_GIVEN:
                return self.check(self.from_toml(value))
            return self.check(value)
        except ValueError as error:
            problem = f"{self.show(value)} is {error}; allowed: {self.allowed}"
            raise PydanticCustomError("setting", "{problem}", {"problem": problem}) from None
