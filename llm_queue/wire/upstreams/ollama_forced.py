"""A call that the model must make, of Ollama, which cannot be told so: it offers tools, and the model chooses.

But it keeps an answer to a JSON schema. So the request goes out without its tools; the answer is held to the arguments
of the one function, or to a name and arguments where there are several; the system message says what is wanted; and
what comes back is turned into the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Raw, Struct

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.shapes import (
    ALIVE,
    ChatRequest,
    Completion,
    Delta,
    JsonObject,
    Message,
    TextRequest,
    ToolCall,
    must_call,
)
from llm_queue.wire.upstreams.ollama_response import LineDecoder

SEVERAL: Final = """\
Answer with a call of one of these functions, as one JSON object on one line: \
{"name": its name, "arguments": its arguments}."""
"""What the model is told, before each of the functions."""

ONE: Final = "Answer with a call of the function {name}: with its arguments alone, as one JSON object on one line."
"""The same for one function."""

_CLOSED: Final[JsonObject] = {"type": "object", "properties": {}, "additionalProperties": False}
_SAYS_NOTHING: Final = frozenset({"type", "properties", "required", "title", "description", "$schema"})
_OF_A_WHOLE: Final = frozenset({"$schema", "$id", "$defs", "definitions"})
_NAMED_SCHEMAS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_INDEX: Final = re.compile("[0-9]{1,9}")
_VALUES: Final = frozenset({"const", "enum", "default", "example", "examples"})


class _Function(Struct):
    name: str
    description: str | None = None
    parameters: JsonObject | None = None


class _Tool(Struct):
    function: _Function


def check(request: ChatRequest) -> tuple[str, ...]:
    """The names of what a request for a forced call is answered without; nothing for any other request.

    Raises :class:`~llm_queue.errors.BadRequest` for a choice that cannot be had.
    """
    choice = request.tool_choice
    if choice is not None and choice.mode == "function" and request.tools and not must_call(request):
        raise BadRequest(f"tool_choice: there is no tool of the name {choice.name!r}.", param="tool_choice")
    if not _functions(request):
        return ()
    if request.format is not None:
        raise BadRequest(
            "tool_choice: Ollama keeps an answer to one form, which is that of the call that must be made. Leave the "
            "format of the answer (a JSON schema, or JSON) out, or leave the choice to the model (`auto`).",
            param="tool_choice",
        )
    return tuple(name for name in ("logprobs", "top_logprobs") if getattr(request, name))


def without_tools(request: ChatRequest) -> ChatRequest:
    """The request that makes Ollama answer with the call that must be made; any other request as it is."""
    functions = _functions(request)
    if not functions:
        return request
    return msgspec.structs.replace(
        request,
        messages=_told(request.messages, _text(functions)),
        format=_schema(functions),
        tools=(),
        tool_choice=None,
        logprobs=False,
        top_logprobs=None,
    )


def _functions(request: ChatRequest) -> list[_Function]:
    """Those of which the model must call one."""
    tools = enumerate(must_call(request))
    return [strict_json.converted(tool, _Tool, f"tools[{at}]").function for at, tool in tools]


# --- what the model is told -------------------------------------------------------------------------------------------


def _told(messages: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    """The text at the end of what the system says at first: most models' templates know no later system message."""
    if messages and messages[0].role == "system":
        first = messages[0]
        content = f"{first.content}\n\n{text}" if first.content else text
        return (msgspec.structs.replace(first, content=content), *messages[1:])
    return (Message("system", text), *messages)


def _text(functions: list[_Function]) -> str:
    if len(functions) == 1:
        return "\n".join([ONE.format(name=functions[0].name), *_about(functions[0])])
    return "\n\n".join([SEVERAL, *("\n".join([f"The function {one.name}:", *_about(one)]) for one in functions)])


def _about(function: _Function) -> Iterator[str]:
    """What tools say of themselves otherwise: a format constrains the answer, and the model never sees it."""
    if function.description:
        yield f"What it does: {function.description}"
    yield f"JSON schema of its arguments: {msgspec.json.encode(function.parameters or _CLOSED).decode()}"


# --- the schema of the answer -----------------------------------------------------------------------------------------


def _schema(functions: list[_Function]) -> JsonObject:
    """Of the arguments, or of ``{"name": …, "arguments": …}`` where there are several functions."""
    definitions = _Definitions()
    if len(functions) == 1:
        schema = definitions.arguments(functions[0].parameters)
    else:
        schema = {
            "anyOf": [
                {
                    "type": "object",
                    # In this order, in which engines have them written.
                    "properties": {
                        "name": {"const": function.name},
                        "arguments": definitions.arguments(function.parameters),
                    },
                    "required": ["name", "arguments"],
                    "additionalProperties": False,
                }
                for function in functions
            ]
        }
    return schema | ({"$defs": definitions.found} if definitions.found else {})


