"""From OpenAI's request to ours: what passes, what is refused, and whom an error blames."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.errors import BadRequest
from llm_queue.wire.callers.dialect import Parsed, RequestLimits
from llm_queue.wire.callers.openai_request import ChatReply, parse_chat
from llm_queue.wire.shapes import ChatRequest, Sampling, ToolCall, ToolChoice
from llm_queue.wire.wishes import Wishes

LIMITS = RequestLimits(max_depth=64, max_messages=10, num_ctx_ceiling=65536)
PIXEL = base64.b64encode(b"not really a picture").decode()
HELLO = {"role": "user", "content": "Hello"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def parse(**fields: Any) -> Parsed[ChatReply]:
    return parse_chat(json.dumps({"messages": [HELLO]} | fields).encode(), LIMITS)


def chat(**fields: Any) -> ChatRequest:
    request = parse(**fields).request
    assert isinstance(request, ChatRequest)
    return request


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(**fields)
    return caught.value


def said(*content: Any) -> str:
    """The text of one user message that has these parts."""
    return chat(messages=[{"role": "user", "content": list(content)}]).messages[0].content


def call(arguments: Any, **more: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}} | more


# --- the body ---------------------------------------------------------------------------------------------------------


def test_the_least_request_gets_nothing_that_was_not_given() -> None:
    request = chat()
    assert request == ChatRequest("", request.messages)
    assert request.messages[0].content == "Hello"
    assert parse() == Parsed(request, ChatReply())


OPTIONAL = [
    "model",
    "stream",
    "stream_options",
    "n",
    "max_completion_tokens",
    "max_tokens",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "prompt_cache_key",
    "reasoning",
    "reasoning_effort",
    "think",
    "logprobs",
    "top_logprobs",
    "options",
    "num_ctx",
    "numCtx",
    "priority",
    "service_tier",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
    "top_k",
    "logit_bias",
    "modalities",
    "audio",
    "grammar",
    "add_generation_prompt",
    "continue_final_message",
    "verbosity",
    "num_gpu",
    "shift",
    "user",
]


@pytest.mark.parametrize("field", OPTIONAL)
def test_null_is_the_same_as_absent(field: str) -> None:
    assert parse(**{field: None}) == parse()


def test_unknown_fields_are_ignored() -> None:
    ignored = {"metadata": {"a": [1]}, "keep_alive": 0, "store": True, "safety_identifier": "x", "prediction": 3}
    assert parse(**ignored) == parse()


@pytest.mark.parametrize("field", ["logit_bias", "moderation", "verbosity", "web_search_options"])
def test_fields_that_would_change_an_answer_elsewhere_are_named(field: str) -> None:
    assert parse(**{field: {"any": "thing"}}).wishes == Wishes(dropped=(field,))
    assert parse(**{field: {}}) == parse()


@pytest.mark.parametrize("field", ["add_generation_prompt", "continue_final_message"])
def test_how_an_answer_is_gone_on_with_is_the_engines_affair(field: str) -> None:
    assert parse(**{field: True}).wishes == Wishes(dropped=(field,))
    assert refused(add_generation_prompt=True, continue_final_message=True).param == "continue_final_message"


def test_a_grammar_is_handed_on_as_it_is() -> None:
    assert chat(grammar='root ::= "a"').grammar == 'root ::= "a"'
    assert chat(grammar="").grammar is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"modalities": ["image"]}, "modalities"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}, "modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ],
)
def test_an_answer_that_is_no_text_is_refused(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_an_answer_may_be_asked_for_as_text() -> None:
    assert parse(modalities=["text"], audio={"voice": "alloy"}) == parse(modalities=[]) == parse()


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b"null", b"3", b'"text"', b'{"messages":[NaN]}', b"\xff\xfe"]
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_chat(body, LIMITS)
    assert caught.value.http_status == 400


def test_a_deep_body_is_refused() -> None:
    with pytest.raises(BadRequest, match="deeper than 64"):
        parse_chat(b'{"messages":' + b"[" * 100_000, LIMITS)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [HELLO, 3]}, "messages[1]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [HELLO, HELLO, HELLO, {"role": "user", "content": 3}]}, "messages[3].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["text"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
        ({"messages": [HELLO] * 11}, "messages"),
        ({"model": 3}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": "5"}, "max_completion_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"stop": 3}, "stop"),
        ({"stop": ["a", 3]}, "stop[1]"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": 3}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}},
            "response_format.json_schema.schema",
        ),
        ({"tools": {}}, "tools"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "browser"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"parallel_tool_calls": "x"}, "parallel_tool_calls"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"think": "extreme"}, "think"),
        ({"think": 1}, "think"),
        ({"logprobs": 5}, "logprobs"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": []}, "options"),
    ],
)
def test_an_error_names_the_field(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert param in error.message
    assert error.http_status == 400


def test_a_float_that_no_machine_holds_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_chat(b'{"messages":[{"role":"user","content":"x"}],"temperature":1e999}', LIMITS)
    assert caught.value.param == "temperature"


# --- messages ---------------------------------------------------------------------------------------------------------


@given(st.text())
def test_text_is_verbatim(text: str) -> None:
    messages = [{"role": role, "content": text} for role in ("system", "user", "assistant", "tool")]
    for message in chat(messages=messages).messages:
        assert message.content == text
    assert said({"type": "text", "text": text}) == text


@given(st.text(min_size=1))
def test_text_is_verbatim_whether_escaped_or_not(text: str) -> None:
    body = {"messages": [{"role": "user", "content": text}]}
    plain, escaped = (json.dumps(body, ensure_ascii=ascii_only).encode() for ascii_only in (False, True))
    assert parse_chat(plain, LIMITS) == parse_chat(escaped, LIMITS)


def test_developer_is_system() -> None:
    assert chat(messages=[{"role": "developer", "content": "Be brief."}]).messages[0].role == "system"


def test_content_parts_are_kept_and_joined_with_a_newline() -> None:
    assert said({"type": "text", "text": "one "}, {"type": "text", "text": " two"}) == "one \n two"


@pytest.mark.parametrize("role", ["system", "developer", "assistant", "tool"])
def test_content_parts_are_kept_in_every_role(role: str) -> None:
    messages = [{"role": role, "content": [{"type": "text", "text": "kept"}]}]
    assert chat(messages=messages).messages[0].content == "kept"


def test_text_and_images_become_one_message() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
        {"type": "image_url", "image_url": f"data:;base64,{PIXEL}"},
    ]
    (message,) = chat(messages=[{"role": "user", "content": parts}]).messages
    assert message.content == "What is this?"
    assert message.images == (PIXEL, PIXEL)


@pytest.mark.parametrize("kind", ["jpeg", "jpg", "png", "webp"])
def test_the_kinds_of_image_that_ollama_takes(kind: str) -> None:
    part = {"type": "image_url", "image_url": f"data:image/{kind};base64,{PIXEL}"}
    assert chat(messages=[{"role": "user", "content": [part]}]).messages[0].images == (PIXEL,)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/cat.png",
        "https://example.com/cat.png",
        "file:///etc/passwd",
        "",
        "data:image/svg+xml;base64,AAAA",
        "data:image/png,rawbytes",
        "data:image/png;base64,",
        "data:image/png;base64,AAA",
        "data:image/png;base64,AA AA",
        "data:image/png;base64,\r\n",
        "data:image/png;base64,ÄÄÄÄ",
    ],
)
def test_images_are_never_fetched_and_must_be_base64(url: str) -> None:
    error = refused(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
    assert error.param == "messages[0].content[0].image_url.url"


def test_a_refused_image_url_says_what_to_send() -> None:
    error = refused(
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": "https://a.test/b.png"}]}]
    )
    assert "send it as base64 data: URL" in error.message
    assert error.param == "messages[0].content[0].image_url"


@pytest.mark.parametrize("text", ['{"city": "Köln", "days": 1.10}', '{"cut', "[1]", '"text"', '{"a": NaN}'])
def test_tool_calls_are_kept_with_the_text_of_their_arguments(text: str) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [call(text)]}
    (turn,) = chat(messages=[message]).messages
    assert turn.content == ""
    assert turn.tool_calls[0].name == "weather"
    assert turn.tool_calls[0].id == "call_1"
    assert turn.tool_calls[0].arguments == text


@pytest.mark.parametrize(
    ("given", "arguments"), [("", "{}"), (None, "{}"), ("null", "{}"), ("{}", "{}"), ({"a": 1}, '{"a": 1}')]
)
def test_arguments_may_be_empty_or_an_object_already(given: Any, arguments: str) -> None:
    (turn,) = chat(messages=[{"role": "assistant", "tool_calls": [call(given)]}]).messages
    assert turn.tool_calls[0].arguments == arguments


@pytest.mark.parametrize("bad", ["[" * 100_000, "{}" * 200_001, 3, ["{}"], True])
def test_arguments_without_bounds_and_those_that_are_no_text_are_refused(bad: Any) -> None:
    error = refused(messages=[HELLO, {"role": "assistant", "tool_calls": [call("{}"), call(bad)]}])
    assert error.param == "messages[1].tool_calls[1].function.arguments"


def test_big_integers_in_arguments_and_schemas_keep_their_digits() -> None:
    big = 10**25 + 1
    tool = {"type": "function", "function": {"name": "f", "parameters": {"maximum": big}}}
    request = chat(messages=[{"role": "assistant", "tool_calls": [call({"id": big})]}], tools=[tool])
    assert request.messages[0].tool_calls[0].arguments == json.dumps({"id": big})
    assert request.tools == (tool,)


def test_a_tool_result_finds_the_name_of_its_function() -> None:
    messages = [
        {"role": "assistant", "tool_calls": [call("{}"), call("{}", id="call_2", function={"name": "clock"})]},
        {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_1", "name": "given", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_9", "content": "?"},
    ]
    results = chat(messages=messages).messages[1:]
    assert [result.tool_name for result in results] == ["clock", "weather", "given", None]
    assert results[0].tool_call_id == "call_2"


def test_an_id_that_is_used_again_means_the_latest_call() -> None:
    messages = [
        {"role": "assistant", "tool_calls": [call("{}")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "assistant", "tool_calls": [call("{}", function={"name": "clock"})]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ]
    turns = chat(messages=messages).messages
    assert (turns[1].tool_name, turns[3].tool_name) == ("weather", "clock")


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thinking_of_earlier_turns_is_kept(field: str) -> None:
    (turn,) = chat(messages=[{"role": "assistant", "content": "4", field: " 2+2 "}]).messages
    assert (turn.content, turn.thinking) == ("4", " 2+2 ")


def test_a_refusal_stands_for_content() -> None:
    (turn,) = chat(messages=[{"role": "assistant", "content": None, "refusal": "No."}]).messages
    assert turn.content == "No."
    parts = [{"type": "refusal", "refusal": "No."}]
    assert chat(messages=[{"role": "assistant", "content": parts}]).messages[0].content == "No."


# --- parameters -------------------------------------------------------------------------------------------------------


def test_sampling_parameters_go_by_ollamas_names() -> None:
    given: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.25,
        "frequency_penalty": -1.0,
        "presence_penalty": 1.0,
        "seed": -7,
        "stop": ["a", "b"],
        "top_k": 40,
        "min_p": 0.125,
        "typical_p": 1.0,
        "repeat_penalty": 1.5,
        "repeat_last_n": -1,
    }
    sampling = Sampling(**given | {"stop": ("a", "b")})
    assert chat(**given).sampling == sampling
    assert chat(options=given).sampling == sampling


def test_zero_is_a_value() -> None:
    assert chat(temperature=0, seed=0, top_k=0).sampling.given() == {"temperature": 0, "seed": 0, "top_k": 0}


def test_one_stop_text_is_a_list_of_one() -> None:
    assert chat(stop="\n\n").sampling == Sampling(stop=("\n\n",))


def test_an_empty_list_of_stops_leaves_those_of_the_model() -> None:
    assert chat(stop=[]).sampling == Sampling()


def test_own_fields_win_over_the_options_object() -> None:
    given = chat(temperature=0.5, options={"temperature": 1, "top_k": 3}).sampling
    assert given == Sampling(temperature=0.5, top_k=3)


def test_max_completion_tokens_wins() -> None:
    assert chat(max_tokens=10).max_tokens == 10
    assert chat(max_tokens=10, max_completion_tokens=20).max_tokens == 20
    assert chat(max_tokens=10, options={"num_predict": -1}).max_tokens == 10
    assert chat(options={"num_predict": 5}).max_tokens == 5


@pytest.mark.parametrize("limit", [0, -1, -2])
def test_a_limit_of_none_is_no_limit(limit: int) -> None:
    for fields in ({"max_tokens": limit}, {"max_completion_tokens": limit}, {"options": {"num_predict": limit}}):
        assert chat(**fields).max_tokens is None
    assert chat(max_completion_tokens=limit, max_tokens=10).max_tokens is None


RELOADING = ["num_batch", "num_gpu", "num_thread", "main_gpu", "use_mmap", "num_keep", "draft_num_predict", "shift"]


@pytest.mark.parametrize("name", RELOADING)
@pytest.mark.parametrize("value", [0, 4, False, "x"])
def test_options_that_would_reload_the_model_are_dropped_and_named(name: str, value: Any) -> None:
    for parsed in (parse(**{name: value}), parse(options={name: value}), parse(**{name: 1}, options={name: value})):
        assert parsed.wishes == Wishes(dropped=(name,))
        assert parsed.request == chat()


@pytest.mark.parametrize("field", ["numCtx", "num_ctx"])
def test_a_context_size_by_either_name(field: str) -> None:
    assert parse(**{field: 8192}).wishes.num_ctx == 8192
    assert parse(**{field: 65536}).wishes.num_ctx == 65536
    assert parse(**{field: 1}).wishes.num_ctx == 1


def test_a_context_size_is_no_option() -> None:
    parsed = parse(options={"num_ctx": 4096})
    assert parsed.wishes.num_ctx == 4096
    assert parsed.request == chat()


@pytest.mark.parametrize("value", [True, False, 0, -1, 65537, 10**30, 8192.5, 8192.0, "8192", [8192], {}])
@pytest.mark.parametrize("field", ["numCtx", "num_ctx", "options.num_ctx"])
def test_a_bad_context_size_names_the_limit(field: str, value: Any) -> None:
    outer, _, inner = field.partition(".")
    error = refused(**{outer: {inner: value} if inner else value})
    assert error.param == field
    assert "65536" in error.message


def test_two_context_sizes_must_agree() -> None:
    assert parse(numCtx=4096, num_ctx=4096, options={"num_ctx": 4096}).wishes.num_ctx == 4096
    assert refused(numCtx=4096, num_ctx=8192).param == "numCtx"
    assert refused(num_ctx=4096, options={"num_ctx": 8192}).param == "num_ctx"


@pytest.mark.parametrize(
    ("given", "format"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x"}, "schema": {"type": "object"}}, {"type": "object"}),
        ({"type": "json_schema", "schema": {"type": "object"}}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"type": "object"}}, {"type": "object"}),
        ({"type": "json_object", "schema": {"type": "object"}}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "strict": True}}, "json"),
        ({"type": "json_schema"}, "json"),
    ],
)
def test_response_format(given: Any, format: Any) -> None:
    assert chat(response_format=given).format == format


TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "x-own": [1]}, "strict": True},
}


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        (None, None),
        ("whatever", None),
        ({"type": "custom", "custom": {"name": "f"}}, ToolChoice("function", "f")),
        ({"type": "function"}, None),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("function", "f")),
    ],
)
def test_tools_pass_as_they_came_with_the_choice_among_them(said: Any, choice: ToolChoice | None) -> None:
    request = chat(tools=[TOOL], tool_choice=said, parallel_tool_calls=False)
    assert (request.tools, request.tool_choice) == ((TOOL,), choice)
    assert request.parallel_tool_calls is False


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_are_those_that_are_left(mode: Any) -> None:
    other = {"type": "function", "function": {"name": "g"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [other]}}
    request = chat(tools=[TOOL, other], tool_choice=allowed)
    assert (request.tools, request.tool_choice) == ((other,), ToolChoice(mode))


def custom(**more: Any) -> dict[str, Any]:
    return {"type": "custom", "custom": {"name": "sql"} | more}


ONE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
LARK = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: WORD"}}


@pytest.mark.parametrize(
    ("more", "function"),
    [
        ({}, {}),
        ({"description": "Runs SQL."}, {"description": "Runs SQL."}),
        ({"format": {"type": "text"}}, {}),
        ({"format": LARK}, {"description": "The input must follow this lark grammar:\nstart: WORD"}),
        (
            {"description": "Runs SQL.", "format": LARK},
            {"description": "Runs SQL.\n\nThe input must follow this lark grammar:\nstart: WORD"},
        ),
    ],
)
def test_a_custom_tool_becomes_a_function_of_one_text(more: dict[str, Any], function: dict[str, Any]) -> None:
    parsed = parse(tools=[TOOL, custom(**more)], tool_choice={"type": "custom", "custom": {"name": "sql"}})
    wrapped = {"type": "function", "function": {"name": "sql"} | function | {"parameters": ONE_TEXT}}
    assert isinstance(parsed.request, ChatRequest)
    assert parsed.request.tools == (TOOL, wrapped)
    assert parsed.request.tool_choice == ToolChoice("function", "sql")
    assert parsed.reply == ChatReply(custom=frozenset({"sql"}))


def test_a_call_of_a_custom_tool_comes_back_in_the_conversation() -> None:
    called = {"id": "call_1", "type": "custom", "custom": {"name": "sql", "input": 'SELECT "ü"'}}
    said, result = chat(
        messages=[
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "call_1", "content": "ü"},
        ]
    ).messages
    assert said.tool_calls == (ToolCall("sql", '{"input":"SELECT \\"ü\\""}', "call_1"),)
    assert result.tool_name == "sql"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"id": "call_1"}, "function"),
        ({"custom": {"name": "sql"}}, "custom.input"),
        ({"function": {}}, "function.name"),
    ],
)
def test_an_earlier_call_is_of_a_function_or_of_a_custom_tool(given: dict[str, Any], param: str) -> None:
    error = refused(messages=[{"role": "assistant", "tool_calls": [given]}])
    assert error.param == f"messages[0].tool_calls[0].{param}"


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "custom"}, "tools[0].custom"),
        ({"type": "custom", "custom": {}}, "tools[0].custom.name"),
        ({"type": "custom", "custom": {"name": "f", "format": {"type": "xml"}}}, "tools[0].custom.format.type"),
        ({"type": "web_search"}, "tools[0].type"),
    ],
)
def test_what_is_missing_in_a_tool_is_named(tool: dict[str, Any], param: str) -> None:
    assert refused(tools=[tool]).param == param


def test_custom_tools_may_be_among_the_allowed_ones() -> None:
    allowed = {"mode": "auto", "tools": [{"type": "custom", "custom": {"name": "sql"}}, {"type": "mcp"}]}
    request = chat(tools=[TOOL, custom()], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool["function"]["name"] for tool in request.tools] == ["sql"]
    none = chat(tools=[TOOL], tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "required"}})
    assert (none.tools, none.tool_choice) == ((), ToolChoice("required"))


# --- files ------------------------------------------------------------------------------------------------------------


def file(text: bytes = b"one\ntwo", kind: str = "text/plain", **more: Any) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": f"data:{kind};base64,{base64.b64encode(text).decode()}"} | more}


@pytest.mark.parametrize("kind", ["text/plain", "TEXT/csv", "text/x-python;charset=utf-8", "text/vnd.a+b;a=b;c="])
def test_a_text_file_is_a_part_of_the_text(kind: str) -> None:
    assert said({"type": "text", "text": "Sum up:"}, file(kind=kind)) == "Sum up:\none\ntwo"


def test_a_text_file_stands_under_its_name() -> None:
    assert said(file("Grüße".encode(), filename="a.txt")) == "a.txt:\nGrüße"
    assert said(file(b"", filename="")) == ""


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"file_id": "file-1"}, "file", "no files are kept here"),
        ({}, "file", "no files are kept here"),
        ({"file_data": "data:application/pdf;base64,AAAA"}, "file.file_data", "only text files"),
        ({"file_data": "AAAA"}, "file.file_data", "only text files"),
        ({"file_data": "data:text/plain,hello"}, "file.file_data", "only text files"),
        ({"file_data": "https://example.com/a.txt"}, "file.file_data", "only text files"),
        ({"file_data": "data:text/plain;base64,A"}, "file.file_data", "not valid base64"),
        ({"file_data": "data:text/plain;base64,/w=="}, "file.file_data", "not UTF-8"),
    ],
)
def test_other_files_are_refused_by_name(given: dict[str, Any], param: str, words: str) -> None:
    error = refused(messages=[{"role": "user", "content": [{"type": "file", "file": given}]}])
    assert error.param == f"messages[0].content[0].{param}"
    assert words in error.message


@pytest.mark.parametrize(
    ("said", "choice"), [(None, None), ("none", ToolChoice("none")), ({"name": "f"}, ToolChoice("function", "f"))]
)
def test_the_older_function_calling_is_the_same_in_other_words(said: Any, choice: ToolChoice | None) -> None:
    parsed = parse(functions=[TOOL["function"]], function_call=said)
    assert parsed.request == ChatRequest("", chat().messages, tools=(TOOL,), tool_choice=choice)
    assert parsed.reply == ChatReply(older_calls=True)
    assert parse(functions=[TOOL["function"]], tools=[TOOL]).reply == ChatReply()


def test_earlier_turns_may_be_of_the_older_function_calling() -> None:
    said, result, other = chat(
        messages=[
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
            {"role": "function", "name": "g", "content": "43"},
        ]
    ).messages
    assert said.tool_calls == (ToolCall("f", "{}", "call_0"),)
    assert (result.role, result.tool_name, result.tool_call_id, result.content) == ("tool", "f", "call_0", "42")
    assert (other.tool_name, other.tool_call_id) == ("g", None)


@pytest.mark.parametrize("role", ["User", "SYSTEM", "Developer", "ASSISTANT", "Tool", "FUNCTION"])
def test_a_role_may_have_capitals(role: str) -> None:
    assert chat(messages=[{"role": role, "content": "x"}]) == chat(messages=[{"role": role.lower(), "content": "x"}])


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_no_parts_are_an_empty_content(role: str) -> None:
    assert chat(messages=[{"role": role, "content": []}]).messages[0].content == ""


def test_base64_may_have_line_ends() -> None:
    part = {"type": "image_url", "image_url": f"data:image/png;base64,{PIXEL[:8]}\r\n{PIXEL[8:]}\n"}
    assert chat(messages=[{"role": "user", "content": [part]}]).messages[0].images == (PIXEL,)


def test_tools_are_checked_even_when_they_are_not_to_be_used() -> None:
    assert refused(tools=[{}], tool_choice="none").param == "tools[0].type"


@pytest.mark.parametrize(
    ("effort", "think"),
    [
        ("none", False),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "max"),
        ("ultra", "max"),
        ("max", "max"),
        ("", None),
    ],
)
def test_reasoning_effort(effort: str, think: bool | str | None) -> None:
    assert chat(reasoning_effort=effort).think == think
    assert chat(reasoning={"effort": effort}, reasoning_effort="medium").think == think
    assert chat(think=effort).think == think


@pytest.mark.parametrize("think", [True, False])
def test_think_is_a_switch_too(think: bool) -> None:
    assert chat(think=think).think is think


def test_an_unknown_effort_says_which_there_are() -> None:
    assert "medium" in refused(reasoning_effort="extreme").message


def test_logprobs() -> None:
    request = chat(logprobs=True, top_logprobs=20)
    assert (request.logprobs, request.top_logprobs) == (True, 20)


def test_streaming() -> None:
    assert not parse(stream=False).stream
    parsed = parse(stream=True, stream_options={"include_usage": True})
    assert (parsed.stream, parsed.reply) == (True, ChatReply(include_usage=True))


def test_the_requested_model_is_verbatim() -> None:
    assert chat(model="hf.co/Some/Model:Q4_K_M").model == "hf.co/Some/Model:Q4_K_M"
    assert chat(model="").model == ""


# --- priority ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "wishes"),
    [
        ({"priority": True, "service_tier": "flex"}, Wishes("interactive")),
        ({"priority": 2.5}, Wishes("normal", True)),
        ({"service_tier": "flex"}, Wishes("background")),
        ({"service_tier": 3}, Wishes("normal", True)),
        ({"prompt_cache_key": "talk"}, Wishes(session="talk")),
        ({"prompt_cache_key": 3}, Wishes()),
    ],
)
def test_what_is_meant_for_the_line(fields: dict[str, Any], wishes: Wishes) -> None:
    assert parse(**fields).wishes == wishes


@given(json_values)
def test_priority_and_service_tier_of_any_type_are_never_an_error(value: Any) -> None:
    parse(priority=value, service_tier=value, prompt_cache_key=value)


@pytest.mark.parametrize("value", [b"1e999", b"9" * 5000, b"[1]", b'{"level": 1}'])
@pytest.mark.parametrize("field", [b"priority", b"service_tier"])
def test_a_priority_that_is_none_is_unknown(field: bytes, value: bytes) -> None:
    body = b'{"messages":[{"role":"user","content":"x"}],"%b":%b}' % (field, value)
    assert parse_chat(body, LIMITS).wishes == Wishes("normal", True)


# --- anything at all --------------------------------------------------------------------------------------------------


@given(st.binary())
def test_any_bytes_are_refused_or_read(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        parse_chat(body, LIMITS)


FIELDS = st.sampled_from([*OPTIONAL, "messages"])


@given(st.dictionaries(FIELDS, json_values))
def test_any_json_is_refused_or_read(fields: dict[str, Any]) -> None:
    body = json.dumps({"messages": [HELLO]} | fields).encode()
    with contextlib.suppress(BadRequest):
        parse_chat(body, LIMITS)


PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "refusal"])},
    optional={"text": json_values, "image_url": json_values, "refusal": json_values},
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
    optional={
        "content": st.text() | st.lists(PARTS, max_size=3) | json_values,
        "refusal": json_values,
        "tool_calls": st.lists(st.builds(call, json_values) | json_values, max_size=2),
        "tool_call_id": json_values,
        "name": json_values,
        "reasoning": json_values,
    },
)


@given(st.lists(MESSAGES, max_size=4))
def test_any_messages_are_refused_or_read(messages: list[Any]) -> None:
    with contextlib.suppress(BadRequest):
        assert len(chat(messages=messages).messages) == len(messages)
