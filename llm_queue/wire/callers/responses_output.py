"""What the model says, as the items of one response: thoughts, texts and calls, in the order in which they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_queue.wire.callers.responses_items import REASONING_ID
from llm_queue.wire.callers.responses_request import ResponsesReply
from llm_queue.wire.callers.responses_stream import CallItem, Events, Item, MessageItem, ReasoningItem, Status
from llm_queue.wire.shapes import Delta, JsonObject, ToolCall


class Output:
    """The items of one response. Each method returns the events that it takes to tell of what it does.

    An item's ``done`` events come with the beginning of the next one, or with :meth:`close`.
    """

    def __init__(self, events: Events, reply: ResponsesReply, unique: str) -> None:
        """The ids of the items are made of ``unique``, so that none is like another's."""
        self._events = events
        self._reply = reply
        self._unique = unique
        self._open: Item | None = None
        self.items: list[JsonObject] = []
        """Those that have ended."""

    @property
    def begun(self) -> bool:
        """True once there is an item."""
        return self._open is not None or bool(self.items)

    def add(self, delta: Delta) -> Iterator[bytes]:
        """A piece of the answer: its thought, its text and its calls, in this order."""
        if delta.thinking:
            yield from self._think(delta.thinking)
        logprobs = _spelling(delta.content, delta.logprobs) if self._reply.logprobs else []
        if delta.content:
            yield from self.say(delta.content, logprobs)
        for call in delta.tool_calls:
            yield self._call(call)

    def say(self, text: str, logprobs: Sequence[JsonObject] = ()) -> Iterator[bytes]:
        """A piece of text, which may be empty."""
        item = self._open
        if not isinstance(item, MessageItem):
            yield self.close("completed")
            item = MessageItem(self._events, *self._place("msg_"))
            yield self._begin(item)
        yield item.add(text, logprobs)

    def _think(self, text: str) -> Iterator[bytes]:
        item = self._open
        if not isinstance(item, ReasoningItem):
            yield self.close("completed")
            item = ReasoningItem(self._events, *self._place(REASONING_ID), seal=self._reply.sealed)
            yield self._begin(item)
        yield item.add(text)

    def _call(self, call: ToolCall) -> bytes:
        tool = self._reply.tools.get(call.name)
        closed = self.close("completed")
        item_id, index = self._place("ctc_" if tool is not None and tool.kind == "custom" else "fc_")
        call = ToolCall(call.name, call.arguments, call.id or f"call_{self._unique}_{index}")
        return closed + self._begin(CallItem(self._events, item_id, index, call, tool))

    def close(self, status: Status) -> bytes:
        """The end of the item that is open, if any."""
        if self._open is None:
            return b""
        item, self._open = self._open, None
        self.items.append(item.whole(status))
        return item.end(status)

    def _begin(self, item: Item) -> bytes:
        self._open = item
        return item.begin()

    def _place(self, prefix: str) -> tuple[str, int]:
        """The id and the index of the next item, once the one before it has ended."""
        return f"{prefix}{self._unique}_{len(self.items)}", len(self.items)


def _spelling(text: str, logprobs: Sequence[JsonObject]) -> list[JsonObject]:
    """The last of these that spell the text, in the form that the dialect wants; those before it are of a thought."""
    first, size = len(logprobs), 0
    while first and size < len(text):
        first -= 1
        size += len(logprobs[first]["token"])
    return [_token(item) | {"top_logprobs": [_token(one) for one in item["top_logprobs"]]} for item in logprobs[first:]]


def _token(item: JsonObject) -> JsonObject:
    token: str = item["token"]
    return {"token": token, "logprob": item["logprob"], "bytes": item.get("bytes") or list(token.encode())}
