"""What every section of the configuration is made of: settings with their kinds, and what does not go together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from outboxd.config.kind import AS_GIVEN, Kind
from outboxd.config.kinds import Duration
from outboxd.config.redaction import redact


def option(default: object, sentence: str) -> Any:
    """A setting with its default (typed: seconds, bytes) and the sentence that describes it everywhere."""
    return Field(default=default, description=sentence)


@dataclass(frozen=True)
class Contradiction:
    """Settings that are fine alone and not together: `key` is the one to point at, the `others` are those with which it
    does not go.
    """

    key: str
    problem: str
    others: tuple[str, ...] = ()

    def error(self) -> PydanticCustomError:
        """As pydantic has it."""
        return PydanticCustomError("setting", "{key} {problem}", {"key": self.key, "problem": self.problem})


class Section(BaseModel):
    """A table of the file: frozen, no unknown fields; its repr hides secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: ClassVar[str] = ""

    def contradictions(self) -> Iterator[Contradiction]:
        """What in this section does not go together, by contract names without the section's."""
        return iter(())

    @model_validator(mode="after")
    def _agrees(self, info: ValidationInfo) -> Self:
        # Those of the sources are told by `load`, together with all other mistakes.
        if info.context != AS_GIVEN:
            for found in self.contradictions():
                raise found.error()
        return self

    @classmethod
    def fields_by_key(cls) -> dict[str, tuple[str, FieldInfo]]:
        """Contract name → name of the field and its description, in the order of the file."""
        return {
            name.removesuffix("_seconds") if isinstance(kind_of(info), Duration) else name: (name, info)
            for name, info in cls.model_fields.items()
            if kind_of(info) is not None
        }

    def plain(self) -> dict[str, object]:
        """Contract name → value as TOML would hold it, secrets hidden."""
        shown: dict[str, object] = {}
        for key, (name, info) in self.fields_by_key().items():
            value, kind = getattr(self, name), kind_of(info)
            if kind is not None and value is not None:
                shown[key] = redact(key, kind.plain(value))
        return shown

    def __repr_args__(self) -> Any:
        """What repr and str show: fields, secrets hidden."""
        return [(name, redact(name or "", value)) for name, value in super().__repr_args__()]


def kind_of(info: FieldInfo) -> Kind | None:
    """The kind of a setting's values; None for a field that is no setting of its own."""
    return next((each for each in info.metadata if isinstance(each, Kind)), None)