class _Definitions:
    """Schemas made parts of a larger one: all that their references name stands in one place, under new names.

    A reference counts from the beginning of its own schema, and engines follow those to ``#/$defs/…`` best: llama.cpp
    refuses one to the whole (``#``).
    """

    def __init__(self) -> None:
        self.found: JsonObject = {}
        self._names: dict[int, str] = {}
        self._open: list[tuple[str, JsonObject]] = []

    def arguments(self, parameters: JsonObject | None) -> JsonObject:
        """The schema of a function's arguments, which are an object, as a part."""
        if not parameters or (parameters.get("properties") == {} and parameters.keys() <= _SAYS_NOTHING):
            return dict(_CLOSED)  # for some engines, properties without any one would be all that there can be
        part = self._part(parameters, parameters) | {"type": "object"}
        while self._open:
            name, target = self._open.pop()
            self.found[name] = self._part(target, parameters)
        return part

    def _part(self, schema: JsonObject, root: JsonObject) -> JsonObject:
        """The schema with new references; ``root`` itself without what only a whole schema has."""
        left_out = _OF_A_WHOLE if schema is root else ()
        return {key: self._value(key, value, root) for key, value in schema.items() if key not in left_out}

    def _value(self, key: str, value: Any, root: JsonObject) -> Any:
        if key in _VALUES:
            return value
        if key == "$ref" and isinstance(value, str):
            return self._reference(value, root)
        if isinstance(value, list):
            return [self._value("", one, root) for one in value]
        if not isinstance(value, dict):
            return value
        if key in _NAMED_SCHEMAS:
            return {name: self._value("", one, root) for name, one in value.items()}
        return self._part(value, root)

    def _reference(self, reference: str, root: JsonObject) -> str:
        """The new name of what is referred to; a reference that leads nowhere as it is, for the engine to judge."""
        target = _target(reference, root)
        if target is None:
            return reference
        name = self._names.get(id(target))  # not by the reference: there are many ways to write the same one
        if name is None:
            name = self._names[id(target)] = f"d{len(self._names)}"
            self._open.append((name, target))
        return f"#/$defs/{name}"


def _target(reference: str, root: JsonObject) -> JsonObject | None:
    """What a reference within ``root`` names."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    target: Any = root
    for step in reference.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(target, list):
            target = target[int(name)] if _INDEX.fullmatch(name) and int(name) < len(target) else None
        else:
            target = target.get(name) if isinstance(target, dict) else None
    return target if isinstance(target, dict) else None


# --- the answer -------------------------------------------------------------------------------------------------------


class _Named(Struct):
    name: str
    arguments: Raw


_NAMED: Final = msgspec.json.Decoder(_Named)
_BEGUN: Final = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')
_STRING: Final = msgspec.json.Decoder(str)


def decoder_of(request: ChatRequest | TextRequest) -> LineDecoder | CallDecoder:
    """What reads the answer to a request."""
    functions = _functions(request) if isinstance(request, ChatRequest) else []
    return CallDecoder([function.name for function in functions]) if functions else LineDecoder()


class CallDecoder:
    """Reads the lines of an answer that is to be a call of one of the functions called ``names``.

    Thoughts are passed on as they come. The text is held back until it is whole, and is the call then; meanwhile there
    is a sign of life for each piece. A text that is no call, from an engine that did not keep to the schema, stays a
    text. The end has the reason ``tool_calls`` if the arguments are whole; else they were cut short.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._lines = LineDecoder()
        self._held: list[str] = []

    @property
    def done(self) -> bool:
        """The upstream has said that the answer is complete."""
        return self._lines.done

    def feed(self, data: bytes) -> list[Delta]:
        """The thoughts that end in ``data``, and signs of life.

        Raises :class:`~llm_queue.errors.UpstreamBroke` as :meth:`LineDecoder.feed` does.
        """
        return [self._passed(delta) for delta in self._lines.feed(data)]

    def close(self) -> tuple[list[Delta], Completion]:
        """The call and the end, once the upstream sends no more.

        Raises :class:`~llm_queue.errors.UpstreamBroke` if it never said that it was done.
        """
        deltas, completion = self._lines.close()
        left = [self._passed(delta) for delta in deltas]
        text = "".join(self._held)
        call = _call(text, self._names, cut=completion.finish_reason == "length")
        if call is not None:
            left.append(Delta(tool_calls=(call,)))
            if strict_json.object_in(call.arguments) is not None:
                completion = msgspec.structs.replace(completion, finish_reason="tool_calls")
        elif text:
            left.append(Delta(content=text))
        return left, completion

    def _passed(self, delta: Delta) -> Delta:
        self._held.append(delta.content)
        passed = Delta(thinking=delta.thinking, tool_calls=delta.tool_calls)
        return ALIVE if passed == ALIVE else passed


def _call(text: str, names: tuple[str, ...], *, cut: bool) -> ToolCall | None:
    """The call that a text is. With ``cut`` it may lack its end."""
    if len(names) == 1:
        name, arguments = names[0], text
    else:
        name, arguments = _named(text)
    whole = strict_json.object_in(arguments) is not None
    if name not in names or not (whole or (cut and arguments.lstrip().startswith("{"))):
        return None
    return ToolCall(name, arguments)


def _named(text: str) -> tuple[str, str]:
    """Name and arguments, as far as they go; both empty if there is no name."""
    try:
        named = _NAMED.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        begun = _BEGUN.match(text)
        return (_STRING.decode(begun[1]), text[begun.end() :]) if begun else ("", "")
    return named.name, bytes(named.arguments).decode()
