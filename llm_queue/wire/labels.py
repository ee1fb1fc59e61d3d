"""What of a request begins its prompt, and what of that stays the same from one step of a conversation to the next.

Only pieces are handed out, in the order in which templates put them; what is kept of them is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Final

import msgspec

from llm_queue.wire.shapes import ChatRequest, Message, Request, TextRequest

SYSTEM_ROLES: Final = ("system", "developer")


def fixed_beginning(request: Request) -> Iterator[str]:
    """The texts that a program sends unchanged with each step: what the system says at the beginning, then the tools.

    Never what a person says. Nothing for vectors and loads, whose work no cache of prompts shortens.
    """
    match request:
        case ChatRequest():
            for message in takewhile(_of_system, request.messages):
                yield message.content
            for tool in request.tools:
                yield msgspec.json.encode(tool).decode()
        case TextRequest():
            yield from (text for text in (request.system, request.template) if text)
        case _:
            return


def what_follows(request: Request) -> Iterator[str]:
    """The rest of the prompt: what was said since, in its order. Pictures are left out."""
    match request:
        case ChatRequest():
            begun = sum(1 for _ in takewhile(_of_system, request.messages))
            for message in request.messages[begun:]:
                yield message.role
                yield message.thinking or ""
                yield message.content
                for call in message.tool_calls:
                    yield call.name
                    yield call.arguments
        case TextRequest():
            yield request.prompt
        case _:
            return


def _of_system(message: Message) -> bool:
    return message.role in SYSTEM_ROLES
