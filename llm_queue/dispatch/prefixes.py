"""Where a program changed the beginning of its prompt, which makes an engine compute it anew."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from llm_queue.dispatch.fingerprints import FIRST_MARK, MARK

CONVERSATIONS: Final = 512
"""Conversations that are known, by client, model and session; those not heard of for longest are forgotten first."""

PROMPTS: Final = 4
"""Prompts of each: one session has its main conversation, those of subagents, and small calls beside them."""


class Seen(NamedTuple):
    """What is known of a prompt's beginning from earlier ones of the same conversation.

    ``new``: no earlier prompt began as this one, so nothing of it was to be found in a cache. ``changed_at``: it is as
    the most similar earlier one up to the first of these characters, and differs before the second; None where no
    difference is known. Both count what the system says first, then the tools, then what was said.
    """

    new: bool
    changed_at: tuple[int, int] | None = None


class Prefixes:
    """The marks of the last prompts of each conversation, and no text: see :mod:`~llm_queue.dispatch.fingerprints`."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, str], list[bytes]] = OrderedDict()

    def look(self, client: str, model: str, session: str | None, marks: bytes) -> Seen:
        """Compare a prompt that was computed with the earlier ones, and keep its marks."""
        if not marks:
            return Seen(new=True)
        conversation = client, model, session or ""
        prompts = self._known.setdefault(conversation, [])
        self._known.move_to_end(conversation)
        if len(self._known) > CONVERSATIONS:
            self._known.popitem(last=False)
        like = max(prompts, key=lambda earlier: _alike(earlier, marks), default=b"")
        alike = _alike(like, marks)
        changed = alike < min(len(like), len(marks)) // MARK
        if alike and not changed:
            prompts.remove(like)  # it goes on with this one
        prompts.append(marks)
        del prompts[:-PROMPTS]
        if not alike:
            return Seen(new=True)
        return Seen(new=False, changed_at=(_characters(alike), _characters(alike + 1)) if changed else None)


def _alike(one: bytes, other: bytes) -> int:
    """How many marks two prompts have in common from the beginning on."""
    most = min(len(one), len(other)) // MARK
    return next((at for at in range(most) if one[at * MARK :][:MARK] != other[at * MARK :][:MARK]), most)


def _characters(marks: int) -> int:
    """Up to which character the first ``marks`` marks reach."""
    return FIRST_MARK << (marks - 1)
