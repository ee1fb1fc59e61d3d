"""A call that the model must make, of an upstream that cannot be told so: what is asked, and what comes back."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.errors import BadRequest, UpstreamBroke
from llm_queue.wire.shapes import (
    ALIVE,
    ChatRequest,
    Completion,
    Delta,
    JsonObject,
    Message,
    TextRequest,
    ToolCall,
    ToolChoice,
    fold,
    must_call,
)
from llm_queue.wire.upstreams.ollama_forced import ONE, SEVERAL, CallDecoder, decoder_of
from llm_queue.wire.upstreams.ollama_request import chat_body, check
from llm_queue.wire.upstreams.ollama_response import LineDecoder

HI = Message("user", "hi")
REQUIRED = ToolChoice("required")
PLACE: JsonObject = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}


def tool(name: str, parameters: object = None, **more: Any) -> JsonObject:
    return {"type": "function", "function": {"name": name, "parameters": parameters} | more}


def chat(*tools: JsonObject, choice: ToolChoice | None = REQUIRED, **more: Any) -> ChatRequest:
    return ChatRequest("m", more.pop("messages", (HI,)), tools=tools, tool_choice=choice, **more)


def body(request: ChatRequest) -> JsonObject:
    return dict(json.loads(chat_body(request, 1)))


def schema(*tools: JsonObject) -> Any:
    return body(chat(*tools))["format"]


# --- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ()),
        (ToolChoice("auto"), ()),
        (ToolChoice("none"), ()),
        (REQUIRED, ("look", "other")),
        (ToolChoice("function", "other"), ("other",)),
        (ToolChoice("function", "nobody"), ()),
    ],
)
def test_what_must_be_called_follows_from_the_choice(choice: ToolChoice | None, names: tuple[str, ...]) -> None:
    found = must_call(chat(tool("look"), tool("other"), choice=choice))
    assert tuple(one["function"]["name"] for one in found) == names


@pytest.mark.parametrize("choice", [REQUIRED, ToolChoice("function", "look")])
def test_one_function_is_asked_for_by_the_schema_of_its_arguments(choice: ToolChoice) -> None:
    others = () if choice is REQUIRED else (tool("other"),)
    asked = body(chat(tool("look", PLACE, description="Looks."), *others, choice=choice))
    said = f"{ONE.format(name='look')}\nWhat it does: Looks.\nJSON schema of its arguments: "
    assert asked == {
        "model": "m",
        "messages": [
            {"role": "system", "content": said + json.dumps(PLACE, separators=(",", ":"))},
            {"role": "user", "content": "hi"},
        ],
        "stream": True,
        "options": {"num_ctx": 1},
        "format": PLACE,
    }


def test_several_functions_are_asked_for_by_name_and_arguments() -> None:
    asked = body(chat(tool("look", PLACE, description="Looks."), tool("go")))
    assert asked["format"] == {
        "anyOf": [
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for name, arguments in (("look", PLACE), ("go", CLOSED))
        ]
    }
    first = asked["format"]["anyOf"][0]["properties"]
    assert list(first) == ["name", "arguments"]  # in which order they are written
    place, closed = (json.dumps(one, separators=(",", ":")) for one in (PLACE, CLOSED))
    assert asked["messages"][0]["content"] == (
        f"{SEVERAL}\n\nThe function look:\nWhat it does: Looks.\nJSON schema of its arguments: {place}"
        f"\n\nThe function go:\nJSON schema of its arguments: {closed}"
    )
    assert "tools" not in asked


@pytest.mark.parametrize(
    ("before", "beginning"),
    [
        ((Message("system", "Be brief."), HI), f"Be brief.\n\n{ONE.format(name='go')}"),
        ((Message("system"), HI), ONE.format(name="go")),
        ((HI, Message("system", "Be brief.")), ONE.format(name="go")),
        ((), ONE.format(name="go")),
    ],
)
def test_the_model_is_told_at_the_end_of_the_first_system_message(before: tuple[Message, ...], beginning: str) -> None:
    first, *rest = body(chat(tool("go"), messages=before))["messages"]
    assert first["role"] == "system"
    assert first["content"].startswith(beginning)
    left = before[1:] if before and before[0].role == "system" else before
    assert [one["content"] for one in rest] == [message.content for message in left]


def test_what_was_called_before_stays_in_the_conversation() -> None:
    history = (HI, Message("assistant", tool_calls=(ToolCall("go", "{}", "a"),)), Message("tool", "gone"))
    asked = body(chat(tool("go"), messages=history))
    assert [message["role"] for message in asked["messages"]] == ["system", "user", "assistant", "tool"]
    assert asked["messages"][2]["tool_calls"] == [{"id": "a", "function": {"name": "go", "arguments": {}}}]


def test_a_name_with_braces_is_told_as_it_is() -> None:
    said = body(chat(tool("{name}", None, description="{schema} {0}")))["messages"][0]["content"]
    assert "the function {name}:" in said
    assert "What it does: {schema} {0}\n" in said


@pytest.mark.parametrize("choice", [None, ToolChoice("auto"), ToolChoice("none")])
def test_a_request_that_forces_nothing_goes_out_as_it_is(choice: ToolChoice | None) -> None:
    asked = body(chat(tool("look", PLACE), choice=choice))
    assert [message["role"] for message in asked["messages"]] == ["user"]
    assert "format" not in asked
    assert asked.get("tools") == (None if choice == ToolChoice("none") else [tool("look", PLACE)])


# --- schemas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "sent"),
    [
        (None, CLOSED),
        ({}, CLOSED),
        ({"type": "object", "properties": {}, "required": [], "title": "Nothing"}, CLOSED),
        ({"type": "object"}, {"type": "object"}),
        ({"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}},) * 2,
        ({"properties": {"a": {"type": "null"}}}, {"properties": {"a": {"type": "null"}}, "type": "object"}),
        ({"$schema": "https://json-schema.org/x", "$id": "x", "type": "object"}, {"type": "object"}),
        ({"type": "object", "properties": {"a": True, "$id": {"minimum": 1}}},) * 2,
        ({"type": "object", "properties": {"$ref": {"type": "string"}}},) * 2,
        ({"type": "object", "properties": {"a": {"enum": [{"$ref": "#"}], "default": {"$ref": "#"}}}},) * 2,
        ({"type": "object", "properties": {"a": {"$ref": 1}, "const": {"items": [{"type": "null"}]}}},) * 2,
    ],
)
def test_arguments_are_an_object_of_the_function_s_own_schema(parameters: JsonObject, sent: JsonObject) -> None:
    assert schema(tool("f", parameters)) == sent


def test_what_references_name_is_kept_where_engines_find_it() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "kind": {"$ref": "#/$defs/a~1b%20c"}}}
    parameters = {"$ref": "#/$defs/Node", "$defs": {"Node": node, "a/b c": {"enum": ["x"]}, "unused": {}}}
    assert schema(tool("f", parameters)) == {
        "$ref": "#/$defs/d0",
        "type": "object",
        "$defs": {
            "d0": {"type": "object", "properties": {"next": {"$ref": "#/$defs/d0"}, "kind": {"$ref": "#/$defs/d1"}}},
            "d1": {"enum": ["x"]},
        },
    }


def test_two_functions_with_definitions_of_one_name_keep_their_own() -> None:
    def of(kind: str) -> JsonObject:
        return {"properties": {"a": {"$ref": "#/definitions/A", "title": "t"}}, "definitions": {"A": {"type": kind}}}

    asked = schema(tool("f", of("string")), tool("g", of("integer")))
    first, second = (one["properties"]["arguments"]["properties"]["a"] for one in asked["anyOf"])
    assert (first, second) == ({"$ref": "#/$defs/d0", "title": "t"}, {"$ref": "#/$defs/d1", "title": "t"})
    assert asked["$defs"] == {"d0": {"type": "string"}, "d1": {"type": "integer"}}


def test_references_to_the_whole_and_into_lists_lead_there() -> None:
    properties = {"child": {"$ref": "#"}, "b": {"anyOf": [{"type": "null"}, {"type": "string"}]}}
    more = {"again": {"$ref": "#/properties/b/anyOf/1"}}
    asked = schema(tool("f", {"type": "object", "properties": properties | more, "$defs": {"unused": {}}}))
    assert asked["properties"]["again"] == {"$ref": "#/$defs/d1"}
    assert asked["$defs"]["d1"] == {"type": "string"}
    assert asked["properties"]["child"] == {"$ref": "#/$defs/d0"}
    assert asked["$defs"]["d0"] == {"type": "object", "properties": asked["properties"]}


@pytest.mark.parametrize(
    "reference",
    [
        "#/$defs/nobody",
        "#/type/x",
        "#/anyOf/7",
        "#/anyOf/x",
        "#/anyOf/1234567890",
        "https://x.test/y",
        "#anchor",
        "#/type",
    ],
)
def test_a_reference_that_leads_nowhere_is_for_the_engine_to_judge(reference: str) -> None:
    parameters = {"type": "object", "properties": {"a": {"$ref": reference}}, "anyOf": [{}]}
    assert schema(tool("f", parameters)) == parameters


def test_definitions_at_a_wrong_place_stay_there() -> None:
    inner = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}}
    parameters = {"type": "object", "properties": {"a": inner}}
    assert schema(tool("f", parameters)) == parameters


def test_a_long_row_of_references_is_followed_to_its_end() -> None:
    definitions = {f"n{number}": {"items": {"$ref": f"#/$defs/n{number + 1}"}} for number in range(5000)}
    parameters = {"properties": {"a": {"$ref": "#/$defs/n0"}}, "$defs": definitions | {"n5000": {"type": "null"}}}
    assert len(schema(tool("f", parameters))["$defs"]) == 5001


# --- what is refused, and what is named -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", {"type": "object"}])
def test_a_format_beside_a_call_that_must_be_made_is_refused(form: Any) -> None:
    with pytest.raises(BadRequest, match="keeps an answer to one form") as refused:
        check(chat(tool("f"), format=form))
    assert refused.value.param == "tool_choice"
    assert check(chat(tool("f"), choice=ToolChoice("auto"), format=form)) == ()
    assert check(chat(format=form)) == ()


def test_a_function_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadRequest, match="no tool of the name 'g'") as refused:
        check(chat(tool("f"), choice=ToolChoice("function", "g")))
    assert refused.value.param == "tool_choice"
    assert check(chat(choice=ToolChoice("function", "g"))) == ()


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        (tool("f", [1]), "tools[1].function.parameters"),
        (tool("f", None, description=1), "tools[1].function.description"),
    ],
)
def test_a_function_that_cannot_be_read_is_refused_by_its_place(wrong: JsonObject, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check(chat(tool("e"), wrong))
    assert refused.value.param == param
    assert check(chat(tool("e"), wrong, choice=ToolChoice("auto"))) == ()


def test_logprobs_of_a_call_are_not_to_be_had_and_are_named() -> None:
    asked = chat(tool("f"), logprobs=True, top_logprobs=2)
    assert check(asked) == ("logprobs", "top_logprobs")
    assert not {"logprobs", "top_logprobs"} & body(asked).keys()
    assert check(chat(tool("f"), choice=None, logprobs=True)) == ()


# --- what comes back --------------------------------------------------------------------------------------------------


def line(content: str = "", thinking: str = "", reason: str | None = None, **more: Any) -> bytes:
    message = {"content": content} | ({"thinking": thinking} if thinking else {}) | more
    end = {"done": True, "done_reason": reason} if reason is not None else {"done": False}
    return json.dumps({"message": message} | end).encode() + b"\n"


def read(data: bytes, names: list[str], size: int = 1 << 30) -> tuple[list[Delta], Completion]:
    decoder, deltas = CallDecoder(names), list[Delta]()
    for start in range(0, len(data), size):
        deltas += decoder.feed(data[start : start + size])
    assert decoder.done
    left, completion = decoder.close()
    return deltas + left, completion


def answer(text: str, *names: str, reason: str = "stop") -> tuple[Delta, str, str]:
    """All that was said, why it ended, and why by Ollama's own account."""
    deltas, completion = read(line(text) + line(reason=reason), list(names))
    return fold(deltas, completion).message, completion.finish_reason, completion.finish_text


