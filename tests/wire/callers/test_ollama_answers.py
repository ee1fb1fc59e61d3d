"""From our answers to Ollama's: whole, as lines, and broken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue import errors
from llm_queue.wire.callers.dialect import Progress, Served
from llm_queue.wire.callers.ollama import embed_error_body, error_body
from llm_queue.wire.callers.ollama_answers import (
    CHAT,
    EMBED,
    EMBEDDINGS,
    GENERATE,
    ChatEncoder,
    EmbeddingsEncoder,
    EmbedEncoder,
    GenerateEncoder,
    counts,
)
from llm_queue.wire.shapes import Answer, Completion, Delta, ToolCall, Vectors, fold
from llm_queue.wire.upstreams.ollama_response import LineDecoder, parse_embedded

SERVED = Served(model="m", created=1_700_000_000)
HEAD = {"model": "m", "created_at": "2023-11-14T22:13:20Z"}
STOP = Completion(
    "stop", 11, 4, load_seconds=0.5, cached_tokens=0, prompt_seconds=0.25, answer_seconds=1.0, finish_text="stop",
    total_seconds=2.0,
)  # fmt: skip
COUNTS = {
    "total_duration": 2_000_000_000,
    "load_duration": 500_000_000,
    "prompt_eval_count": 11,
    "prompt_eval_cached_count": 0,
    "prompt_eval_duration": 250_000_000,
    "eval_count": 4,
    "eval_duration": 1_000_000_000,
}
LOGPROB = {
    "token": "a",
    "logprob": 0.0,
    "bytes": [97],
    "top_logprobs": [{"token": "b", "logprob": -1.5, "bytes": None}],
}

deltas = st.builds(
    Delta,
    content=st.text(),
    thinking=st.text(),
    tool_calls=st.lists(st.builds(ToolCall, st.text(), st.just('{"a": 1}'), st.just("call_1")), max_size=2).map(tuple),
)


def lines(stream: bytes) -> list[Any]:
    """Every line of a stream; there are no blank ones."""
    assert stream == b"" or stream.endswith(b"\n")
    return [json.loads(line) for line in stream.split(b"\n")[:-1]]


def streamed(encoder: ChatEncoder | GenerateEncoder, *pieces: Delta, completion: Completion = STOP) -> list[Any]:
    return lines(encoder.begin() + encoder.pieces(pieces) + encoder.end(completion))


def whole(encoder: Any, *pieces: Delta, completion: Completion = STOP) -> Any:
    (line,) = lines(encoder.whole(fold(list(pieces), completion)))
    return line


def chat() -> ChatEncoder:
    return ChatEncoder(3, SERVED)


def text() -> GenerateEncoder:
    return GenerateEncoder(3, SERVED)


# --- what is said -----------------------------------------------------------------------------------------------------


def test_a_whole_chat() -> None:
    message = {"role": "assistant", "content": " Hi there\n"}
    assert whole(chat(), Delta(" Hi"), Delta(" there\n")) == HEAD | {
        "message": message, "done": True, "done_reason": "stop"} | COUNTS  # fmt: skip


def test_a_streamed_chat_has_a_message_in_every_line() -> None:
    first, second, last = streamed(chat(), Delta("a"), Delta(thinking="hm"))
    assert first == HEAD | {"message": {"role": "assistant", "content": "a"}, "done": False}
    assert second == HEAD | {"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False}
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    assert last == HEAD | end | COUNTS


def test_a_text_stands_in_the_line_itself_and_its_context_in_the_last() -> None:
    completion = Completion("length", 1, 1, finish_text="length", context=(1, 2))
    ended = {"done": True, "done_reason": "length", "context": [1, 2], "prompt_eval_count": 1, "eval_count": 1}
    first, last = streamed(text(), Delta("a"), completion=completion)
    assert first == HEAD | {"response": "a", "done": False}
    assert last == HEAD | {"response": ""} | ended
    assert whole(text(), Delta("a", "hm"), completion=completion) == HEAD | {"response": "a", "thinking": "hm"} | ended


@pytest.mark.parametrize("encoder", [chat, text])
def test_calls_are_counted_and_their_arguments_are_objects(encoder: Any) -> None:
    calls = Delta(tool_calls=(ToolCall("f", '{"n": 1.10}', "call_7"), ToolCall("g")))
    cut = Delta(tool_calls=(ToolCall("h", '{"n": ', "call_9"), ToolCall("h", "[1]", "call_a")))
    first, second, _ = streamed(encoder(), calls, cut)
    first, second = ((line.get("message") or line)["tool_calls"] for line in (first, second))
    assert first[0] == {"id": "call_7", "function": {"index": 0, "name": "f", "arguments": {"n": 1.1}}}
    assert first[1]["function"] == {"index": 1, "name": "g", "arguments": {}}
    assert first[1]["id"].startswith("call_")
    assert [call["function"]["index"] for call in second] == [2, 3]
    assert [call["function"]["arguments"] for call in second] == [{"_text": '{"n": '}, {"_text": "[1]"}]


@pytest.mark.parametrize("encoder", [chat, text])
def test_arguments_of_several_lines_go_on_one_and_stay_as_they_were_written(encoder: Any) -> None:
    written = '{\n  "n": 1.50e3,\r\n  "s": "a\\n\\u00e9",\n  "long": 12345678901234567890123456789\n}'
    pieces = [Delta(tool_calls=(ToolCall("f", written, "call_1"),))]
    (line,) = encoder().pieces(pieces).splitlines()
    assert written.replace("\n", " ").replace("\r", " ").encode() in line


def test_logprobs_are_in_the_line_without_lists_that_are_empty() -> None:
    delta = Delta("a", logprobs=(LOGPROB, {"token": "", "logprob": -1, "bytes": [], "top_logprobs": []}))
    said = [
        {"token": "a", "logprob": 0.0, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1.5}]},
        {"token": "", "logprob": -1},
    ]
    first, last = streamed(chat(), delta)
    assert first["logprobs"] == said
    assert "logprobs" not in last
    assert whole(text(), delta)["logprobs"] == said


@pytest.mark.parametrize("asked", [0, 1, 3, 9])
def test_as_many_other_tokens_are_listed_as_were_asked_for(asked: int) -> None:
    others = [{"token": name, "logprob": -1.0} for name in "bcd"]
    delta = Delta("a", logprobs=({"token": "a", "logprob": 0.0, "bytes": None, "top_logprobs": others},))
    (token,) = whole(ChatEncoder(asked, SERVED), delta)["logprobs"]
    assert token.get("top_logprobs", []) == others[:asked]


@pytest.mark.parametrize("encoder", [chat, text])
@pytest.mark.parametrize("reason", ["load", "unload"])
def test_a_load_has_a_reason_and_no_counts(encoder: Any, reason: Any) -> None:
    line = whole(encoder(), completion=Completion(reason, 0, 0, 0.7, total_seconds=0.8))
    assert {"done": True, "done_reason": reason}.items() <= line.items()
    assert line.keys() <= {"model", "created_at", "message", "response", "done", "done_reason"}


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        (Completion("tool_calls", finish_text="tool_calls"), "stop"),
        (Completion("stop", finish_text=""), "stop"),
        (Completion("content_filter", finish_text="content_filter"), "content_filter"),
        (Completion("other", finish_text="tired"), "tired"),
    ],
)
def test_the_reason_is_the_upstreams_own_word(completion: Completion, reason: str) -> None:
    assert whole(chat(), completion=completion)["done_reason"] == reason


def test_vectors() -> None:
    answer = Answer(Delta(), Completion("stop", 3, 0, load_seconds=0.5), ((0.6, 0.8), (1.0, 0.0)))
    said = {"total_duration": 500_000_000, "load_duration": 500_000_000, "prompt_eval_count": 3}
    embed = EmbedEncoder(3, SERVED)
    assert lines(embed.whole(answer)) == [{"model": "m", "embeddings": [[0.6, 0.8], [1.0, 0.0]]} | said]
    assert lines(embed.whole(Answer(Delta(), Completion("load")))) == [{"model": "m", "embeddings": []}]
    older = EmbeddingsEncoder(3, SERVED)
    assert lines(older.whole(answer)) == [{"embedding": [0.6, 0.8]}]
    assert lines(older.whole(Answer(Delta(), Completion("load")))) == [{"embedding": []}]
    assert lines(older.end(STOP))[0]["done"]


def test_counts_that_are_zero_are_left_out_but_for_cached_tokens() -> None:
    assert counts(Completion("stop", 0, 0, 0.0, cached_tokens=0)) == {"prompt_eval_cached_count": 0}
    assert counts(Completion("stop")) == {}
    parts = Completion("stop", load_seconds=0.5, prompt_seconds=0.25, answer_seconds=0.25)
    assert counts(parts)["total_duration"] == 1_000_000_000


# --- what is no end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["queued", "loading", "running"])
def test_word_to_those_who_wait_is_a_usual_line_with_an_empty_text(phase: Any) -> None:
    progress = Progress(phase, 3, 40.0)
    line = HEAD | {"message": {"role": "assistant", "content": ""}, "done": False}
    assert lines(chat().waiting(progress)) == [line]
    assert lines(text().waiting(progress)) == [HEAD | {"response": "", "done": False}]


def test_a_stream_that_breaks_ends_in_a_line_with_a_text() -> None:
    (line,) = lines(chat().error(errors.UpstreamBroke("it broke")))
    assert line == {"error": "it broke"}


@pytest.mark.parametrize(
    ("error", "chats", "embeds"),
    [
        (errors.ModelNotFound("…", model="x"), "model 'x' not found", 'model "x" not found, try pulling it first'),
        (errors.ModelNotFound("…", model=""), "model '' not found", "model '' not found"),
        (errors.ModelNotFound("words of its own"), "words of its own", "words of its own"),
        (errors.BadRequest("model is required"), "model is required", "model is required"),
    ],
)
def test_an_error_is_a_text(error: errors.QueueError, chats: str, embeds: str) -> None:
    assert json.loads(error_body(error, "req_1")) == {"error": chats}
    assert json.loads(embed_error_body(error, "req_1")) == {"error": embeds}


def test_the_media_types_are_ollamas() -> None:
    for operation in (CHAT, GENERATE, EMBED, EMBEDDINGS):
        assert operation.whole_type == operation.dialect.error_type == "application/json; charset=utf-8"
        assert operation.stream_type == "application/x-ndjson"


# --- round trips ------------------------------------------------------------------------------------------------------


@given(st.lists(deltas, max_size=5), st.integers(1, 60), st.sampled_from([chat, text]))
def test_what_an_ollama_of_ours_says_is_read_as_it_was_meant(said: list[Delta], size: int, encoder: Any) -> None:
    """The reader of a real Ollama's answers takes ours, however they are cut."""
    writer = encoder()
    if encoder is text:  # texts have no calls there
        said = [Delta(delta.content, delta.thinking) for delta in said]
    stream = writer.pieces(said) + writer.end(STOP)
    decoder, read = LineDecoder(), list[Delta]()
    for start in range(0, len(stream), size):
        read += decoder.feed(stream[start : start + size])
    left, completion = decoder.close()
    assert read + left == [delta for delta in said if delta != Delta()]
    assert completion == STOP


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=3))
def test_vectors_are_read_as_they_were_meant(vectors: list[tuple[float, float]]) -> None:
    completion = Completion("stop", 3, 0, 0.5, None, 0.0, 0.0, "stop", total_seconds=0.75)
    body = EmbedEncoder(3, SERVED).whole(Answer(Delta(), completion, tuple(vectors)))
    assert parse_embedded(body) == (Vectors(tuple(vectors)), completion)


@pytest.mark.parametrize(
    ("reason", "text", "said"),
    [
        ("length", "max_tokens", "length"),
        ("stop", "eos_token", "stop"),
        ("tool_calls", "tool_calls", "stop"),
        ("other", "stop_sequence", "stop_sequence"),
        ("other", "", "other"),
    ],
)
def test_an_end_is_said_in_ollamas_words_where_it_has_one(reason: Any, text: str, said: str) -> None:
    ended = json.loads(ChatEncoder(0, SERVED).end(Completion(reason, finish_text=text)))
    assert ended["done_reason"] == said
