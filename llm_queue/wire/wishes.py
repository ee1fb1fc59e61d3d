"""What a caller wants of the line itself: how urgent it is, how large a context, how long it will wait.

A caller says it by headers in every dialect, and by fields of the body where its dialect has them. Headers win.

A bare integer as priority is ambiguous in the field: the lower goes first in vLLM and HAProxy, the higher in SGLang and
llama-swap. So a negative one gains, as in vLLM, and no number is ever punished.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire.fields import Scalar

INTERACTIVE: Final = "interactive"
NORMAL: Final = "normal"
BACKGROUND: Final = "background"

LONGEST_SESSION: Final = 200
"""Characters of a session's name that are kept: as many as any SDK's own ids have. So of a key to supersede by."""

SESSION_HEADERS: Final[tuple[tuple[str, ...], ...]] = (
    ("x-llm-queue-session",),
    ("x-claude-code-session-id", "x-claude-code-agent-id"),
    ("session-id", "thread-id"),
    ("session_id",),
    ("x-session-affinity",),
    ("x-session-id",),
    ("x-openwebui-chat-id",),
)
"""Headers that name a conversation, the first row that says something counts: our own, then those that programs send by
themselves, whatever dialect they speak: Claude Code, Codex (now, and before), opencode (likewise) and Open WebUI.
Where a row has two, the second tells the agents of one session apart, and both together are the name.
"""

_LANES: Final = {lane: lane for lane in (INTERACTIVE, NORMAL, BACKGROUND)}
_TIERS: Final = {
    "priority": INTERACTIVE,
    "fast": INTERACTIVE,
    "ultrafast": INTERACTIVE,
    "auto": NORMAL,
    "standard_only": NORMAL,
    "default": NORMAL,
    "scale": NORMAL,
    "flex": BACKGROUND,
}


class Wishes(msgspec.Struct, frozen=True):
    """What one request says to the line; None where it says nothing.

    ``lane`` is the name of a lane, and ``unknown_lane`` is true if the caller named one that does not exist.
    ``num_ctx`` is a context size in tokens, ``max_wait`` the longest wait in seconds, ``session`` the caller's name for
    the conversation that the request belongs to. ``dropped`` names fields that were given and have no effect.
    ``supersede`` is the caller's key for requests of which only the newest is worth an answer.
    """

    lane: str | None = None
    unknown_lane: bool = False
    num_ctx: int | None = None
    max_wait: float | None = None
    session: str | None = None
    dropped: tuple[str, ...] = ()
    supersede: str | None = None

    def over(self, other: Wishes) -> Wishes:
        """These wishes, and those of ``other`` where these say nothing."""
        lane = other if self.lane is None else self
        return Wishes(
            lane=lane.lane,
            unknown_lane=lane.unknown_lane,
            num_ctx=other.num_ctx if self.num_ctx is None else self.num_ctx,
            max_wait=other.max_wait if self.max_wait is None else self.max_wait,
            session=other.session if self.session is None else self.session,
            dropped=self.dropped + other.dropped,
            supersede=other.supersede if self.supersede is None else self.supersede,
        )


NO_WISHES: Final = Wishes()


class Headers(Protocol):
    """The headers of a request."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Each header's name, in whatever case it came, and its value."""


def from_headers(headers: Headers, num_ctx_ceiling: int) -> Wishes:
    """The wishes in a request's headers, which are the same in every dialect. Of a header that is there twice, the
    first counts.

    Raises :class:`~llm_queue.errors.BadRequest`, with the header's name as its ``param``, for a number that is none.
    """
    given: dict[str, str] = {}
    for name, value in headers.items():
        given.setdefault(name.lower(), value)
    lane = given.get("x-llm-queue-lane")
    wanted = named_lane(lane) if lane is not None and lane.strip() else Wishes()
    return msgspec.structs.replace(
        wanted,
        num_ctx=_num_ctx(given.get("x-llm-queue-num-ctx"), num_ctx_ceiling),
        max_wait=_max_wait(given.get("x-llm-queue-max-wait")),
        session=next(filter(None, (_session(given, row) for row in SESSION_HEADERS)), None),
        supersede=session_name(given.get("x-llm-queue-supersede", "")),
    )


def from_body(priority: Scalar, service_tier: Scalar) -> Wishes:
    """The lane in a body's ``priority``, or else in OpenAI's ``service_tier``.

    An unknown value is never an error: it means normal, and is worth counting.
    """
    match priority:
        case None:
            return Wishes() if service_tier is None else _known(_TIERS, str(service_tier))
        case bool():  # before int, which every bool is as well
            return Wishes(lane=INTERACTIVE if priority else NORMAL)
        case str():
            return named_lane(priority)
        case float() if not priority.is_integer():
            return Wishes(lane=NORMAL, unknown_lane=True)
        case _:
            return Wishes(lane=INTERACTIVE if priority < 0 else NORMAL)


def named_lane(name: str) -> Wishes:
    """The wish for the lane of that name."""
    return _known(_LANES, name)


def session_name(said: str) -> str | None:
    """A session's name as it is kept: at most :data:`LONGEST_SESSION` characters; None for an empty one."""
    return said.strip()[:LONGEST_SESSION] or None


def tier_name(lane: str) -> str:
    """The ``service_tier`` that says in OpenAI's words which lane served a request."""
    return {INTERACTIVE: "priority", BACKGROUND: "flex"}.get(lane, "default")


def bad_num_ctx(field: str, ceiling: int) -> BadRequest:
    """The error for a context size that cannot be had, in the field or header ``field``."""
    return BadRequest(f"{field} takes a whole number of tokens from 1 to {ceiling}.", param=field)


def _known(names: dict[str, str], said: str) -> Wishes:
    lane = names.get(said.strip().lower())
    return Wishes(lane=lane or NORMAL, unknown_lane=lane is None)


def _session(given: dict[str, str], row: tuple[str, ...]) -> str | None:
    said = (session_name(given[name]) for name in row if name in given)
    return " ".join(name for name in said if name) or None


def _num_ctx(said: str | None, ceiling: int) -> int | None:
    if said is None:
        return None
    digits = said.strip()
    # No number of more digits than the ceiling is read: Python refuses thousands of them with an error of its own.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20 and 1 <= int(digits) <= ceiling):
        raise bad_num_ctx("X-LLM-Queue-Num-Ctx", ceiling)
    return int(digits)


def _max_wait(said: str | None) -> float | None:
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise BadRequest("X-LLM-Queue-Max-Wait takes seconds, 0 or more.", param="X-LLM-Queue-Max-Wait")
    return seconds