def named(name: str, arguments: str) -> str:
    return f'{{"name": {json.dumps(name)}, "arguments": {arguments}}}'


def test_an_answer_without_a_call_to_make_is_read_as_ever() -> None:
    for request in (chat(tool("f"), choice=None), chat(), TextRequest("m", "x")):
        assert isinstance(decoder_of(request), LineDecoder)
    assert isinstance(decoder_of(chat(tool("f"))), CallDecoder)


@pytest.mark.parametrize("arguments", ["{}", '{"a": 1.10,  "b": "\\u00e9 {"}', '\n{\n "a": []\n}\n'])
def test_the_text_of_one_function_s_arguments_is_its_call_verbatim(arguments: str) -> None:
    called = Delta(tool_calls=(ToolCall("f", arguments),))
    assert answer(arguments, "f") == (called, "tool_calls", "stop")
    assert answer(arguments, "f", reason="length") == (called, "tool_calls", "length")  # nothing of it is missing


@pytest.mark.parametrize("name", ["g", 'a "quoted" one', "é"])
@pytest.mark.parametrize("arguments", ["{}", '{"a":  [1, {"name": "f"}]}'])
def test_a_name_with_arguments_is_the_call_of_that_function(name: str, arguments: str) -> None:
    called = Delta(tool_calls=(ToolCall(name, arguments),))
    assert answer(named(name, arguments), "f", name) == (called, "tool_calls", "stop")
    reordered = f'{{"arguments":{arguments},"name":{json.dumps(name)}}}'
    assert answer(reordered, "f", name) == (called, "tool_calls", "stop")


