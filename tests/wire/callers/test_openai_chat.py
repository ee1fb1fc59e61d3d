"""From our answers to OpenAI's: whole, streamed, and broken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue import errors
from llm_queue.wire.callers.dialect import Progress, Served
from llm_queue.wire.callers.openai import error_body
from llm_queue.wire.callers.openai_chat import ChatEncoder
from llm_queue.wire.callers.openai_request import ChatReply
from llm_queue.wire.shapes import Completion, Delta, FinishReason, ToolCall, fold

STOP = Completion("stop", prompt_tokens=11, completion_tokens=4)
USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
EMPTY = {"role": "assistant", "content": "", "refusal": None}
LOGPROB = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}

deltas = st.builds(
    Delta,
    content=st.text(),
    thinking=st.text(),
    tool_calls=st.lists(st.builds(ToolCall, st.text(), st.text()), max_size=2).map(tuple),
    logprobs=st.sampled_from([(), (LOGPROB,)]),
)


def encoder(*, lane: str = "normal", answer_id: str | None = None, **reply: Any) -> ChatEncoder:
    served = Served(model="m:latest", created=1_700_000_000, lane=lane)
    return ChatEncoder(ChatReply(**reply), served, answer_id=answer_id)


def events(stream: bytes) -> list[Any]:
    """Every event of a stream, parsed; the mark at the end as it is."""
    assert stream == b"" or stream.endswith(b"\n\n")
    datas = [event.removeprefix("data: ") for event in stream.decode().split("\n\n")[:-1]]
    assert all("\n" not in data for data in datas)
    return [data if data == "[DONE]" else json.loads(data) for data in datas]


def streamed(*pieces: Delta, completion: Completion = STOP, **more: Any) -> list[Any]:
    writer = encoder(**more)
    return events(writer.pieces(pieces) + writer.end(completion))


def choices(*pieces: Delta) -> list[Any]:
    """The choice of each chunk before the finish."""
    return [event["choices"][0] for event in streamed(*pieces)[:-2]]


def whole(*pieces: Delta, completion: Completion = STOP, **more: Any) -> Any:
    return json.loads(encoder(**more).whole(fold(list(pieces), completion)))


# --- whole ------------------------------------------------------------------------------------------------------------


def test_a_whole_answer() -> None:
    assert whole(Delta(" Hi"), Delta(" there \n"), answer_id="chatcmpl-1") == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m:latest",
        "service_tier": "default",
        "system_fingerprint": "fp_llm_queue",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": " Hi there \n", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_an_empty_answer_has_empty_content() -> None:
    assert whole()["choices"][0]["message"] == EMPTY


def test_thinking_and_logprobs_of_a_whole_answer() -> None:
    choice = whole(Delta(thinking="hm"), Delta("a", logprobs=(LOGPROB,)))["choices"][0]
    assert choice["message"]["reasoning"] == "hm"
    assert choice["logprobs"] == {"content": [LOGPROB], "refusal": None}


def test_arguments_of_a_tool_call_are_a_json_text() -> None:
    choice = whole(Delta(tool_calls=(ToolCall("weather", '{"city": "Köln", "at": 1.10}', "call_7"),)))["choices"][0]
    assert choice["message"]["tool_calls"] == [
        {
            "index": 0,
            "id": "call_7",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Köln", "at": 1.10}'},
        }
    ]


@pytest.mark.parametrize(
    ("said", "with_calls", "reason"),
    [
        ("stop", False, "stop"),
        ("stop", True, "tool_calls"),
        ("length", False, "length"),
        ("length", True, "length"),
        ("tool_calls", True, "tool_calls"),
        ("tool_calls", False, "stop"),
        ("content_filter", False, "content_filter"),
    ],
)
def test_the_finish_reason_is_the_truth(said: FinishReason, with_calls: bool, reason: str) -> None:
    piece = Delta("x", tool_calls=(ToolCall("f"),) if with_calls else ())
    assert whole(piece, completion=Completion(said))["choices"][0]["finish_reason"] == reason
    assert streamed(piece, completion=Completion(said))[-2]["choices"][0]["finish_reason"] == reason


@pytest.mark.parametrize(("text", "reason"), [("something new", "something new"), ("", "other")])
def test_a_finish_reason_that_is_not_known_goes_as_it_came(text: str, reason: str) -> None:
    completion = Completion("other", finish_text=text)
    assert whole(Delta("x"), completion=completion)["choices"][0]["finish_reason"] == reason


def test_cached_tokens_are_said_where_they_are_known() -> None:
    for cached in (0, 7):
        usage = whole(completion=Completion("stop", 11, 4, cached_tokens=cached))["usage"]
        assert usage == USAGE | {"prompt_tokens_details": {"cached_tokens": cached}}


def test_thoughts_are_counted_where_the_upstream_does() -> None:
    for thought in (0, 3):
        usage = whole(completion=Completion("stop", 11, 4, reasoning_tokens=thought))["usage"]
        assert usage == USAGE | {"completion_tokens_details": {"reasoning_tokens": thought}}


def test_counts_that_are_not_known_are_zero() -> None:
    assert set(whole(completion=Completion("stop"))["usage"].values()) == {0}


def test_whoever_asked_in_the_older_way_is_called_in_the_older_way() -> None:
    pieces = (Delta(tool_calls=(ToolCall("f", '{"a":1}', "call_1"), ToolCall("g"))), Delta(tool_calls=(ToolCall("h"),)))
    called = {"function_call": {"name": "f", "arguments": '{"a":1}'}}
    choice = whole(*pieces, older_calls=True)["choices"][0]
    assert choice["message"] == EMPTY | called
    assert choice["finish_reason"] == "function_call"
    first, *_, finish, _ = streamed(*pieces, older_calls=True)
    assert first["choices"][0]["delta"] == EMPTY | called
    assert finish["choices"][0]["finish_reason"] == "function_call"


def test_a_whole_answer_ends_its_line() -> None:
    assert encoder().whole(fold([Delta("x")], STOP)).endswith(b"}\n")
    assert error_body(errors.QueueError()).endswith(b"}\n")


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ('{"input": "SELECT 1;\\n"}', "SELECT 1;\n"),
        ('{"input":""}', ""),
        ('{"input": 3}', '{"input": 3}'),
        ('{"input": "a", "more": 1}', '{"input": "a", "more": 1}'),
        ('{"query": "a"}', '{"query": "a"}'),
        ('{"input": "cut', '{"input": "cut'),
        ("[1]", "[1]"),
    ],
)
def test_a_call_of_a_custom_tool_goes_out_as_one(arguments: str, given: str) -> None:
    calls = (ToolCall("sql", arguments, "call_1"), ToolCall("f", "{}", "call_2"))
    expected = [
        {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "sql", "input": given}},
        {"index": 1, "id": "call_2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]
    custom = frozenset({"sql"})
    choice = whole(Delta(tool_calls=calls), custom=custom)["choices"][0]
    assert (choice["message"]["tool_calls"], choice["finish_reason"]) == (expected, "tool_calls")
    first, *_ = streamed(Delta(tool_calls=calls), custom=custom)
    assert first["choices"][0]["delta"]["tool_calls"] == expected


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream() -> None:
    first, second, finish, done = streamed(Delta("Hi"), Delta(" there"))
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"] == [{"index": 0, "delta": EMPTY | {"content": "Hi"}, "finish_reason": None}]
    assert second["choices"] == [{"index": 0, "delta": {"content": " there"}, "finish_reason": None}]
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert done == "[DONE]"
    for name in ("id", "created", "model", "service_tier", "system_fingerprint"):
        assert first[name] == second[name] == finish[name]


def test_usage_is_a_chunk_of_its_own_and_only_on_demand() -> None:
    *before, usage, _ = streamed(Delta("Hi"), include_usage=True)
    assert (usage["choices"], usage["usage"]) == ([], USAGE)
    assert all("usage" not in event for event in before)
    assert all("usage" not in event for event in streamed(Delta("Hi"))[:-1])


def test_thinking_comes_in_a_chunk_before_the_content() -> None:
    thought, content = choices(Delta("answer", thinking="hm", logprobs=(LOGPROB,)))
    assert thought["delta"] == EMPTY | {"reasoning": "hm"}
    assert thought["logprobs"] == {"content": [LOGPROB], "refusal": None}
    assert content == {"index": 0, "delta": {"content": "answer"}, "finish_reason": None}


def test_a_tool_call_is_whole_in_one_chunk() -> None:
    (choice,) = choices(Delta(tool_calls=(ToolCall("f", '{"a":1}', "call_1"), ToolCall("g", "{}", "call_2"))))
    assert choice["delta"]["role"] == "assistant"
    assert [(call["index"], call["id"], call["function"]) for call in choice["delta"]["tool_calls"]] == [
        (0, "call_1", {"name": "f", "arguments": '{"a":1}'}),
        (1, "call_2", {"name": "g", "arguments": "{}"}),
    ]


def test_tool_calls_are_numbered_through_the_stream() -> None:
    said = choices(Delta("Let me see."), Delta(tool_calls=(ToolCall("f"),)), Delta(tool_calls=(ToolCall("g"),)))
    calls = [call for choice in said for call in choice["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0, 1]
    assert all(call["id"].startswith("call_") for call in calls)
    assert calls[0]["id"] != calls[1]["id"]


def test_content_beside_a_tool_call_is_kept() -> None:
    assert choices(Delta("Let me see.", tool_calls=(ToolCall("f"),)))[0]["delta"]["content"] == "Let me see."


def test_logprobs_without_text_are_kept() -> None:
    (choice,) = choices(Delta(logprobs=(LOGPROB,)))
    assert choice["logprobs"] == {"content": [LOGPROB], "refusal": None}


def test_an_empty_piece_is_no_event() -> None:
    assert encoder().pieces([Delta(), Delta()]) == b""


def test_an_empty_stream_still_has_its_role() -> None:
    role, finish, done = streamed()
    assert role["choices"][0]["delta"] == EMPTY
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"


@pytest.mark.parametrize(
    ("progress", "comment"),
    [
        (Progress("queued", 3, 40.2), b": queued, 3 ahead, about 40 s\n\n"),
        (Progress("queued", 2), b": queued, 2 ahead\n\n"),
        (Progress("paused", 2), b": paused, 2 ahead\n\n"),
        (Progress("loading"), b": loading\n\n"),
        (Progress("running"), b": running\n\n"),
    ],
)
def test_a_caller_who_waits_gets_a_comment(progress: Progress, comment: bytes) -> None:
    assert encoder().waiting(progress) == comment
    assert encoder().begin() == b""


def test_a_broken_stream_ends_with_an_error_and_nothing_made_up() -> None:
    writer = encoder()
    first, error = events(writer.pieces([Delta("half an ans")]) + writer.error(errors.UpstreamBroke("It broke.")))
    assert first["choices"][0]["finish_reason"] is None
    assert error == {"error": {"message": "It broke.", "type": "api_error", "param": None, "code": "upstream_broke"}}


@given(st.lists(deltas), st.data())
def test_a_stream_says_what_a_whole_answer_says(pieces: list[Delta], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(pieces)))
    writer = encoder()
    stream = writer.pieces(pieces[:cut]) + writer.pieces(pieces[cut:]) + writer.end(STOP)
    said = [event["choices"][0] for event in events(stream)[:-1]]
    message = whole(*pieces)["choices"][0]["message"]
    assert "".join(choice["delta"].get("content", "") for choice in said) == message["content"]
    assert "".join(choice["delta"].get("reasoning", "") for choice in said) == message.get("reasoning", "")
    calls = [call for choice in said for call in choice["delta"].get("tool_calls", [])]
    expected = message.get("tool_calls", [])
    assert [(call["index"], call["function"]) for call in calls] == [
        (call["index"], call["function"]) for call in expected
    ]
    assert sum(len(choice.get("logprobs", {}).get("content", [])) for choice in said) == sum(
        len(piece.logprobs) for piece in pieces
    )
    assert ["role" in choice["delta"] for choice in said] == [True] + [False] * (len(said) - 1)


@given(st.text(min_size=1))
def test_text_is_verbatim(text: str) -> None:
    assert whole(Delta(text))["choices"][0]["message"]["content"] == text
    assert choices(Delta(text))[0]["delta"]["content"] == text


def test_letters_of_any_script_go_as_they_are() -> None:
    assert "Grüße 😀".encode() in encoder().pieces([Delta("Grüße 😀")])


def test_every_answer_has_an_id_of_its_own() -> None:
    ids = {encoder().id for _ in range(100)}
    assert len(ids) == 100
    assert all(name.startswith("chatcmpl-") for name in ids)


def test_the_tier_that_was_used_is_echoed() -> None:
    assert whole(lane="background")["service_tier"] == "flex"


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.BadRequest(), "invalid_request_error"),
        (errors.BodyTooLarge(), "invalid_request_error"),
        (errors.MethodNotAllowed(), "invalid_request_error"),
        (errors.Unauthorized(), "authentication_error"),
        (errors.Forbidden(), "permission_error"),
        (errors.NotFound(), "not_found_error"),
        (errors.ModelNotFound(), "not_found_error"),
        (errors.UpstreamRefused(status=404), "not_found_error"),
        (errors.UpstreamRefused(status=400), "invalid_request_error"),
        (errors.LineFull(), "rate_limit_error"),
        (errors.Draining(), "api_error"),
        (errors.UpstreamBroke(), "api_error"),
        (errors.AttemptTimedOut(), "api_error"),
        (errors.QueueError(), "api_error"),
    ],
)
def test_the_type_of_an_error_follows_its_status(error: errors.QueueError, kind: str) -> None:
    body = json.loads(error_body(error))["error"]
    assert body == {"message": error.message, "type": kind, "param": None, "code": error.code}


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_programs_look_for() -> None:
    body = json.loads(error_body(errors.PromptTooLong(tokens=9000, maximum=8192)))["error"]
    assert (body["code"], body["type"]) == ("context_length_exceeded", "invalid_request_error")
    assert body["message"].startswith("This model's maximum context length is 8192 tokens. However, your prompt")
    assert "about 9000 tokens" in body["message"]
    assert "--num-ctx-ceiling" in body["message"]
    bare = json.loads(error_body(errors.PromptTooLong("Too long.", param="messages")))["error"]
    assert (bare["message"], bare["param"]) == ("Too long.", "messages")


def test_an_error_names_its_field() -> None:
    assert json.loads(error_body(errors.BadRequest("No.", param="messages[3].content")))["error"]["param"] == (
        "messages[3].content"
    )
