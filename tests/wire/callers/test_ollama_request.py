"""From Ollama's requests to ours: what is read, what is refused and in which words, what is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from llm_queue.errors import BadRequest, ModelNotFound, QueueError
from llm_queue.wire.callers.dialect import Parsed, RequestLimits
from llm_queue.wire.callers.ollama_request import (
    NO_TOKENS,
    Change,
    asked_to_change,
    asked_to_show,
    parse_chat,
    parse_embed,
    parse_embeddings,
    parse_generate,
)
from llm_queue.wire.shapes import ChatRequest, EmbedRequest, LoadRequest, Message, Sampling, TextRequest, ToolCall

LIMITS = RequestLimits(max_depth=12, max_messages=5, num_ctx_ceiling=65536)
HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "maxItems": 3}}}

Parse = Callable[[bytes, RequestLimits], Parsed[int]]


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def chat(**fields: Any) -> Parsed[int]:
    return parse_chat(encoded({"model": "m", "messages": HI} | fields), LIMITS)


def chatted(**fields: Any) -> ChatRequest:
    request = chat(**fields).request
    assert isinstance(request, ChatRequest)
    return request


def generate(**fields: Any) -> Parsed[int]:
    return parse_generate(encoded({"model": "m", "prompt": "once"} | fields), LIMITS)


def refusal(parse: Parse, body: Any) -> QueueError:
    with pytest.raises(QueueError) as refused:
        parse(encoded(body), LIMITS)
    return refused.value


# --- chats ------------------------------------------------------------------------------------------------------------


def test_a_chat_is_streamed_unless_it_says_no() -> None:
    assert chat().stream
    assert chat(stream=None).stream
    assert not chat(stream=False).stream
    assert chatted() == ChatRequest("m", (Message("user", "Hi"),))


def test_everything_in_a_chat_that_means_something_is_read() -> None:
    request = chatted(
        options={"temperature": 0.5, "top_k": 40.0, "seed": 7, "stop": ["a"], "num_predict": 9, "typical_p": 1},
        format=SCHEMA,
        tools=[TOOL],
        think="low",
        logprobs=True,
        top_logprobs=3,
        truncate=False,
        keep_alive="5m",
    )
    assert request == ChatRequest(
        "m",
        (Message("user", "Hi"),),
        sampling=Sampling(temperature=0.5, top_k=40, seed=7, stop=("a",), typical_p=1.0),
        max_tokens=9,
        format=SCHEMA,
        tools=(TOOL,),
        think="low",
        logprobs=True,
        top_logprobs=3,
        truncate=False,
        keep_alive=300.0,
    )


def test_messages_of_every_kind() -> None:
    turns = [
        {"role": "SYSTEM", "content": "be brief"},
        {"role": "user", "content": "look", "images": ["aGVs\r\nbG8="]},
        {
            "role": "assistant",
            "content": None,
            "thinking": "hm",
            "tool_calls": [
                {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"n": 1.10}}},
                {"function": {"name": "g"}},
            ],
        },
        {"role": "tool", "content": "42", "tool_name": "f", "tool_call_id": "call_1"},
        {},
    ]
    assert chatted(messages=turns).messages == (
        Message("system", "be brief"),
        Message("user", "look", images=("aGVsbG8=",)),
        Message(
            "assistant", "", thinking="hm", tool_calls=(ToolCall("f", '{"n": 1.1}', "call_1"), ToolCall("g", "{}"))
        ),
        Message("tool", "42", tool_call_id="call_1", tool_name="f"),
        Message("", ""),
    )


def test_arguments_of_a_call_are_kept_character_by_character() -> None:
    body = b'{"model":"m","messages":[{"tool_calls":[{"function":{"name":"f","arguments": {"n":  1.10, "B":1} }}]}]}'
    for one in (body, body.replace(b'"arguments"', b'"Arguments"')):
        request = parse_chat(one, LIMITS).request
        assert isinstance(request, ChatRequest)
        assert request.messages[0].tool_calls[0].arguments == '{"n":  1.10, "B":1}'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"Model":"m","MESSAGES":[{"Role":"USER","CONTENT":"Hi"}],"sTream":false}', "Hi"),
        (b'{"model":"m","messages":[{"content":"Hi"}],"stream":false}{"model":3}', "Hi"),
        (b'{"model":"m","Messages":[{"content":"Hi"}],"stream":false} trailing', "Hi"),
        (b'{"model":"x","messages":[{"content":"Ho","Content":"Hi"}],"Model":"m","stream":false}', "Hi"),
        (b' \n{"model":"m","messages":[{"content":"\\"Key\\": Hi"}],"stream":false}', '"Key": Hi'),
    ],
)
def test_a_body_is_read_as_go_reads_it(body: bytes, text: str) -> None:
    parsed = parse_chat(body, LIMITS)
    assert isinstance(parsed.request, ChatRequest)
    assert (parsed.request.model, parsed.request.messages[0].content, parsed.stream) == ("m", text, False)


def test_a_tools_schema_keeps_its_capitals() -> None:
    body = {"Model": "m", "Messages": HI, "Tools": [{"Type": "function", "Function": TOOL["function"]}]}
    request = parse_chat(encoded(body), LIMITS).request
    assert isinstance(request, ChatRequest)
    assert request.tools == (TOOL,)


@pytest.mark.parametrize(
    ("fields", "said", "param"),
    [
        ({"messages": [{"content": [{"type": "text", "text": "Hi"}]}]}, "messages[0].content: ", "messages[0].content"),
        ({"messages": "Hi"}, "messages: ", "messages"),
        ({"messages": HI * 6}, "messages: 6 of them; at most 5.", "messages"),
        (
            {"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
            "messages[0].tool_calls[0].function.arguments: Expected an object",
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {"messages": [{"images": ["AAAA", "data:image/png;base64,AAAA"]}]},
            "illegal base64 data at input byte 4: send",
            "messages[0].images[1]",
        ),
        ({"messages": [{"images": ["AAA"]}]}, "illegal base64 data at input byte 3", "messages[0].images[0]"),
        ({"messages": [{"images": ["é"]}]}, "illegal base64 data at input byte 0", "messages[0].images[0]"),
        (
            {"think": "xhigh"},
            'invalid think value: "xhigh" (must be "high", "medium", "low", "max", true, or false)',
            "think",
        ),
        ({"think": ""}, 'invalid think value: "" (must be', "think"),
        ({"think": 3}, "think must be a boolean or string", "think"),
        ({"think": ["low"]}, "think must be a boolean or string", "think"),
        ({"format": "xml"}, 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object', "format"),
        ({"format": 3}, 'invalid format: "3"; expected', "format"),
        ({"keep_alive": "-1"}, 'keep_alive: time: missing unit in duration "-1"', "keep_alive"),
        ({"keep_alive": True}, "keep_alive: it takes a duration such as 5m, or a number of seconds", "keep_alive"),
        ({"keep_alive": {}}, "keep_alive: it takes a duration", "keep_alive"),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20", "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs must be between 0 and 20", "top_logprobs"),
        ({"logprobs": 1}, "logprobs: ", "logprobs"),
        ({"stream": "yes"}, "stream: ", "stream"),
        ({"tools": "x"}, "tools: ", "tools"),
        ({"tools": [TOOL, {"type": "function"}]}, "tools[1].function: this field is required", "tools[1].function"),
        ({"options": []}, "options: ", "options"),
        ({"options": {"temperature": "hot"}}, "options.temperature: ", "options.temperature"),
        ({"options": {"seed": 1e300}}, "options.seed: no such number.", "options.seed"),
        ({"options": {"num_predict": 1e300}}, "options.num_predict: no such number.", "options.num_predict"),
        ({"options": {"stop": [1]}}, "options.stop[0]: ", "options.stop[0]"),
        ({"_debug_render_only": True}, "_debug_render_only: ", "_debug_render_only"),
        ({"model": 3}, "model: ", "model"),
        ({"model": ""}, "model is required", "model"),
        ({"model": None}, "model is required", "model"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], said: str, param: str) -> None:
    error = refusal(parse_chat, {"model": "m", "messages": HI} | fields)
    assert isinstance(error, BadRequest)
    assert error.message.startswith(said)
    assert error.param == param


@pytest.mark.parametrize("parse", [parse_chat, parse_generate, parse_embed, parse_embeddings])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "missing request body"),
        (b" \n", "missing request body"),
        (b"{bad", "The request body is not valid JSON: "),
        (b"[1]", "The request body: Expected an object"),
        (b'{"model":"m\xff"}', "The request body is not UTF-8."),
        (b'{"Model":"m\xff"}', "The request body is not UTF-8."),
        (b'{"model":' + b"[" * 50, "The request body is nested deeper than 12 levels."),
        (b'{"Messages":3,"model":"m","keep_alive":"5"}', ""),
    ],
)
def test_a_body_that_is_none_is_refused(parse: Parse, body: bytes, said: str) -> None:
    assert refusal(parse, body).message.startswith(said)


@pytest.mark.parametrize("body", [b'{"a":1e999}', b'{"a":' + b"9" * 5000 + b"}", b'{"a":01}', b'{"a":"\\ud800"}'])
def test_a_schema_with_a_number_or_a_text_that_nobody_can_hold_is_refused(body: bytes) -> None:
    for parse, rest in ((parse_chat, b'"messages":[{}]'), (parse_generate, b'"prompt":"x"')):
        assert refusal(parse, b'{"model":"m",%b,"format":%b}' % (rest, body)).message.startswith(
            ("format", "The request")
        )


def test_a_model_must_be_named_in_the_words_of_each_address() -> None:
    assert refusal(parse_embeddings, {}).message == "model is required"
    for parse in (parse_generate, parse_embed):
        error = refusal(parse, {})
        assert isinstance(error, ModelNotFound)
        assert error.model == ""


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        ({"stop": "x"}, Sampling(stop=("x",))),
        ({"stop": []}, Sampling()),
        ({"seed": 1.9, "repeat_last_n": -1}, Sampling(seed=1, repeat_last_n=-1)),
        ({"temperature": None, "mirostat": 2, "use_mlock": True}, Sampling()),
        ({"temperature": 0, "top_p": 1, "min_p": 0.1}, Sampling(temperature=0.0, top_p=1.0, min_p=0.1)),
        ({"Temperature": 0.5}, Sampling()),  # in this object Ollama, too, takes names as they are
        (None, Sampling()),
    ],
)
def test_options_that_are_passed_on(options: Any, sampling: Sampling) -> None:
    assert chatted(options=options).sampling == sampling


@pytest.mark.parametrize(
    ("num_predict", "tokens"),
    [(5, 5), (5.7, 5), (0, NO_TOKENS), (0.4, NO_TOKENS), (-1, None), (-2, None), (None, None)],
)
def test_the_limit_of_an_answer(num_predict: Any, tokens: int | None) -> None:
    assert chatted(options={"num_predict": num_predict}).max_tokens == tokens


@pytest.mark.parametrize(
    ("num_ctx", "wanted"),
    [(8192, 8192), (4096.5, 4096), (0, None), (-3, None), (None, None), (131072, 65536), (1e300, 65536), (0.5, None)],
)
def test_a_context_size_is_a_wish_and_never_an_error(num_ctx: Any, wanted: int | None) -> None:
    assert chat(options={"num_ctx": num_ctx}).wishes.num_ctx == wanted


def test_what_would_load_the_model_anew_is_left_out_and_named() -> None:
    options = {"num_thread": 4, "use_mmap": False, "num_gpu": 0, "num_keep": 3, "num_batch": None}
    assert set(chat(options=options, shift=False).wishes.dropped) == {
        "num_thread",
        "use_mmap",
        "num_gpu",
        "num_keep",
        "shift",
    }
    assert generate(width=512, height=None).wishes.dropped == ("width",)
    assert chat().wishes.dropped == ()


@pytest.mark.parametrize(
    ("priority", "lane"), [(True, "interactive"), ("background", "background"), (-1, "interactive"), ([1], "normal")]
)
def test_the_lane_may_be_in_the_body(priority: Any, lane: str) -> None:
    assert chat(priority=priority).wishes.lane == lane
    assert chat().wishes.lane is None


# --- how long a model stays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "seconds", "dropped"),
    [
        ("10m", 600, ()),
        (1800, 1800, ()),
        (-1, math.inf, ()),
        ("-1s", math.inf, ()),
        (None, None, ()),
        (0, None, ("keep_alive",)),
        ("0s", None, ("keep_alive",)),
    ],
)
def test_a_lifetime_is_honoured_where_it_lengthens(said: Any, seconds: float | None, dropped: tuple[str, ...]) -> None:
    for parsed in (
        chat(keep_alive=said),
        generate(keep_alive=said),
        parse_embed(encoded({"model": "m", "input": "a", "keep_alive": said}), LIMITS),
        parse_embeddings(encoded({"model": "m", "prompt": "a", "keep_alive": said}), LIMITS),
    ):
        assert not isinstance(parsed.request, LoadRequest)
        assert (parsed.request.keep_alive, parsed.wishes.dropped) == (seconds, dropped)


@pytest.mark.parametrize(
    ("parse", "empty"),
    [
        (parse_chat, {"messages": []}),
        (parse_chat, {}),
        (parse_generate, {}),
        (parse_generate, {"prompt": "", "suffix": "b"}),
        (parse_embed, {}),
        (parse_embed, {"input": ""}),
        (parse_embed, {"input": []}),
        (parse_embed, {"input": None}),
        (parse_embeddings, {"prompt": ""}),
    ],
)
def test_a_request_with_nothing_in_it_loads_or_unloads(parse: Parse, empty: dict[str, Any]) -> None:
    body = {"model": "m", "stream": True, "options": {"num_ctx": 4096, "num_gpu": 1}} | empty
    parsed = parse(encoded(body | {"keep_alive": "1h"}), LIMITS)
    assert parsed.request == LoadRequest("m", 3600.0)
    assert not parsed.stream
    assert (parsed.wishes.num_ctx, parsed.wishes.dropped) == (4096, ("num_gpu",))
    unload = parse(encoded(body | {"keep_alive": 0}), LIMITS)
    assert (unload.request, unload.wishes.dropped) == (LoadRequest("m", unload=True), ("num_gpu",))


# --- texts and embeddings ---------------------------------------------------------------------------------------------


def test_everything_in_a_text_that_means_something_is_read() -> None:
    parsed = generate(
        suffix="end",
        system="be brief",
        template="{{ .Prompt }}",
        images=["aWE="],
        context=[1, 2],
        format="json",
        think=False,
        logprobs=True,
        top_logprobs=0,
        truncate=True,
        keep_alive=-1,
        options={"num_predict": 3},
    )
    assert parsed.stream
    assert parsed.request == TextRequest(
        "m",
        "once",
        suffix="end",
        system="be brief",
        template="{{ .Prompt }}",
        templated=False,
        images=("aWE=",),
        context=(1, 2),
        max_tokens=3,
        format="json",
        think=False,
        logprobs=True,
        top_logprobs=0,
        truncate=True,
        keep_alive=math.inf,
    )
    assert generate(raw=True, suffix="", system="", template="", format="").request == TextRequest(
        "m", "once", raw=True
    )


def test_a_text_relies_on_the_models_template_unless_it_is_raw_or_to_be_filled_in() -> None:
    for fields, templated in (({}, True), ({"system": "b"}, True), ({"raw": True}, False), ({"suffix": "b"}, False)):
        request = generate(**fields).request
        assert isinstance(request, TextRequest)
        assert request.templated is templated


@pytest.mark.parametrize("field", [{"system": "b"}, {"template": "b"}, {"context": [1]}])
def test_a_raw_text_has_nothing_around_it(field: dict[str, Any]) -> None:
    error = refusal(parse_generate, {"model": "m", "prompt": "a", "raw": True} | field)
    assert error.message == "raw mode does not support template, system, or context"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": 3}, "prompt"),
        ({"context": ["a"]}, "context[0]"),
        ({"images": ["="]}, "images[0]"),
        ({"raw": 1}, "raw"),
        ({"_debug_render_only": True}, "_debug_render_only"),
    ],
)
def test_what_is_wrong_in_a_text_is_named(fields: dict[str, Any], param: str) -> None:
    assert refusal(parse_generate, {"model": "m", "prompt": "a"} | fields).param == param


@pytest.mark.parametrize(
    ("fields", "request_"),
    [
        ({"input": "a"}, EmbedRequest("m", ("a",))),
        ({"input": ["a", ""], "dimensions": 64, "truncate": False}, EmbedRequest("m", ("a", ""), 64, truncate=False)),
        ({"input": "a", "dimensions": 0}, EmbedRequest("m", ("a",))),
    ],
)
def test_texts_to_embed(fields: dict[str, Any], request_: EmbedRequest) -> None:
    parsed = parse_embed(encoded({"model": "m"} | fields), LIMITS)
    assert (parsed.request, parsed.stream) == (request_, False)


def test_the_older_embeddings_are_not_normalized() -> None:
    parsed = parse_embeddings(encoded({"model": "m", "prompt": "a", "options": {"num_ctx": 4096}}), LIMITS)
    assert parsed.request == EmbedRequest("m", ("a",), normalized=False)
    assert parsed.wishes.num_ctx == 4096


@pytest.mark.parametrize("given", [[1], 3, {}, [["a"]], True])
def test_other_things_to_embed_are_refused(given: Any) -> None:
    assert refusal(parse_embed, {"model": "m", "input": given}).message == "invalid input type"


def test_too_many_texts_to_embed_are_refused() -> None:
    assert refusal(parse_embed, {"model": "m", "input": ["a"] * 6}).param == "input"


# --- what is no model work --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "name"),
    [(b'{"model":"m"}', "m"), (b'{"name":"m:x","verbose":true}', "m:x"), (b'{"Name":"n","MODEL":"m"}', "m")],
)
def test_the_model_to_show(body: bytes, name: str) -> None:
    assert asked_to_show(body, 12) == name


@pytest.mark.parametrize(("body", "said"), [(b"{}", "model is required"), (b"", "missing request body")])
def test_a_model_to_show_must_be_named(body: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        asked_to_show(body, 12)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{}", Change("", True)),
        (b'{"model":"hf.co/a/b:Q4_K_M","stream":false}', Change("hf.co/a/b:Q4_K_M", False)),
        (b'{"name":"x","stream":true}', Change("x", True)),
        (b'{"source":"x","destination":"y"}', Change("x", True)),
        (b'{"model":"x; rm -rf /"}', Change("", True)),
        (b'{"model":7,"name":"y"}', Change("y", True)),
        (b"x", Change()),
        (b"", Change()),
        (b"[]", Change()),
        (b'{"model":"\xff"}', Change()),
        (b'{"model":"x","deep":' + b"[" * 100_000, Change()),
        (b'{"model":"x","stream":' + b"9" * 5000 + b"}", Change()),
    ],
)
def test_what_a_closed_route_reads(body: bytes, said: Change) -> None:
    assert asked_to_change(body, 12) == said