@pytest.mark.parametrize(
    ("text", "names", "arguments"),
    [
        ('{"a": "lo', ("f",), '{"a": "lo'),
        (' {"a": {', ("f",), ' {"a": {'),
        ('{ "name" : "f" ,\n"arguments": {"a": "lo', ("f", "g"), '{"a": "lo'),
        ('{"name":"f","arguments":{', ("f", "g"), "{"),
        ('{"name":"\\"","arguments":{"a', ('"', "g"), '{"a'),
    ],
)
def test_a_call_that_was_cut_has_what_there_is_of_its_arguments(
    text: str, names: tuple[str, ...], arguments: str
) -> None:
    called = Delta(tool_calls=(ToolCall(names[0], arguments),))
    assert answer(text, *names, reason="length") == (called, "length", "length")


def test_a_call_that_was_cut_after_its_arguments_is_whole() -> None:
    called = Delta(tool_calls=(ToolCall("f", '{"a": 1}'),))
    assert answer('{"name": "f", "arguments": {"a": 1}', "f", "g", reason="length") == (called, "tool_calls", "length")


@pytest.mark.parametrize(
    ("text", "names", "reason"),
    [
        ("I would rather not.", ("f",), "stop"),
        ("[1]", ("f",), "stop"),
        ('{"a": "lo', ("f",), "stop"),  # at a text at which the caller wants it to stop
        ("I would rather", ("f",), "length"),
        ("I would rather not.", ("f", "g"), "stop"),
        (named("nobody", "{}"), ("f", "g"), "stop"),
        (named("f", "[]"), ("f", "g"), "stop"),
        ('{"name": 1, "arguments": {}}', ("f", "g"), "stop"),
        ('{"name": "f", "argu', ("f", "g"), "length"),
        ('{"name": "f", "arguments": ', ("f", "g"), "length"),
        ('{"name": "nobody", "arguments": {', ("f", "g"), "length"),
        ("[" * 100_000, ("f",), "length"),
    ],
)
def test_a_text_that_is_no_call_stays_a_text(text: str, names: tuple[str, ...], reason: str) -> None:
    assert answer(text, *names, reason=reason) == (Delta(content=text), reason, reason)


