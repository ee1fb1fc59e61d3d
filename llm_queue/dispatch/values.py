"""What can be asked of the line is made of frozen values, and this is their kind."""

from __future__ import annotations

from typing import Any

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A struct whose fields can be written as JSON; seconds are rounded to milliseconds."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float):
                msgspec.structs.force_setattr(self, name, round(value, 3))

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, without those that do not apply."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields
