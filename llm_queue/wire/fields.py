"""Types of fields that several dialects have, and how a field of any type is read."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw

Scalar = bool | int | float | str | None

# msgspec reads integers of any length; Ollama's are Go's, of 64 bits.
Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]
# Names stand in logs and messages, and are remembered after the request. Ollama's own are shorter.
Name = Annotated[str, Meta(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]

_SCALAR: Final[msgspec.json.Decoder[Scalar]] = msgspec.json.Decoder(Scalar)


def scalar(raw: Raw) -> Scalar:
    """The single value that a field of any type has; its JSON text where it is no single one."""
    text = bytes(raw)
    if not text:
        return None
    try:
        return _SCALAR.decode(text)
    except msgspec.DecodeError:  # an array, an object, or a number that no machine holds
        return text.decode()


def stops_of(said: str | list[str] | None) -> tuple[str, ...] | None:
    """The texts at which an answer stops.

    None for an empty list: it means "none of my own", and must not take the model's away.
    """
    return ((said,) if isinstance(said, str) else tuple(said)) if said else None
