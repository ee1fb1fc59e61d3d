"""The events that a Responses stream is made of, and the items that they build.

An event has a number that grows by one over all events of an answer, a type, and that type once more in its ``event:``
line. At most one item is open. Its ``done`` events wait until it is known how it ended: with the next item, or cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from llm_queue.wire.callers.openai_tools import input_of
from llm_queue.wire.callers.responses_items import sealed
from llm_queue.wire.callers.responses_tools import Tool
from llm_queue.wire.shapes import JsonObject, ToolCall

Status = Literal["in_progress", "completed", "incomplete"]
"""How far an item, or a whole response, has come."""

SUMMARY: Final = "response.reasoning_summary"


class Events:
    """Writes events, numbered from 0."""

    def __init__(self) -> None:
        self._next = 0

    def write(self, kind: str, **fields: Any) -> bytes:
        """One event of the type ``kind``."""
        body = msgspec.json.encode({"type": kind, "sequence_number": self._next} | fields)
        self._next += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)


class Item(Protocol):
    """An item of the output while it is being written."""

    def begin(self) -> bytes:
        """The events that it begins with."""

    def end(self, status: Status) -> bytes:
        """The events that it ends with."""

    def whole(self, status: Status) -> JsonObject:
        """The item as far as it has come."""


class Written:
    """What the items of one answer have in common: where they stand, and how their events are written."""

    def __init__(self, events: Events, kind: str, item_id: str, index: int) -> None:
        self._events = events
        self._kind = kind
        self._id = item_id
        self._index = index

    def _item(self, **fields: Any) -> JsonObject:
        return {"id": self._id, "type": self._kind} | fields

    def _tell(self, kind: str, **fields: Any) -> bytes:
        """An event about a piece of the item."""
        return self._events.write(kind, item_id=self._id, output_index=self._index, **fields)

    def _tell_item(self, kind: str, item: JsonObject) -> bytes:
        """An event with the whole item in it."""
        return self._events.write(f"response.output_item.{kind}", output_index=self._index, item=item)


class MessageItem(Written):
    """Text of the model's. Implements :class:`Item`."""

    def __init__(self, events: Events, item_id: str, index: int) -> None:
        super().__init__(events, "message", item_id, index)
        self._texts: list[str] = []
        self._logprobs: list[JsonObject] = []

    def begin(self) -> bytes:
        item = self._item(status="in_progress", role="assistant", content=[])
        added = self._tell_item("added", item)
        return added + self._tell("response.content_part.added", content_index=0, part=self._part())

    def add(self, text: str, logprobs: Sequence[JsonObject]) -> bytes:
        """A piece of the text, with the logprobs of its tokens."""
        self._texts.append(text)
        self._logprobs += logprobs
        return self._tell("response.output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def end(self, status: Status) -> bytes:
        part = self._part()
        text = self._tell("response.output_text.done", content_index=0, text=part["text"], logprobs=part["logprobs"])
        done = self._tell("response.content_part.done", content_index=0, part=part)
        return text + done + self._tell_item("done", self.whole(status))

    def whole(self, status: Status) -> JsonObject:
        return self._item(status=status, role="assistant", content=[self._part()])

    def _part(self) -> JsonObject:
        text = "".join(self._texts)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self._logprobs}


class ReasoningItem(Written):
    """What the model thinks, as a summary that leaves nothing out. Implements :class:`Item`."""

    def __init__(self, events: Events, item_id: str, index: int, *, seal: bool) -> None:
        """With ``seal`` the whole item has its text in ``encrypted_content`` as well."""
        super().__init__(events, "reasoning", item_id, index)
        self._seal = seal
        self._texts: list[str] = []

    def begin(self) -> bytes:
        added = self._tell_item("added", self._item(status="in_progress", summary=[]))
        return added + self._tell(f"{SUMMARY}_part.added", summary_index=0, part=self._part())

    def add(self, text: str) -> bytes:
        """A piece of the thought."""
        self._texts.append(text)
        return self._tell(f"{SUMMARY}_text.delta", summary_index=0, delta=text)

    def end(self, status: Status) -> bytes:
        part = self._part()
        cut = {"status": status} if status == "incomplete" else {}
        text = self._tell(f"{SUMMARY}_text.done", summary_index=0, text=part["text"])
        done = self._tell(f"{SUMMARY}_part.done", summary_index=0, part=part, **cut)
        return text + done + self._tell_item("done", self.whole(status))

    def whole(self, status: Status) -> JsonObject:
        part = self._part()
        item = self._item(status=status, summary=[part])
        return item | {"encrypted_content": sealed(part["text"])} if self._seal else item

    def _part(self) -> JsonObject:
        return {"type": "summary_text", "text": "".join(self._texts)}


class CallItem(Written):
    """A call, which comes whole, of a function or a custom tool. Implements :class:`Item`."""

    def __init__(self, events: Events, item_id: str, index: int, call: ToolCall, tool: Tool | None) -> None:
        """``tool`` is what the caller knows by the name that the model called; None if that is nothing it has."""
        custom = tool is not None and tool.kind == "custom"
        super().__init__(events, "custom_tool_call" if custom else "function_call", item_id, index)
        self._custom = custom
        self._text = input_of(call.arguments) if custom else call.arguments
        self._called: JsonObject = {"call_id": call.id, "name": tool.name if tool else call.name}
        if tool is not None and tool.namespace:
            self._called["namespace"] = tool.namespace

    def begin(self) -> bytes:
        added = self._tell_item("added", self._call("in_progress", ""))
        if self._custom:
            return added + self._tell("response.custom_tool_call_input.delta", delta=self._text)
        return added + self._tell("response.function_call_arguments.delta", delta=self._text)

    def end(self, status: Status) -> bytes:
        if self._custom:
            said = self._tell("response.custom_tool_call_input.done", input=self._text)
        else:
            said = self._tell("response.function_call_arguments.done", arguments=self._text)
        return said + self._tell_item("done", self.whole(status))

    def whole(self, status: Status) -> JsonObject:
        return self._call(status, self._text)

    def _call(self, status: Status, text: str) -> JsonObject:
        said = {"input": text} if self._custom else {"arguments": text}
        return self._item(status=status) | self._called | said
