"""From the input items of the Responses dialect to our messages.

What was one turn of the model comes back as several items: its thoughts, its text, its calls. Those that stand beside
each other become one message again. What the caller only repeats and nobody here understands is skipped, never refused:
a conversation that once had a web search in it must be able to go on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.callers import responses_shapes as shapes
from llm_queue.wire.callers.openai_tools import arguments_of
from llm_queue.wire.callers.responses_parts import Reader
from llm_queue.wire.callers.responses_tools import flat_name
from llm_queue.wire.shapes import Message, ToolCall

ITEM_SEPARATOR: Final = "\n\n"
"""Between texts that were items of their own and become one message."""

ROLES: Final = ("user", "assistant", "system", "developer")

REASONING_ID: Final = "rs_"
"""What the id of a reasoning item begins with, here and at OpenAI."""

SEALED: Final = "llmq1."
"""What a reasoning item's ``encrypted_content`` begins with where it is ours. It hides nothing: it is base64."""

_MESSAGE: Final = msgspec.json.Decoder(shapes.MessageItem)
_CALL: Final = msgspec.json.Decoder(shapes.CallItem)
_CUSTOM_CALL: Final = msgspec.json.Decoder(shapes.CustomCallItem)
_OUTPUT: Final = msgspec.json.Decoder(shapes.OutputItem)
_REFERENCE: Final = msgspec.json.Decoder(shapes.ReferenceItem)
_REASONING: Final = msgspec.json.Decoder(shapes.ReasoningItem)


def messages_of(instructions: str | None, items: str | Iterable[Raw], reader: Reader) -> tuple[Message, ...]:
    """The conversation, with all that the system and the developer said in one message at its beginning.

    Many models' templates take only that one. Raises :class:`~llm_queue.errors.BadRequest` with the field that is
    wrong.
    """
    conversation = _Conversation(reader)
    if isinstance(items, str):
        conversation.say(Message("user", items))
    else:
        for index, raw in enumerate(items):
            conversation.add(raw, f"input[{index}]")
    return conversation.messages(instructions)


def sealed(thinking: str) -> str:
    """A thought as ``encrypted_content``, for a caller that keeps nothing else of it."""
    return SEALED + base64.b64encode(thinking.encode()).decode()


def unsealed(content: str) -> str | None:
    """The thought in an ``encrypted_content`` that we wrote; None for another's."""
    if not content.startswith(SEALED):
        return None
    try:
        return base64.b64decode(content.removeprefix(SEALED), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _arguments(text: str) -> str:
    """The arguments of an earlier call as they came, if they are an object. A call that was cut short has half of one,
    which some engines refuse; it is told as what it was.
    """
    if not text.strip():
        return "{}"
    return text if strict_json.object_in(text) is not None else msgspec.json.encode({"arguments": text}).decode()


class _Turn(Struct):
    """What the model said, thought and called, while nobody else said a word."""

    thoughts: list[str] = []
    said: list[Message] = []
    calls: list[ToolCall] = []


class _Conversation:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._system: list[Message] = []
        self._messages: list[Message] = []
        self._turn = _Turn()
        self._called: dict[str, str] = {}  # id of a call to the name of its function, for the results

    def messages(self, instructions: str | None) -> tuple[Message, ...]:
        self._end_turn()
        texts = [instructions] if instructions else []
        texts += [message.content for message in self._system if message.content]
        images = tuple(image for message in self._system for image in message.images)
        first = (Message("system", ITEM_SEPARATOR.join(texts), images),) if texts or images else ()
        return first + tuple(self._messages)

    def say(self, message: Message) -> None:
        """A message that is not the model's."""
        self._end_turn()
        self._messages.append(message)

    def add(self, raw: Raw, place: str) -> None:
        match self._reader.kind(raw, place):
            case "message" | None:
                self._add_message(self._reader.read(raw, _MESSAGE, place), place)
            case "reasoning":
                self._add_thought(self._reader.read(raw, _REASONING, place))
            case "function_call":
                call = self._reader.read(raw, _CALL, place)
                self._reader.check_text(call.arguments, f"{place}.arguments")
                self._add_call(call.name, call.namespace, _arguments(call.arguments), call.call_id)
            case "custom_tool_call":
                custom = self._reader.read(raw, _CUSTOM_CALL, place)
                self._add_call(custom.name, custom.namespace, arguments_of(custom.input), custom.call_id)
            case "function_call_output" | "custom_tool_call_output":
                self._add_output(self._reader.read(raw, _OUTPUT, place), place)
            case "item_reference" as kind:
                if not self._reader.read(raw, _REFERENCE, place).id.startswith(REASONING_ID):
                    raise BadRequest(
                        f"{place}: nothing is stored here that an item_reference could name; send the item itself, as "
                        "SDKs do with `store: false`.",
                        param=place,
                    )
                self._reader.skip("input", kind)  # a thought: the conversation can go on without it
            case kind:
                self._reader.skip("input", kind)

    def _add_message(self, item: shapes.MessageItem, place: str) -> None:
        role, field = item.role.lower(), f"{place}.content"
        if role not in ROLES:
            raise BadRequest(f"{place}.role: unknown; it is one of {', '.join(ROLES)}.", param=f"{place}.role")
        if role == "assistant":
            text, images = self._reader.replayed(item.content or "", field)
            self._turn.said.append(
                Message("assistant", text, images, thinking=ITEM_SEPARATOR.join(self._turn.thoughts) or None)
            )
            self._turn.thoughts = []
            return
        if item.content is None:
            raise BadRequest(f"{field}: this field is required.", param=field)
        text, images = self._reader.content(item.content, field)
        if role == "user":
            self.say(Message("user", text, images))
        else:
            self._system.append(Message("system", text, images))

    def _add_thought(self, item: shapes.ReasoningItem) -> None:
        given = [thought.text for thought in item.content or () if thought.text]
        if not given and (ours := unsealed(item.encrypted_content or "")) is not None:
            given = [ours]
        self._turn.thoughts += given or [thought.text for thought in item.summary or () if thought.text]

    def _add_call(self, name: str, namespace: str | None, arguments: str, call_id: str | None) -> None:
        flat = flat_name(name, namespace)
        if call_id:
            self._called[call_id] = flat
        self._turn.calls.append(ToolCall(flat, arguments, call_id))

    def _add_output(self, item: shapes.OutputItem, place: str) -> None:
        text, images = self._reader.replayed(item.output or "", f"{place}.output")
        name = self._called.get(item.call_id or "")
        self.say(Message("tool", text, images, tool_call_id=item.call_id, tool_name=name))

    def _end_turn(self) -> None:
        """A turn with calls is one message: their results must follow it. One without is as many as it was."""
        turn, self._turn = self._turn, _Turn()
        if turn.calls:
            thoughts = [message.thinking for message in turn.said if message.thinking] + turn.thoughts
            self._messages.append(
                Message(
                    "assistant",
                    ITEM_SEPARATOR.join(message.content for message in turn.said if message.content),
                    tuple(image for message in turn.said for image in message.images),
                    thinking=ITEM_SEPARATOR.join(thoughts) or None,
                    tool_calls=tuple(turn.calls),
                )
            )
            return
        self._messages += turn.said
        if turn.thoughts:  # a thought that led to nothing: the answer was broken off
            self._reader.skip("input", "reasoning")
