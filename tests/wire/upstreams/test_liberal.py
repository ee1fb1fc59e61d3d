"""What servers of OpenAI's kind really send: read liberally, concluded strictly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_queue.errors import UpstreamBroke
from llm_queue.wire.callers.dialect import Served
from llm_queue.wire.callers.ollama_answers import ChatEncoder as OllamaEncoder
from llm_queue.wire.callers.openai_chat import ChatEncoder
from llm_queue.wire.callers.openai_completions import CompletionEncoder, CompletionReply
from llm_queue.wire.callers.openai_request import ChatReply
from llm_queue.wire.callers.responses import ResponsesEncoder
from llm_queue.wire.callers.responses_request import ResponsesReply
from llm_queue.wire.shapes import Answer, ToolCall, fold
from llm_queue.wire.upstreams.lines import MAX_LINE
from llm_queue.wire.upstreams.openai_catalog import Listed, error_text, parse_models
from llm_queue.wire.upstreams.openai_response import StreamDecoder

DONE = b"data: [DONE]\n\n"


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def choice(delta: object = None, reason: str | None = None, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": reason} | more]}


def call(index: int | None, name: str | None, arguments: object, call_id: str | None = None) -> dict[str, object]:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


def read(*pieces: bytes) -> Answer:
    decoder = StreamDecoder()
    deltas = [delta for piece in pieces for delta in decoder.feed(piece)]
    left, completion = decoder.close()
    return fold(deltas + left, completion)


def test_two_calls_that_are_both_number_0_are_told_apart_by_their_ids() -> None:
    answer = read(
        sse(choice({"tool_calls": [call(0, "look", '{"a":1}', "one")]})),
        sse(choice({"tool_calls": [call(0, "find", '{"b":2}', "two")]}, "tool_calls")),
    )
    assert answer.message.tool_calls == (ToolCall("look", '{"a":1}', "one"), ToolCall("find", '{"b":2}', "two"))


def test_two_calls_that_are_both_number_0_and_have_no_id_are_told_apart_by_what_is_whole() -> None:
    answer = read(
        sse(choice({"tool_calls": [call(0, "look", '{"a":1}')]})),
        sse(choice({"tool_calls": [call(0, "look", '{"b":2}')]}, "tool_calls")),
    )
    assert [one.arguments for one in answer.message.tool_calls] == ['{"a":1}', '{"b":2}']


def test_a_name_that_is_repeated_with_each_piece_is_one_name() -> None:
    answer = read(
        sse(choice({"tool_calls": [call(0, "look", '{"a"', "one")]})),
        sse(choice({"tool_calls": [call(0, "look", ":1}", "one")]}, "tool_calls")),
    )
    assert answer.message.tool_calls == (ToolCall("look", '{"a":1}', "one"),)


def test_a_name_that_is_repeated_without_an_id_goes_on_with_what_is_not_whole() -> None:
    answer = read(
        sse(choice({"tool_calls": [call(0, "look", '{"a"')]})),
        sse(choice({"tool_calls": [call(0, "look", ":1}")]}, "tool_calls")),
    )
    assert answer.message.tool_calls == (ToolCall("look", '{"a":1}'),)


def test_pieces_without_an_index_belong_to_the_last_call() -> None:
    answer = read(
        sse(choice({"tool_calls": [call(None, "look", '{"a"')]})),
        sse(choice({"tool_calls": [call(None, None, ":1}")]})),
        sse(choice({"tool_calls": [call(None, "find", None)]}, "tool_calls")),
    )
    assert answer.message.tool_calls == (ToolCall("look", '{"a":1}'), ToolCall("find", "{}"))


def test_arguments_that_were_cut_short_pass_as_they_came() -> None:
    answer = read(sse(choice({"tool_calls": [call(0, "look", '{"a": 1.10, "b": "x')]}, "length")))
    assert answer.message.tool_calls[0].arguments == '{"a": 1.10, "b": "x'
    assert answer.completion.finish_reason == "length"


def test_arguments_that_came_as_an_object_keep_their_digits() -> None:
    body = b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":{"a": 1.10}}}]},'
    answer = read(b"data: " + body + b'"finish_reason":"tool_calls"}]}\n\n')
    assert answer.message.tool_calls[0].arguments == '{"a": 1.10}'


def test_the_older_function_calling_is_a_call() -> None:
    answer = read(sse(choice({"function_call": {"name": "look", "arguments": "{}"}}, "function_call")))
    assert answer.message.tool_calls == (ToolCall("look", "{}"),)


def test_an_end_without_a_reason_is_whole_if_the_server_says_done_and_answered() -> None:
    assert read(sse(choice({"content": "hi"})) + DONE).message.content == "hi"
    assert read(sse(choice({"content": "hi"})), b"data: [DONE]").completion.finish_reason == "stop"


@pytest.mark.parametrize(
    "stream", [b"", DONE, sse(choice({"content": "hi"})), sse({"choices": []}) + DONE, sse(choice({}, "stop"))[:-2]]
)
def test_a_stream_that_never_said_that_it_is_whole_is_broken(stream: bytes) -> None:
    with pytest.raises(UpstreamBroke, match="broke off"):
        read(stream)


def test_plain_json_in_answer_to_a_stream_is_an_answer() -> None:
    body = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 2}}
    text = json.dumps(body).encode()
    answer = read(b"\n" + text[:10], text[10:])
    assert (answer.message.content, answer.completion.prompt_tokens) == ("hi", 2)
    with pytest.raises(UpstreamBroke):
        read(text[:-5])


def test_plain_json_without_an_end_is_given_up() -> None:
    decoder = StreamDecoder()
    with pytest.raises(UpstreamBroke, match="an answer of more than"):
        decoder.feed(b"{" + b" " * MAX_LINE)


@pytest.mark.parametrize("halves", [("\\ud83d", "\\ude42"), ("\\ud83d", "x")])
def test_halves_of_a_character_in_two_pieces_become_one_or_a_sign_for_none(halves: tuple[str, str]) -> None:
    pieces = [b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % half.encode() for half in halves]
    answer = read(*pieces, sse(choice({}, "stop")))
    assert answer.message.content == ("🙂" if halves[1] != "x" else "\ufffdx")


def test_bytes_of_a_character_in_two_events_become_one() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]
    pieces = [b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % half for half in (first, second)]
    assert read(*pieces, sse(choice({}, "stop"))).message.content == "é"


def test_a_half_without_its_other_half_is_a_sign_at_the_end() -> None:
    answer = read(b'data: {"choices":[{"delta":{"content":"x\\ud83d"},"finish_reason":"stop"}]}\n\n')
    assert answer.message.content == "x\ufffd"


def test_what_beside_the_answer_is_not_understood_loses_no_answer() -> None:
    answer = read(sse(choice({"content": "hi"}, "stop", logprobs="odd") | {"usage": "odd", "timings": [1]}))
    assert (answer.message.content, answer.message.logprobs) == ("hi", ())
    assert answer.completion.prompt_tokens is None


def test_counts_and_timings_are_taken_where_they_are() -> None:
    usage = {"prompt_tokens": 9.0, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    answer = read(sse(choice({"content": "x"}, "stop"), {"choices": [], "usage": usage}) + DONE + b"data: x\n\n")
    assert (answer.completion.prompt_tokens, answer.completion.cached_tokens) == (9, 4)
    assert answer.completion.reasoning_tokens is None
    timed = read(sse(choice({"content": "x"}, "stop") | {"timings": {"cache_n": 3, "prompt_ms": 5, "predicted_ms": 7}}))
    assert (timed.completion.cached_tokens, timed.completion.prompt_seconds) == (3, 0.005)
    assert timed.completion.answer_seconds == 0.007


def test_a_server_that_counts_only_beside_its_times_has_counted() -> None:
    timings = {"cache_n": 30, "prompt_n": 12, "prompt_ms": 5}
    answer = read(sse(choice({"content": "x"}, "stop") | {"timings": timings}))
    assert (answer.completion.prompt_tokens, answer.completion.cached_tokens) == (42, 30)
    told = read(sse(choice({"content": "x"}, "stop") | {"timings": timings, "usage": {"prompt_tokens": 43}}))
    assert told.completion.prompt_tokens == 43
    none = read(sse(choice({"content": "x"}, "stop") | {"timings": {"cache_n": 0, "prompt_n": 0}}))
    assert (none.completion.prompt_tokens, none.completion.cached_tokens) == (0, 0)


@pytest.mark.parametrize("count", [-1, 1e300, 2**53 + 2])
def test_a_count_that_can_be_none_is_not_known(count: float) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": count}}
    answer = read(sse(choice({"content": "x"}, "stop"), {"choices": [], "usage": usage}) + DONE)
    assert (answer.completion.prompt_tokens, answer.completion.cached_tokens) == (None, None)
    assert answer.completion.completion_tokens == 1


@pytest.mark.parametrize(
    ("details", "thought"), [({"reasoning_tokens": 5}, 5), ({"reasoning_tokens": 0}, 0), ({}, None), (None, None)]
)
def test_thoughts_are_counted_where_the_server_does(details: object, thought: int | None) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 7, "completion_tokens_details": details}
    answer = read(sse(choice({"content": "x"}, "stop"), {"choices": [], "usage": usage}) + DONE)
    assert answer.completion.reasoning_tokens == thought


def test_a_content_in_parts_is_text_and_thought() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, "odd"]},
        {"type": "thinking", "thinking": "so"},
        {"type": "text", "text": "hi"},
        {"type": "odd"},
    ]
    answer = read(sse(choice({"content": content}, "stop")))
    assert (answer.message.thinking, answer.message.content) == ("hmso", "hi")


@pytest.mark.parametrize(
    ("item", "missing"),
    [
        ({"token": "a", "logprob": -0.5}, {"bytes": None, "top_logprobs": []}),
        ({"token": "a", "logprob": -0.5, "bytes": "odd", "top_logprobs": None}, {"bytes": None, "top_logprobs": []}),
        ({"token": "a", "top_logprobs": "odd"}, {"logprob": None, "bytes": None, "top_logprobs": []}),
        ({"token": 3, "logprob": -0.5, "id": 7}, {"token": "", "bytes": None, "top_logprobs": []}),
        (
            {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [3, {"token": "b"}]},
            {"top_logprobs": [{"token": "b", "logprob": None, "bytes": None}]},
        ),
    ],
)
def test_an_item_of_logprobs_has_all_its_fields_and_goes_to_each_dialect(item: Any, missing: Any) -> None:
    answer = read(sse(choice({"content": "a"}, "stop", logprobs={"content": [item, "odd"]})))
    assert answer.message.logprobs == (item | missing,)
    served = Served("small", 0)
    for encoder in (
        ChatEncoder(ChatReply(), served),
        CompletionEncoder(CompletionReply(), served),
        ResponsesEncoder(ResponsesReply({}, {}, logprobs=True), served),
        OllamaEncoder(20, served),
    ):
        json.loads(encoder.whole(answer))


def test_logprobs_of_older_completions_are_given_in_the_newer_form() -> None:
    older = {"tokens": ["a", "b"], "token_logprobs": [-1, -2], "top_logprobs": [{"c": -3}, None]}
    chunk = {"choices": [{"text": "ab", "finish_reason": "stop", "logprobs": older}]}
    first, second = read(sse(chunk)).message.logprobs
    assert first == {
        "token": "a", "logprob": -1, "bytes": None, "top_logprobs": [{"token": "c", "logprob": -3, "bytes": None}],
    }  # fmt: skip
    assert second["top_logprobs"] == []
    assert read(sse(choice({"content": "x"}, "stop", logprobs={"tokens": ["x"]}))).message.logprobs == ()


def test_an_error_in_the_stream_is_a_broken_answer_in_its_words() -> None:
    for event in ({"error": {"message": "out of memory"}}, {"object": "error", "message": "out of memory"}):
        with pytest.raises(UpstreamBroke, match="out of memory"):
            read(sse(event))


@pytest.mark.parametrize(
    ("body", "listed"),
    [
        ({"data": [{"id": "a", "created": None}, {"id": "b", "created": 1.5}]}, [Listed("a"), Listed("b", 1)]),
        ({"data": [{"id": "a", "created": "2026"}, {"id": 7}, 7]}, [Listed("a")]),
        ({"models": [{"name": "a"}, {"model": "b"}]}, [Listed("a"), Listed("b")]),
        (["a"], [Listed("a")]),
        ({"data": [{"id": "vllm", "max_model_len": 4096, "created": -1}]}, [Listed("vllm", context=4096)]),
        (
            {"data": [{"id": "llama.cpp", "meta": {"n_ctx": 2048, "n_ctx_train": 32768}, "context_length": 7}]},
            [Listed("llama.cpp", context=2048, trained=32768)],
        ),
        ({"data": [{"id": "older", "meta": {"n_ctx_train": 32768}}]}, [Listed("older", trained=32768)]),
        ({"data": [{"id": "router", "context_length": 8192.0}]}, [Listed("router", context=8192)]),
        ({"data": [{"id": "a", "meta": [], "max_model_len": "4096", "context_window": 0}]}, [Listed("a")]),
        ({}, []),
        ("odd", []),
    ],
)
def test_models_are_found_whatever_the_list_looks_like(body: object, listed: list[Listed]) -> None:
    assert list(parse_models(json.dumps(body).encode())) == listed


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": "a"}, "a"),
        ({"error": {"message": "a"}}, "a"),
        ({"detail": [{"loc": ["body", "n"], "msg": "too many"}, {"msg": "odd"}]}, "body.n: too many; odd"),
        ({"detail": [{"error": "x"}]}, "x"),
        ({"detail": [7]}, '{"detail": [7]}'),
        ({"message": "a"}, "a"),
        ({"errors": ["a", "b"]}, "a; b"),
        ({"other": 1}, '{"other": 1}'),
    ],
)
def test_an_error_is_read_wherever_it_stands(body: object, text: str) -> None:
    assert error_text(json.dumps(body).encode()) == text


def test_an_error_that_is_no_json_is_its_own_text() -> None:
    assert error_text(b"nginx: bad gateway") == "nginx: bad gateway"


def test_it_is_done_once_the_server_has_said_why() -> None:
    decoder = StreamDecoder()
    seen = []
    for part in (b'{"delta":{"content":"x"}}', b'{"finish_reason":"stop"}'):
        decoder.feed(b'data: {"choices":[' + part + b"]}\n\n")
        seen.append(decoder.done)
    assert seen == [False, True]
