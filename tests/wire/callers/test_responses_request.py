"""From OpenAI's Responses request to ours: its parameters, what needs a store, and what has no effect."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.errors import BadRequest
from llm_queue.wire.callers.dialect import Parsed, RequestLimits
from llm_queue.wire.callers.responses_request import ResponsesReply, parse_response
from llm_queue.wire.callers.responses_shapes import ResponsesBody
from llm_queue.wire.shapes import ChatRequest, Message, Sampling, ToolChoice
from llm_queue.wire.wishes import Wishes
from tests.wire.callers.test_openai_request import json_values

LIMITS = RequestLimits(max_depth=64, max_messages=10, num_ctx_ceiling=65536)
FIELDS = [field.encode_name for field in msgspec.structs.fields(ResponsesBody)]
FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
SCHEMA = {"type": "object", "properties": {"relevant": {"type": "boolean"}}}


def parse(**fields: Any) -> Parsed[ResponsesReply]:
    return parse_response(json.dumps({"input": "Hello"} | fields).encode(), LIMITS)


def chat(**fields: Any) -> ChatRequest:
    request = parse(**fields).request
    assert isinstance(request, ChatRequest)
    return request


def echo(**fields: Any) -> Any:
    """What the response says of its request, as JSON has it."""
    return json.loads(msgspec.json.encode(parse(**fields).reply.echo))


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(**fields)
    return caught.value


def test_the_least_request_gets_nothing_that_was_not_given() -> None:
    assert chat() == ChatRequest("", (Message("user", "Hello"),))
    assert (parse().stream, parse().wishes) == (False, Wishes())


@pytest.mark.parametrize("name", FIELDS)
def test_null_is_the_same_as_absent(name: str) -> None:
    if name == "input":
        assert refused(input=None).param == "input"
    else:
        assert parse(**{name: None}) == parse()


def test_fields_that_are_not_known_are_ignored() -> None:
    more = {"client_metadata": {"a": 1}, "moderation": {}, "prompt_cache_retention": "24h", "stream_options": {}}
    assert parse(**more) == parse()


def test_what_was_given_is_passed_on() -> None:
    request = chat(
        model="m", temperature=0.5, top_p=0.9, seed=7, stop="END", max_output_tokens=30, parallel_tool_calls=False
    )
    assert request.model == "m"
    assert request.sampling == Sampling(temperature=0.5, top_p=0.9, seed=7, stop=("END",))
    assert (request.max_tokens, request.parallel_tool_calls) == (30, False)
    assert chat(stop=["a", "b"]).sampling.stop == ("a", "b")
    assert chat(stop=[]).sampling == Sampling()
    assert parse(stream=True).stream


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("low", "low"), ("high", "high"), ("xhigh", "max"), ("", None), (None, None)],
)
def test_an_effort_is_how_much_it_thinks(effort: str | None, think: bool | str | None) -> None:
    assert chat(reasoning={"effort": effort, "summary": "auto"}).think == think


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "name": "v", "schema": SCHEMA, "strict": True}, SCHEMA),
        ({"type": "json_schema", "name": "v", "schema": {}}, "json"),
    ],
)
def test_the_format_of_the_text(form: Any, expected: Any) -> None:
    assert chat(text={"format": form}).format == expected
    assert echo(text={"format": form})["text"]["format"] == form


def test_logprobs_are_asked_for_by_include() -> None:
    asked = parse(include=["message.output_text.logprobs", "reasoning.encrypted_content"], top_logprobs=3)
    assert isinstance(asked.request, ChatRequest)
    assert (asked.request.logprobs, asked.request.top_logprobs) == (True, 3)
    assert (asked.reply.logprobs, asked.reply.sealed) == (True, True)
    without = parse(top_logprobs=3)
    assert isinstance(without.request, ChatRequest)
    assert (without.request.logprobs, without.request.top_logprobs) == (False, None)
    assert without.wishes.dropped == ("top_logprobs",)


# --- what is refused ---


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"previous_response_id": "resp_1"}, "whole conversation"),
        ({"conversation": "conv_1"}, "whole conversation"),
        ({"conversation": {"id": "conv_1"}}, "whole conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "own text"),
        ({"background": True}, "flex"),
    ],
)
def test_what_needs_a_store_is_refused_with_what_to_send_instead(fields: dict[str, Any], says: str) -> None:
    error = refused(**fields)
    assert error.param == next(iter(fields))
    assert "nothing is stored here" in error.message
    assert says in error.message


@pytest.mark.parametrize("fields", [{"store": True}, {"background": False}, {"previous_response_id": ""}, {}])
def test_that_nothing_is_stored_is_said_and_no_error(fields: dict[str, Any]) -> None:
    assert echo(**fields)["store"] is False
    assert echo(**fields)["previous_response_id"] is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "web_search_call"}]}, "input"),
        ({"input": [{"role": "user", "content": "x"}] * 11}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"model": 5}, "model"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "v"}}}, "text.format.schema"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
        ({"truncation": "some"}, "truncation"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"num_ctx": 0}, "num_ctx"),
        ({"numCtx": 65537}, "numCtx"),
        ({"num_ctx": 4096, "numCtx": 8192}, "numCtx"),
    ],
)
def test_the_field_that_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert param.split(".")[0] in error.message


def test_a_body_that_is_no_object_is_refused() -> None:
    for body in (b"", b"[]", b"{", b'{"input": "\xff"}'):
        with pytest.raises(BadRequest):
            parse_response(body, LIMITS)


@given(
    st.dictionaries(st.sampled_from([one.encode_name for one in msgspec.structs.fields(ResponsesBody)]), json_values)
)
def test_whatever_is_sent_is_taken_or_refused(fields: dict[str, Any]) -> None:
    with contextlib.suppress(BadRequest):
        parse(**fields)


# --- what it says to the line ---


@pytest.mark.parametrize(
    ("fields", "lane", "unknown"),
    [
        ({"service_tier": "flex"}, "background", False),
        ({"service_tier": "ultrafast"}, "interactive", False),
        ({"service_tier": "auto"}, "normal", False),
        ({"service_tier": ["odd"]}, "normal", True),
        ({"priority": True, "service_tier": "flex"}, "interactive", False),
        ({"priority": "someday"}, "normal", True),
        ({}, None, False),
    ],
)
def test_the_lane(fields: dict[str, Any], lane: str | None, unknown: bool) -> None:
    wishes = parse(**fields).wishes
    assert (wishes.lane, wishes.unknown_lane) == (lane, unknown)


def test_a_priority_that_no_machine_holds_is_an_unknown_one() -> None:
    assert parse_response(b'{"input": "Hello", "priority": 1e999}', LIMITS).wishes.unknown_lane


def test_the_session_and_the_context_size() -> None:
    wishes = parse(prompt_cache_key=" thread-1 ", num_ctx=4096, numCtx=4096).wishes
    assert (wishes.session, wishes.num_ctx) == ("thread-1", 4096)
    assert parse(prompt_cache_key=5).wishes.session is None
    assert echo(prompt_cache_key=5)["prompt_cache_key"] is None


@pytest.mark.parametrize(
    ("fields", "dropped"),
    [
        ({"text": {"verbosity": "low"}}, ("text.verbosity",)),
        ({"max_tool_calls": 3}, ("max_tool_calls",)),
        ({"context_management": [{"type": "compaction"}]}, ("context_management",)),
        ({"tool_choice": {"type": "web_search_preview"}}, ("tool_choice",)),
        ({"tools": [{"type": "web_search"}, {"type": "web_search"}]}, ("tools.web_search",)),
        ({"tools": [{"type": "a\r\nb: c"}]}, ("tools",)),
        ({"tools": [{}]}, ("tools.None",)),
        ({"input": [{"role": "user", "content": "x"}, {"type": "mcp_call"}]}, ("input.mcp_call",)),
        ({"store": True, "include": ["x"], "truncation": "auto", "user": "u"}, ()),
    ],
)
def test_what_has_no_effect_is_named(fields: dict[str, Any], dropped: tuple[str, ...]) -> None:
    assert parse(**fields).wishes.dropped == dropped


# --- what the response repeats ---


def test_the_response_repeats_its_request() -> None:
    asked = {
        "instructions": "Be brief.",
        "max_output_tokens": 30,
        "max_tool_calls": 2,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "s",
        "temperature": 0.5,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "weather"},
        "tools": [FUNCTION],
        "top_logprobs": 2,
        "top_p": 0.5,
        "truncation": "auto",
        "user": "u",
    }
    assert echo(**asked) == asked | {"background": False, "previous_response_id": None, "store": False}


def test_the_response_says_what_is_so_where_that_is_not_what_was_asked() -> None:
    said = echo(
        tools=[FUNCTION, {"type": "web_search"}],
        tool_choice={"type": "web_search_preview"},
        reasoning={"effort": "", "summary": "none"},
    )
    assert said["tools"] == [FUNCTION]
    assert said["tool_choice"] == "auto"
    assert said["reasoning"] == {"effort": None, "summary": None}


def test_tools_and_the_choice_among_them_reach_the_model() -> None:
    request = chat(tools=[FUNCTION], tool_choice="required")
    assert [tool["function"]["name"] for tool in request.tools] == ["weather"]
    assert request.tool_choice == ToolChoice("required")


@pytest.mark.parametrize(("effort", "think"), [("ultra", "max"), ("xhigh", "max"), ("minimal", "low"), ("none", False)])
def test_an_effort_means_what_it_means_in_a_chat(effort: str, think: bool | str) -> None:
    assert chat(reasoning={"effort": effort}).think == think


@pytest.mark.parametrize("kind", ["image/jpeg", "image/jpg", "image/png", "image/webp", "IMAGE/PNG", ""])
def test_the_kinds_of_image_that_are_read(kind: str) -> None:
    part = {"type": "input_image", "image_url": f"data:{kind};base64,aGVsbG8="}
    assert chat(input=[{"role": "user", "content": [part]}]).messages[0].images == ("aGVsbG8=",)


def test_a_data_url_that_is_not_base64_is_refused() -> None:
    part = {"type": "input_file", "file_data": "data:text/plain,aGVsbG8="}
    error = refused(input=[{"role": "user", "content": [part]}])
    assert error.param == "input[0].content[0].file_data"
    assert "base64" in error.message


def test_images_of_a_turn_with_calls_stay_in_it() -> None:
    said = {"role": "assistant", "content": [{"type": "input_image", "image_url": "data:;base64,aGVsbG8="}]}
    call = {"type": "function_call", "name": "f", "call_id": "c"}
    message = chat(input=["", said, call][1:]).messages[0]
    assert (message.images, message.tool_calls[0].name) == (("aGVsbG8=",), "f")


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    assert refused(min_p=share).param == "min_p"
