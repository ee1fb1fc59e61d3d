"""From our answers to Anthropic's: whole, streamed, broken, and waited for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue import errors
from llm_queue.wire.callers.anthropic import error_body
from llm_queue.wire.callers.anthropic_answer import PINGS, SIGNATURE, MessagesEncoder
from llm_queue.wire.callers.anthropic_request import MessagesReply
from llm_queue.wire.callers.dialect import Progress, Served
from llm_queue.wire.shapes import Completion, Delta, FinishReason, Piece, ToolCall, Vectors, fold

STOP = Completion("stop", prompt_tokens=11, completion_tokens=4)
QUEUED = Progress("queued", 3, 40.0)
CALL = ToolCall("weather", '{"city": "Köln", "at": 1.10}', "call_7")
CUT = ToolCall("weather", '{"city": "Kö', "call_8")

deltas = st.builds(
    Delta,
    content=st.text(),
    thinking=st.text(),
    tool_calls=st.lists(st.sampled_from([CALL, CUT, ToolCall("f")]), max_size=2).map(tuple),
)


def encoder(*, lane: str = "normal", stops: tuple[str, ...] = (), answer_id: str | None = None) -> MessagesEncoder:
    served = Served(model="m:latest", created=1_700_000_000, lane=lane, request_id="req_1")
    return MessagesEncoder(MessagesReply(stops, about_tokens=7), served, answer_id=answer_id)


def events(stream: bytes) -> list[Any]:
    """Every event of a stream, parsed. Each has a line with its type, which is the type in its data."""
    assert stream == b"" or stream.endswith(b"\n\n")
    found = []
    for event in stream.decode().split("\n\n")[:-1]:
        kind, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {found[-1]['type']}"
    return found


def streamed(*pieces: Piece, completion: Completion = STOP, **more: Any) -> list[Any]:
    writer = encoder(**more)
    return events(writer.begin() + writer.pieces(pieces) + writer.end(completion))


def kinds(found: list[Any]) -> list[str]:
    return [event["type"] for event in found]


def whole(*pieces: Delta, completion: Completion = STOP, **more: Any) -> Any:
    return json.loads(encoder(**more).whole(fold(list(pieces), completion)))


def built(found: list[Any]) -> Any:
    """The message that a client builds of a stream, as strictly as the strictest does it."""
    message: Any = None
    open_at: int | None = None
    inputs: dict[int, str] = {}
    ended = False
    for event in found:
        assert not ended
        match event["type"]:
            case "ping":
                pass
            case "message_start":
                assert message is None
                message = event["message"]
            case "content_block_start":
                assert open_at is None
                assert event["index"] == len(message["content"])
                open_at = event["index"]
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                assert event["index"] == open_at
                block, delta = message["content"][open_at], event["delta"]
                match delta["type"]:
                    case "text_delta":
                        block["text"] += delta["text"]
                    case "thinking_delta":
                        block["thinking"] += delta["thinking"]
                    case "signature_delta":
                        block["signature"] = delta["signature"]
                    case "input_json_delta":
                        inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
                    case other:
                        raise AssertionError(other)
            case "content_block_stop":
                assert event["index"] == open_at
                if open_at in inputs:
                    message["content"][open_at]["input"] = json.loads(inputs[open_at])
                open_at = None
            case "message_delta":
                assert open_at is None
                message |= event["delta"]
                message["usage"] |= event["usage"]
            case "message_stop":
                ended = True
            case other:
                raise AssertionError(other)
    assert ended
    return message


# --- whole ------------------------------------------------------------------------------------------------------------


def test_a_whole_answer() -> None:
    assert whole(Delta(" Hi"), Delta(" there \n"), answer_id="msg_1") == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m:latest",
        "content": [{"type": "text", "text": " Hi there \n"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 4, "service_tier": "standard"},
    }
    assert encoder().whole(fold([Delta("x")], STOP)).endswith(b"}\n")
    assert encoder().id.startswith("msg_")


def test_thoughts_come_first_and_calls_last() -> None:
    content = whole(Delta(thinking="hm", tool_calls=(CALL,)), Delta("Let me look."))["content"]
    assert content == [
        {"type": "thinking", "thinking": "hm", "signature": SIGNATURE},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "call_7", "name": "weather", "input": {"city": "Köln", "at": 1.10}},
    ]


def test_the_input_of_a_call_stays_as_the_model_wrote_it() -> None:
    assert b'"input":{"city": "K\xc3\xb6ln", "at": 1.10}' in encoder().whole(fold([Delta(tool_calls=(CALL,))], STOP))


def test_a_call_without_an_id_gets_one() -> None:
    assert whole(Delta(tool_calls=(ToolCall("f"),)))["content"][0]["id"].startswith("toolu_")


def test_an_empty_answer_has_an_empty_text() -> None:
    assert whole()["content"] == [{"type": "text", "text": ""}]
    assert [block["type"] for block in whole(Delta(thinking="hm"))["content"]] == ["thinking"]


@pytest.mark.parametrize("arguments", ['{"city": "Kö', "[]", "5", "", "nonsense"])
def test_arguments_that_are_no_object_are_text_that_nobody_runs(arguments: str) -> None:
    piece = Delta("Well. ", tool_calls=(ToolCall("f", arguments), CALL))
    for answer in (whole(piece), built(streamed(piece))):
        text, call = answer["content"]
        assert text == {"type": "text", "text": f"Well. f({arguments})"}
        assert call["name"] == "weather"
        assert answer["stop_reason"] == "tool_use"
    alone = whole(Delta(tool_calls=(ToolCall("f", arguments),)), completion=Completion("tool_calls"))
    assert alone["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("said", "with_calls", "reason"),
    [
        ("stop", False, "end_turn"),
        ("stop", True, "tool_use"),
        ("length", False, "max_tokens"),
        ("length", True, "max_tokens"),
        ("tool_calls", True, "tool_use"),
        ("tool_calls", False, "end_turn"),
        ("content_filter", False, "refusal"),
        ("other", False, "end_turn"),
        ("load", False, "end_turn"),
    ],
)
def test_the_reason_is_the_truth(said: FinishReason, with_calls: bool, reason: str) -> None:
    piece = Delta("x", tool_calls=(CALL,) if with_calls else ())
    completion = Completion(said, finish_text=said)
    assert whole(piece, completion=completion)["stop_reason"] == reason
    assert streamed(piece, completion=completion)[-2]["delta"] == {"stop_reason": reason, "stop_sequence": None}


@pytest.mark.parametrize(
    ("stops", "finish_text", "reason", "sequence"),
    [
        (("END",), "stop_sequence", "stop_sequence", "END"),
        (("END", "FIN"), "stop_sequence", "stop_sequence", None),
        (("END",), "stop", "end_turn", None),
        ((), "stop_sequence", "end_turn", None),
    ],
)
def test_a_stop_sequence_is_named_only_where_it_is_known(
    stops: tuple[str, ...], finish_text: str, reason: str, sequence: str | None
) -> None:
    answer = whole(Delta("x"), completion=Completion("stop", finish_text=finish_text), stops=stops)
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)


def test_cached_tokens_are_counted_apart_where_they_are_known() -> None:
    for cached, fresh in ((0, 11), (7, 4), (20, 0)):
        completion = Completion("stop", 11, 4, cached_tokens=cached)
        usage = {"input_tokens": fresh, "cache_read_input_tokens": cached, "output_tokens": 4}
        assert whole(completion=completion)["usage"] == usage | {"service_tier": "standard"}
        assert streamed(completion=completion)[-2]["usage"] == usage


def test_counts_that_are_not_known_are_zero() -> None:
    assert streamed(completion=Completion("stop"))[-2]["usage"] == {"input_tokens": 0, "output_tokens": 0}


@pytest.mark.parametrize(
    ("lane", "tier"), [("interactive", "priority"), ("normal", "standard"), ("background", "batch")]
)
def test_the_lane_is_said_as_a_tier(lane: str, tier: str) -> None:
    assert whole(lane=lane)["usage"]["service_tier"] == tier
    assert streamed(lane=lane)[0]["message"]["usage"]["service_tier"] == tier


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream() -> None:
    found = streamed(Delta("Hi"), Delta(), Delta(" there"), answer_id="msg_1")
    usage = {"input_tokens": 7, "output_tokens": 0, "service_tier": "standard"}
    message: dict[str, Any] = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m:latest", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    assert found == [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " there"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"input_tokens": 11, "output_tokens": 4},
        },
        {"type": "message_stop"},
    ]


def test_blocks_of_each_kind_are_numbered_without_a_gap() -> None:
    found = streamed(Delta(thinking="h"), Delta(thinking="m"), Delta("Let"), Delta(" me", tool_calls=(CALL, CALL)))
    blocks = [(event["index"], event["content_block"]) for event in found if event["type"] == "content_block_start"]
    call = {"type": "tool_use", "id": "call_7", "name": "weather", "input": {}}
    assert blocks == [
        (0, {"type": "thinking", "thinking": "", "signature": ""}),
        (1, {"type": "text", "text": ""}),
        (2, call),
        (3, call),
    ]
    assert sum(event.get("delta", {}).get("type") == "signature_delta" for event in found) == 1
    assert built(found)["content"][3]["input"] == {"city": "Köln", "at": 1.10}


def test_an_empty_stream_is_an_empty_text() -> None:
    assert kinds(streamed()) == [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip


def test_pieces_that_are_no_text_are_no_events() -> None:
    assert encoder().pieces([Vectors(((1.0,),))]) == b""


@given(st.lists(deltas, max_size=8))
def test_a_stream_and_a_whole_answer_say_the_same(pieces: list[Delta]) -> None:
    one, other = whole(*pieces), built(streamed(*pieces))

    def said(answer: Any, kind: str) -> Any:
        return "".join(block.get(kind, "") for block in answer["content"])

    assert said(one, "thinking") == said(other, "thinking")
    if not any(CUT in piece.tool_calls for piece in pieces):  # whose place among the texts differs
        assert said(one, "text") == said(other, "text")
    inputs = [[block["input"] for block in answer["content"] if "input" in block] for answer in (one, other)]
    assert inputs[0] == inputs[1]
    assert one["stop_reason"] == other["stop_reason"]
    assert one["usage"] == other["usage"]


# --- waiting ----------------------------------------------------------------------------------------------------------


def waited(times: int) -> tuple[MessagesEncoder, bytes]:
    writer = encoder()
    return writer, b"".join(writer.waiting(QUEUED) for _ in range(times))


def test_whoever_waits_shortly_hears_pings() -> None:
    _, data = waited(PINGS)
    assert data == b'event: ping\ndata: {"type":"ping"}\n\n' * PINGS


def test_whoever_waits_longer_hears_empty_pieces_of_text() -> None:
    """Claude Code counts no pings: it gives up after 300 s, and waiting is called each 10 s."""
    _, data = waited(PINGS + 3)
    empty = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ""}}
    assert kinds(events(data))[PINGS : PINGS + 2] == ["message_start", "content_block_start"]
    assert events(data)[PINGS + 2 :] == [empty] * 3


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        ([Delta("Hi"), Delta("!")], [{"type": "text", "text": "Hi!"}]),
        (
            [Delta(thinking="hm"), Delta("Hi")],
            [
                {"type": "text", "text": ""},
                {"type": "thinking", "thinking": "hm", "signature": SIGNATURE},
                {"type": "text", "text": "Hi"},
            ],
        ),
        (
            [Delta(tool_calls=(CALL,))],
            [
                {"type": "text", "text": ""},
                {"type": "tool_use", "id": "call_7", "name": "weather", "input": {"city": "Köln", "at": 1.1}},
            ],
        ),
        ([], [{"type": "text", "text": ""}]),
    ],
)
def test_the_answer_after_a_long_wait_is_right(pieces: list[Piece], content: Any) -> None:
    writer, data = waited(PINGS + 2)
    data += writer.pieces(pieces) + writer.end(STOP)
    assert built(events(data))["content"] == content


def test_a_silence_in_the_middle_of_a_block_is_a_piece_of_that_block() -> None:
    writer = encoder()
    data = writer.pieces([Delta(thinking="h")]) + writer.waiting(Progress("running")) + writer.pieces([Delta("x")])
    data += writer.waiting(Progress("running")) + writer.end(STOP)
    found = events(data)
    deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    assert deltas[1] == {"type": "thinking_delta", "thinking": ""}
    assert deltas[-1] == {"type": "text_delta", "text": ""}
    assert [block["type"] for block in built(found)["content"]] == ["thinking", "text"]


def test_a_silence_after_a_call_begins_with_pings() -> None:
    writer, data = waited(PINGS)
    data += writer.pieces([Delta(tool_calls=(CALL,))])
    assert writer.waiting(Progress("running")).startswith(b"event: ping")
    assert writer.waiting(Progress("running")).startswith(b"event: ping")
    data += writer.waiting(Progress("running")) + writer.end(STOP)
    assert [block["type"] for block in built(events(data))["content"]] == ["tool_use", "text"]


@given(st.lists(st.one_of(deltas, st.none()), max_size=12))
def test_waiting_at_any_place_spoils_nothing(steps: list[Delta | None]) -> None:
    writer = encoder()
    data = b"".join(writer.waiting(Progress("running")) if step is None else writer.pieces([step]) for step in steps)
    message = built(events(data + writer.end(STOP)))
    said = "".join(block.get("thinking", "") for block in message["content"])
    assert said == "".join(step.thinking for step in steps if step is not None)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.BadRequest(), "invalid_request_error"),
        (errors.Unauthorized(), "authentication_error"),
        (errors.Forbidden(), "permission_error"),
        (errors.ModelNotFound(), "not_found_error"),
        (errors.MethodNotAllowed(), "invalid_request_error"),
        (errors.UpstreamRefused("no", status=409), "conflict_error"),
        (errors.BodyTooLarge(), "request_too_large"),
        (errors.UnsupportedEncoding(), "invalid_request_error"),
        (errors.LineFull(), "rate_limit_error"),
        (errors.QueueError(), "api_error"),
        (errors.UpstreamBroke(), "api_error"),
        (errors.Draining(), "overloaded_error"),
        (errors.WaitExpired(), "api_error"),
        (errors.AttemptTimedOut(), "timeout_error"),
    ],
)
def test_an_error_has_its_type(error: errors.QueueError, kind: str) -> None:
    body = error_body(error, "req_1")
    assert json.loads(body) == {
        "type": "error",
        "error": {"type": kind, "message": error.message},
        "request_id": "req_1",
    }
    assert body.endswith(b"}\n")
    assert json.loads(error_body(error))["request_id"] is None


def test_a_prompt_that_is_too_long_is_said_in_the_words_that_are_read() -> None:
    error = errors.PromptTooLong(tokens=12_345, maximum=8192)
    said = json.loads(error_body(error))["error"]
    assert said == {"type": "invalid_request_error", "message": "prompt is too long: 12345 tokens > 8192 maximum"}
    assert json.loads(error_body(errors.PromptTooLong()))["error"]["message"] == errors.PromptTooLong().message


def test_a_stream_that_breaks_ends_in_an_error_and_no_end() -> None:
    writer = encoder()
    found = events(writer.pieces([Delta("Hi")]) + writer.error(errors.UpstreamBroke("gone")))
    assert found[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "gone"},
        "request_id": "req_1",
    }
    assert "message_stop" not in kinds(found)
    assert "content_block_stop" not in kinds(found)
