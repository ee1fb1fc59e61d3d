"""OpenAI's dialect towards an upstream: what is asked, and how streams are read, however the network cuts them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_queue.errors import UpstreamBroke
from llm_queue.wire.shapes import ChatRequest, Completion, Delta, Message, Sampling, ToolCall, fold
from llm_queue.wire.upstreams.lines import MAX_LINE
from llm_queue.wire.upstreams.openai_catalog import Listed, error_text, parse_models
from llm_queue.wire.upstreams.openai_request import chat_body
from llm_queue.wire.upstreams.openai_response import StreamDecoder


def body(*messages: Message, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(chat_body(ChatRequest("m", messages or (Message("user", "hi"),), **fields)))
    return made


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + (event if isinstance(event, bytes) else dump(event)) + b"\n\n" for event in events)


def dump(event: object) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def chunk(finish: str | None = None, logprobs: Any = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}]}


def read(stream: bytes, size: int | None = None) -> tuple[Delta, Completion]:
    decoder = StreamDecoder()
    deltas: list[Delta] = []
    for start in range(0, len(stream), size or len(stream)):
        deltas += decoder.feed(stream[start : start + (size or len(stream))])
    left, completion = decoder.close()
    answer = fold(deltas + left, completion)
    return answer.message, answer.completion


LLAMA = (
    b": comment\n\n"
    + sse(chunk(role="assistant", content=None), chunk(content="  Grüße "), chunk(content="🙂\n"), chunk("stop"))
    + b":\n\n"
    + sse({"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 48}}, b"[DONE]")
)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_is_always_streamed_and_asks_for_its_counts() -> None:
    assert body() == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_sampling_fields_stand_at_the_top_level() -> None:
    made = body(sampling=Sampling(temperature=0.5, stop=("\n",), seed=7), max_tokens=60)
    assert (made["temperature"], made["stop"], made["seed"], made["max_tokens"]) == (0.5, ["\n"], 7, 60)


def test_no_limit_is_said_by_saying_nothing() -> None:
    assert "max_tokens" not in body()


def test_a_format_is_a_response_format() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert body(format="json")["response_format"] == {"type": "json_object"}
    assert body(format=schema)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema},
    }


@pytest.mark.parametrize(
    ("think", "effort"), [(False, "none"), (True, "medium"), ("low", "low"), ("high", "high"), ("max", "high")]
)
def test_thinking_is_an_effort(think: bool | str, effort: str) -> None:
    assert body(think=think)["reasoning_effort"] == effort


def test_a_grammar_goes_along() -> None:
    assert body(grammar='root ::= "a"')["grammar"] == 'root ::= "a"'
    assert "grammar" not in body()


def test_logprobs_and_tools_go_along() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"n": 2**70}}}
    made = body(tools=(tool,), logprobs=True, top_logprobs=3)
    assert (made["tools"], made["logprobs"], made["top_logprobs"]) == ([tool], True, 3)


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("iVBORw0KGgo=", "data:image/png;base64,iVBORw0KGgo="),
        ("/9j/4AAQ", "data:image/jpeg;base64,/9j/4AAQ"),
        ("UklGRgAA", "data:image/webp;base64,UklGRgAA"),
        ("AAAA", "data:image/png;base64,AAAA"),
    ],
)
def test_images_are_parts_after_the_text(image: str, url: str) -> None:
    made = body(Message("user", "look", images=(image,)))
    assert made["messages"][0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    assert len(body(Message("user", "", images=(image,)))["messages"][0]["content"]) == 1


def test_tool_calls_have_their_arguments_as_text_and_always_an_id() -> None:
    calls = (ToolCall("f", '{"ü":[1]}', "call_x"), ToolCall("g"))
    said, result = body(
        Message("assistant", "", thinking="hm", tool_calls=calls),
        Message("tool", "42", tool_call_id="call_x", tool_name="f"),
    )["messages"]
    assert said["reasoning_content"] == "hm"
    assert said["tool_calls"] == [
        {"id": "call_x", "type": "function", "function": {"name": "f", "arguments": '{"ü":[1]}'}},
        {"id": "call_0_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert result == {"role": "tool", "content": "42", "tool_call_id": "call_x", "name": "f"}


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, *range(1, 40)])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_the_text_comes_out_verbatim_however_the_stream_was_cut(size: int | None, ending: bytes) -> None:
    message, completion = read(LLAMA.replace(b"\n", ending), size)
    assert message == Delta(content="  Grüße 🙂\n")
    assert completion == Completion("stop", prompt_tokens=40, completion_tokens=8, finish_text="stop")


def test_a_stream_that_ends_before_its_finish_reason_is_an_error() -> None:
    finished = LLAMA.index(b"\n\n", LLAMA.index(b'"stop"')) + 2
    for end in range(1, len(LLAMA)):
        if end < finished:
            with pytest.raises(UpstreamBroke, match="broke off"):
                read(LLAMA[:end], 7)
        else:
            assert read(LLAMA[:end], 7)[1].finish_reason == "stop"


@pytest.mark.parametrize("end", [b"\n", b""])
def test_done_without_a_finish_reason_is_an_end(end: bytes) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    stream = sse(chunk(content="all"), chunk(tool_calls=[call])) + b"data: [DONE]\n" + end
    message, completion = read(stream)
    assert message == Delta("all", tool_calls=(ToolCall("f", "{}", "a"),))
    assert completion == Completion("stop", finish_text="stop")


def test_done_without_any_answer_is_an_error() -> None:
    with pytest.raises(UpstreamBroke, match="broke off"):
        read(sse(b"[DONE]"))


def test_the_last_event_must_have_ended() -> None:
    with pytest.raises(UpstreamBroke, match="broke off"):
        read(sse(chunk(content="half"), chunk("stop"))[:-1])


def test_what_follows_the_done_mark_is_ignored() -> None:
    message, _ = read(sse(chunk(content="all"), chunk("stop"), b"[DONE]") + b"data: garbage\n\n" * 3)
    assert message.content == "all"


def test_length_is_passed_on_as_it_is() -> None:
    assert read(sse(chunk(content="cut"), chunk("length")))[1].finish_reason == "length"


def test_other_fields_of_events_and_a_missing_space_mean_nothing() -> None:
    stream = b"event: message\nid: 7\nretry: 1\ndata:" + dump(chunk("stop", content="x")) + b"\n\n"
    assert read(stream)[0].content == "x"


def test_an_event_may_have_its_data_on_several_lines() -> None:
    assert (
        read(b'data: {"choices": [{"delta": {"content": "x"},\ndata: "finish_reason": "stop"}]}\n\n')[0].content == "x"
    )


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_are_told_from_the_answer(field: str) -> None:
    message, _ = read(sse(chunk(**{field: "let me "}), chunk(**{field: "see"}), chunk(content="4"), chunk("stop")))
    assert message == Delta(content="4", thinking="let me see")


def test_logprobs_are_kept() -> None:
    item = {"token": "4", "logprob": -0.1, "bytes": [52], "top_logprobs": []}
    message, _ = read(sse(chunk(content="4", logprobs={"content": [item]}), chunk("stop")))
    assert message.logprobs == (item,)


def test_usage_may_come_with_the_finish_reason() -> None:
    last = chunk("stop") | {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    assert read(sse(chunk(content="x"), last))[1] == Completion("stop", 3, 1, finish_text="stop")


# --- tool calls -------------------------------------------------------------------------------------------------------


def piece(index: int | None, *, id: str | None = None, **function: Any) -> dict[str, Any]:
    return chunk(tool_calls=[{"index": index, "id": id, "function": function}])


@pytest.mark.parametrize("size", [None, 1, 5, 33])
def test_the_pieces_of_tool_calls_are_joined_by_their_index_and_come_whole(size: int | None) -> None:
    stream = sse(
        piece(1, id="b", name="second", arguments=""),
        piece(0, id="a", name="first", arguments='{"city"'),
        piece(1, arguments='{"n":'),
        piece(0, arguments=': "Köln"}'),
        piece(1, arguments="1}"),
        chunk("tool_calls"),
        b"[DONE]",
    )
    message, completion = read(stream, size)
    assert message.tool_calls == (ToolCall("first", '{"city": "Köln"}', "a"), ToolCall("second", '{"n":1}', "b"))
    assert completion.finish_reason == "tool_calls"


def test_pieces_without_an_index_are_calls_of_their_own() -> None:
    stream = sse(piece(None, name="a", arguments="{}"), piece(None, name="b", arguments={"x": 1}), chunk("tool_calls"))
    assert read(stream)[0].tool_calls == (ToolCall("a"), ToolCall("b", '{"x": 1}'))


def test_a_call_without_arguments_has_none() -> None:
    assert read(sse(piece(0, name="now"), chunk("tool_calls")))[0].tool_calls == (ToolCall("now"),)


@pytest.mark.parametrize("arguments", ["{", "[1]", '{"a":1} x'])
def test_arguments_that_are_no_object_are_for_the_caller_to_see(arguments: str) -> None:
    message, _ = read(sse(piece(0, name="f", arguments=arguments), chunk("tool_calls")))
    assert message.tool_calls == (ToolCall("f", arguments),)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_error_event_breaks_the_answer_with_its_text() -> None:
    with pytest.raises(UpstreamBroke, match="out of memory"):
        read(sse(chunk(content="half"), {"error": {"code": 500, "message": "out of memory", "type": "server_error"}}))


@pytest.mark.parametrize("event", [b"{", b"null", b'{"choices": 1}', b"\xff", b"[" * 100_000])
def test_an_event_that_is_no_answer_is_an_error(event: bytes) -> None:
    with pytest.raises(UpstreamBroke, match="not an answer"):
        read(sse(event))


@pytest.mark.parametrize("stream", [b"data: " + b"x" * MAX_LINE + b"y", b"data: xxxxxxx\n" * (MAX_LINE // 8 + 1)])
def test_an_event_without_end_is_given_up(stream: bytes) -> None:
    with pytest.raises(UpstreamBroke, match="more than"):
        read(stream)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":2048}}', "too long"),
        (b'{"error":"Unexpected endpoint"}', "Unexpected endpoint"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"object":"error","message":"max_tokens is too large","code":400}', "max_tokens is too large"),
        (b"<html>Bad Gateway</html>\n", "<html>Bad Gateway</html>"),
        (b'{"odd":1}', '{"odd":1}'),
        (b"", ""),
    ],
)
def test_every_shape_of_error_has_its_text(said: bytes, text: str) -> None:
    assert error_text(said) == text


# --- models -----------------------------------------------------------------------------------------------------------


def test_models_come_with_their_time_where_there_is_one() -> None:
    listed = parse_models(b'{"object":"list","data":[{"id":"a","created":7,"meta":{}},{"id":"b/c"}],"models":[]}')
    assert listed == (Listed("a", 7), Listed("b/c", 0))


def test_a_list_of_models_that_is_none_is_an_error() -> None:
    with pytest.raises(UpstreamBroke):
        parse_models(b"<html>")
