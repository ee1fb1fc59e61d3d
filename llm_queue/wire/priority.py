"""What callers say about their hurry, as the name of a lane, and the other way round.

A bare integer is ambiguous in the field: the lower goes first in vLLM and HAProxy, the higher in SGLang and llama-swap.
So a negative one gains, as in vLLM, and no number is ever punished.
"""

from __future__ import annotations

from typing import Final

Scalar = bool | int | float | str | None

INTERACTIVE: Final = "interactive"
NORMAL: Final = "normal"
BACKGROUND: Final = "background"

_LANES: Final = {lane: lane for lane in (INTERACTIVE, NORMAL, BACKGROUND)}
_TIERS: Final = {
    "priority": INTERACTIVE,
    "fast": INTERACTIVE,
    "auto": NORMAL,
    "default": NORMAL,
    "scale": NORMAL,
    "flex": BACKGROUND,
}


def lane_name(header: str | None, priority: Scalar, service_tier: str | None) -> tuple[str, bool]:
    """The lane that a caller asks for, and whether what it said is unknown.

    The header ``X-LLM-Queue-Lane`` decides if it is there, else ``priority`` of the body, else OpenAI's
    ``service_tier``. An unknown value is never an error: it means normal, and is worth counting.
    """
    if header is not None and header.strip():
        return _known(_LANES, header)
    match priority:
        case None:
            return (NORMAL, False) if service_tier is None else _known(_TIERS, service_tier)
        case bool():  # before int, which every bool is as well
            return (INTERACTIVE if priority else NORMAL), False
        case str():
            return _known(_LANES, priority)
        case float() if not priority.is_integer():
            return NORMAL, True
        case _:
            return (INTERACTIVE if priority < 0 else NORMAL), False


def tier_name(lane: str) -> str:
    """The ``service_tier`` that says in OpenAI's words which lane served a request."""
    return {INTERACTIVE: "priority", BACKGROUND: "flex"}.get(lane, "default")


def _known(names: dict[str, str], said: str) -> tuple[str, bool]:
    lane = names.get(said.strip().lower())
    return (NORMAL, True) if lane is None else (lane, False)
