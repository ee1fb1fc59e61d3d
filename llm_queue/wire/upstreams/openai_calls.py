"""Tool calls that arrive in pieces, from servers that do not agree on how to say which piece belongs to which call."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct, field

from llm_queue.wire import strict_json
from llm_queue.wire.shapes import ToolCall
from llm_queue.wire.upstreams.lines import Halves, decode_halves

_TEXT: Final = msgspec.json.Decoder(str)


class FunctionPiece(Struct):
    """Its name, and a piece of its arguments: a string, or from some servers the whole object."""

    name: str | None = None
    arguments: Raw = field(default_factory=Raw)


class CallPiece(Struct):
    """A piece of a call."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class _Call:
    def __init__(self, place: int) -> None:
        self.place = place
        self.id: str | None = None
        self.name = ""
        self.arguments = ""

    def add(self, name: str, call_id: str | None, arguments: str) -> None:
        self.id = self.id or call_id
        if name != self.name:  # some servers repeat the whole of it with each piece
            self.name += name
        self.arguments += arguments

    def is_over(self, call_id: str | None, arguments: str) -> bool:
        """True if a piece that has a name, this id and these arguments cannot belong to this call."""
        if call_id and self.id:
            return call_id != self.id
        return bool(arguments) and strict_json.object_in(self.arguments) is not None

    def whole(self) -> ToolCall:
        halves = Halves()
        text = halves.join(self.arguments) + halves.end()
        return ToolCall(self.name, text if text.strip() else "{}", self.id)


class Calls:
    """All calls of one answer."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def add(self, piece: CallPiece) -> None:
        """Take one piece. Its arguments are kept as they came: whether they are whole is for the caller to see.

        A piece belongs to the call that has its index; without one, and without a name, to the last. A piece with a
        name begins a new call where it has another id than the call of its index, or that call's arguments are a whole
        object already: so it is with servers that number every call 0, or none.
        """
        function = piece.function or FunctionPiece()
        name, arguments = function.name or "", _text(function.arguments)
        if piece.index is not None:
            call = self._by_index.get(piece.index)
        else:
            call = self._calls[-1] if self._calls and not name else None
        if call is None or (name and call.is_over(piece.id, arguments)):
            call = _Call(len(self._calls) if piece.index is None else piece.index)
            self._calls.append(call)
            if piece.index is not None:
                self._by_index[piece.index] = call
        call.add(name, piece.id or None, arguments)

    def whole(self) -> tuple[ToolCall, ...]:
        """The calls, in the order of their indices, and of their beginnings where these are the same."""
        return tuple(call.whole() for call in sorted(self._calls, key=lambda call: call.place))


def _text(arguments: Raw) -> str:
    """A piece of the arguments' text; the text of an object as it came."""
    raw = bytes(arguments)
    if raw[:1] == b'"':
        return decode_halves(raw, _TEXT)
    return "" if raw == b"null" else raw.decode(errors="replace")
