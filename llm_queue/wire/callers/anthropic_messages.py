"""From Anthropic's turns to our messages.

What differs most: the system's words stand beside the turns, and some programs put more of them anywhere among these;
results of tools are blocks of the user's turn; and thoughts, text and calls of an answer are blocks in a row.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire.callers import anthropic_shapes as shapes
from llm_queue.wire.callers.anthropic_content import SEPARATOR, Said, blocks, join, said_by, said_in
from llm_queue.wire.shapes import Message, ToolCall
from llm_queue.wire.strict_json import part

ROLES: Final = ("user", "assistant", "system")

_BILLING: Final = re.compile(r"\A\s*x-anthropic-billing-header:[^\n]*\n?")
_FAILED: Final = "Error"


class Conversation:
    """The messages of one request.

    All that the system says becomes one message at the beginning, in the order in which it came: many chat templates
    refuse a later one. The line that tells Anthropic whom to bill is left out: it differs in each conversation, and no
    prompt would begin as another does.
    """

    def __init__(self, body: shapes.MessagesBody) -> None:
        """Raises :class:`~llm_queue.errors.BadRequest` with the field that is wrong."""
        self.skipped: list[str] = []
        """Types of blocks that were left out: only those of earlier answers are."""
        self._system: list[str] = []
        self._turns: list[Message] = []
        self._called: dict[str, str] = {}  # id of a call to the name of its tool, which results do not repeat
        if body.system is not None:
            self._add_system(body.system, "system")
        if not body.messages:  # llama.cpp takes that, and would say something; for Ollama it would be a load
            self._turns.append(Message("user", ""))
        for index, turn in enumerate(body.messages):
            place = f"messages[{index}]"
            match turn.role:
                case "user":
                    self._add_user(turn.content, f"{place}.content")
                case "assistant":
                    self._add_assistant(turn.content, f"{place}.content")
                case "system":
                    self._add_system(turn.content, f"{place}.content")
                case _:
                    field = f"{place}.role"
                    raise BadRequest(f"{field}: unknown; it is one of {', '.join(ROLES)}.", param=field)

    @property
    def messages(self) -> tuple[Message, ...]:
        """All of them. Raises :class:`~llm_queue.errors.BadRequest` if nothing is said in any."""
        system = (Message("system", SEPARATOR.join(self._system)),) if self._system else ()
        if not self._turns and not system:
            raise BadRequest("messages: there is nothing in them to answer.", param="messages")
        return (*system, *self._turns)

    def _add_system(self, content: shapes.Content, place: str) -> None:
        if isinstance(content, str):
            texts = [content]
        else:
            texts = [_system_text(kind, raw, field) for kind, raw, field in blocks(content, place)]
        left = [_BILLING.sub("", text) for text in texts]
        self._system += [text for text in left if text]

    def _add_user(self, content: shapes.Content, place: str) -> None:
        """Results of tools go before what the user says in the same turn, and need no message of the user's beside."""
        if isinstance(content, str):
            self._turns.append(Message("user", content))
            return
        said: list[Said] = []
        results: list[Message] = []
        for kind, raw, field in blocks(content, place):
            if kind == "tool_result":
                results.append(self._result(raw, field))
            else:
                said.append(said_by(kind, raw, field))
        self._turns += results
        text, images = join(said)
        if text or images or not results:
            self._turns.append(Message("user", text, images))

    def _result(self, raw: msgspec.Raw, field: str) -> Message:
        result = part(raw, shapes.TOOL_RESULT, field)
        text, images = said_in(result.content or "", f"{field}.content")
        if result.is_error:  # there is no other place to say it
            text = f"{_FAILED}: {text}" if text else _FAILED
        name = self._called.get(result.tool_use_id or "")
        return Message("tool", text, images, tool_call_id=result.tool_use_id, tool_name=name)

    def _add_assistant(self, content: shapes.Content, place: str) -> None:
        """An answer is what the model said in one go: texts are joined without anything between them."""
        if isinstance(content, str):
            self._turns.append(Message("assistant", content))
            return
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[ToolCall] = []
        for kind, raw, field in blocks(content, place):
            match kind:
                case "text":
                    texts.append(part(raw, shapes.TEXT, field).text)
                case "thinking":
                    thoughts.append(part(raw, shapes.THINKING, field).thinking)
                case "tool_use":
                    calls.append(self._call(part(raw, shapes.TOOL_USE, field), field))
                case _:  # echoed as it came from a server that runs tools, or thinks in secret
                    self.skipped.append(kind)
        if texts or thoughts or calls:
            thinking = SEPARATOR.join(thoughts) if thoughts else None
            self._turns.append(Message("assistant", "".join(texts), thinking=thinking, tool_calls=tuple(calls)))

    def _call(self, call: shapes.ToolUse, field: str) -> ToolCall:
        arguments = bytes(call.input).decode()
        if arguments[:1] not in ("{", "n", ""):
            raise BadRequest(f"{field}.input: Expected an object.", param=f"{field}.input")
        if call.id:
            self._called[call.id] = call.name
        return ToolCall(call.name, arguments if arguments[:1] == "{" else "{}", call.id)


def _system_text(kind: str, raw: msgspec.Raw, field: str) -> str:
    """Raises :class:`~llm_queue.errors.BadRequest` for images: no model's template has a place for them there."""
    said = said_by(kind, raw, field)
    if said.images:
        raise BadRequest(f"{field}: the system says no images; send them in a turn of the user's.", param=field)
    return said.text