def test_an_answer_with_nothing_in_it_stays_empty() -> None:
    assert answer("", "f", reason="length") == (Delta(), "length", "length")


def test_thoughts_are_passed_on_and_the_text_is_held_back_with_signs_of_life() -> None:
    decoder = CallDecoder(["f"])
    assert decoder.feed(line(thinking="Hm. ")) == [Delta(thinking="Hm. ")]
    assert decoder.feed(line('{"a":', thinking="So.")) == [Delta(thinking="So.")]
    (sign,) = decoder.feed(line(" 1}"))
    assert sign is ALIVE
    assert not decoder.done
    left = decoder.feed(line(reason="stop"))
    assert left == []
    assert decoder.close()[0] == [Delta(tool_calls=(ToolCall("f", '{"a": 1}'),))]


def test_a_call_that_the_engine_made_by_itself_comes_through() -> None:
    call = {"id": "x", "function": {"name": "f", "arguments": {}}}
    deltas, completion = read(line(tool_calls=[call]) + line(reason="stop"), ["f"])
    assert (deltas, completion.finish_reason) == ([Delta(tool_calls=(ToolCall("f", "{}", "x"),))], "stop")


def test_what_is_left_without_a_line_feed_counts() -> None:
    decoder = CallDecoder(["f"])
    assert decoder.feed(line("{}", reason="stop").rstrip()) == []
    left, completion = decoder.close()
    assert (left, completion.finish_reason) == ([ALIVE, Delta(tool_calls=(ToolCall("f", "{}"),))], "tool_calls")


def test_half_a_call_without_an_end_is_broken() -> None:
    decoder = CallDecoder(["f"])
    decoder.feed(line('{"a": 1}'))
    with pytest.raises(UpstreamBroke, match="before the end"):
        decoder.close()


@given(
    text=st.one_of(st.text(), st.dictionaries(st.text(), st.text()).map(json.dumps)),
    names=st.sampled_from([["f"], ["f", "g"]]),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    size=st.integers(1, 40),
    reason=st.sampled_from(["stop", "length"]),
)
def test_a_call_is_the_same_in_every_chunking(
    text: str, names: list[str], cuts: list[int], size: int, reason: str
) -> None:
    if len(names) > 1:
        text = named("g", text)
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[start:end] for start, end in pairwise(places)] or [""]
    data = b"".join(map(line, pieces)) + line(reason=reason)
    whole, end = read(line(text) + line(reason=reason), names)
    deltas, completion = read(data, names, size)
    assert completion == end
    assert fold(deltas, completion).message == fold(whole, end).message
