"""From our answers to the Responses dialect: whole, streamed, cut and broken, held against the SDK's own types."""

from __future__ import annotations

import json
from typing import Annotated, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import Field, TypeAdapter

from llm_queue import errors
from llm_queue.wire.callers.dialect import Progress, RequestLimits, Served
from llm_queue.wire.callers.responses import ResponsesEncoder, failure_of, input_tokens_body
from llm_queue.wire.callers.responses_items import sealed
from llm_queue.wire.callers.responses_request import parse_response
from llm_queue.wire.shapes import Completion, Delta, FinishReason, ToolCall, fold

STOP = Completion("stop", prompt_tokens=11, completion_tokens=4, cached_tokens=3)
LOGPROB = {
    "token": "é",
    "logprob": -0.5,
    "bytes": None,
    "top_logprobs": [{"token": "e", "logprob": -1, "bytes": [101]}],
}
TOOLS = [
    {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True},
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "mail", "description": "", "tools": [{"type": "function", "name": "send"}]},
]
# The SDK itself takes what it is given; its types, asked directly, say what is missing.
KIND: Any = Annotated[get_args(ResponseStreamEvent)[0], Field(discriminator="type")]
EVENT: TypeAdapter[Any] = TypeAdapter(KIND)

deltas = st.builds(
    Delta,
    content=st.text(),
    thinking=st.text(),
    tool_calls=st.lists(
        st.builds(ToolCall, st.sampled_from(["f", "patch", "mail__send", "other"]), st.text()), max_size=2
    ).map(tuple),
)


def encoder(*, lane: str = "normal", unique: str = "1", **asked: Any) -> ResponsesEncoder:
    body = json.dumps({"input": "Hello", "tools": TOOLS} | asked).encode()
    reply = parse_response(body, RequestLimits(max_depth=64, max_messages=10, num_ctx_ceiling=65536)).reply
    return ResponsesEncoder(reply, Served(model="m:latest", created=1_700_000_000, lane=lane), unique=unique)


def events(stream: bytes) -> list[Any]:
    """Every event of a stream, checked."""
    assert stream == b"" or stream.endswith(b"\n\n")
    found = []
    for block in stream.decode().split("\n\n")[:-1]:
        kind, data = [line for line in block.split("\n") if not line.startswith(":")]
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        EVENT.validate_python(event)
        found.append(event)
    return found


def streamed(*pieces: Delta, completion: Completion = STOP, **asked: Any) -> list[Any]:
    writer = encoder(**asked)
    told = events(writer.begin() + writer.pieces(pieces) + writer.end(completion))
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return told


def whole(*pieces: Delta, completion: Completion = STOP, **asked: Any) -> Any:
    body = encoder(**asked).whole(fold(list(pieces), completion))
    assert body.endswith(b"}\n")
    answer = json.loads(body)
    Response.model_validate(answer)
    return answer


def kinds(told: list[Any]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in told]


# --- whole ---


def test_a_whole_answer() -> None:
    answer = whole(Delta(" Hi"), Delta(" there \n"), instructions="Be brief.")
    assert answer["output"] == [
        {
            "id": "msg_1_0",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": " Hi there \n", "annotations": [], "logprobs": []}],
        }
    ]
    head = {name: answer[name] for name in ("id", "object", "created_at", "status", "model", "service_tier", "store")}
    assert head == {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "model": "m:latest",
        "service_tier": "default",
        "store": False,
    }
    assert (answer["error"], answer["incomplete_details"], answer["instructions"]) == (None, None, "Be brief.")
    assert answer["usage"] == {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 15,
    }


@pytest.mark.parametrize(("counted", "said"), [(5, 5), (0, 0), (None, 0)])
def test_thoughts_are_counted_where_the_engine_does(counted: int | None, said: int) -> None:
    usage = whole(completion=Completion("stop", 11, 7, reasoning_tokens=counted))["usage"]
    assert usage["output_tokens_details"] == {"reasoning_tokens": said}
    assert (usage["output_tokens"], usage["total_tokens"]) == (7, 18)  # they are among the others


def test_usage_that_nobody_counted_is_not_made_up() -> None:
    assert whole(completion=Completion("stop"))["usage"] is None
    assert whole(completion=Completion("stop", completion_tokens=2))["usage"]["total_tokens"] == 2
    assert whole(completion=Completion("stop", prompt_tokens=2))["usage"]["total_tokens"] == 2


def test_an_answer_without_anything_in_it_is_an_empty_text() -> None:
    [message] = whole()["output"]
    assert message["content"][0]["text"] == ""


def test_thought_text_and_calls_are_items_in_this_order() -> None:
    calls = (
        ToolCall("f", '{"a": 1.10}', "call_7"),
        ToolCall("patch", '{"input": "*** Begin"}'),
        ToolCall("mail__send"),
        ToolCall("unknown", "{}"),
    )
    thought, text, function, custom, space, unknown = whole(Delta("Hi", thinking="hm"), Delta(tool_calls=calls))[
        "output"
    ]
    summary = [{"type": "summary_text", "text": "hm"}]
    assert thought == {"id": "rs_1_0", "type": "reasoning", "status": "completed", "summary": summary}
    assert text["id"] == "msg_1_1"
    assert function == {
        "id": "fc_1_2",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_7",
        "name": "f",
        "arguments": '{"a": 1.10}',
    }
    assert custom == {
        "id": "ctc_1_3",
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": "call_1_3",
        "name": "patch",
        "input": "*** Begin",
    }
    assert (space["name"], space["namespace"]) == ("send", "mail")
    assert (unknown["type"], unknown["name"]) == ("function_call", "unknown")


def test_a_thought_is_sealed_for_whoever_wants_to_send_it_back() -> None:
    [thought, _] = whole(Delta("x", thinking="hm"), include=["reasoning.encrypted_content"])["output"]
    assert thought["encrypted_content"] == sealed("hm")


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("other", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
def test_an_answer_that_was_cut_says_so(reason: FinishReason, status: str, why: str | None) -> None:
    for pieces in ([Delta("half")], [Delta(tool_calls=(ToolCall("f", '{"a'),))], [Delta(thinking="half")], []):
        answer = whole(*pieces, completion=Completion(reason))
        last = streamed(*pieces, completion=Completion(reason))[-1]
        assert last["type"] == f"response.{status}"
        for said in (answer, last["response"]):
            assert said["status"] == said["output"][-1]["status"] == status
            assert said["incomplete_details"] == ({"reason": why} if why else None)


def test_logprobs_are_those_of_the_text_and_have_all_their_fields() -> None:
    pieces = (Delta(thinking="hm", logprobs=(LOGPROB | {"token": "hm"},)), Delta("é", logprobs=(LOGPROB,)))
    full = [LOGPROB | {"bytes": [0xC3, 0xA9]}]
    wanted: dict[str, Any] = {"include": ["message.output_text.logprobs"]}
    assert whole(*pieces, **wanted)["output"][1]["content"][0]["logprobs"] == full
    assert whole(*pieces)["output"][1]["content"][0]["logprobs"] == []
    for asked, expected in ((wanted, full), ({}, [])):
        told = [event for event in streamed(*pieces, **asked) if event["type"].startswith("response.output_text")]
        assert [event["logprobs"] for event in told] == [expected, expected]  # of the delta, and of the whole text


def test_the_tier_that_was_used_is_echoed() -> None:
    assert whole(lane="background")["service_tier"] == "flex"


# --- streams ---

TEXT = "output_item.added content_part.added output_text.delta output_text.done content_part.done output_item.done"
THOUGHT = (
    "output_item.added reasoning_summary_part.added reasoning_summary_text.delta reasoning_summary_text.done "
    "reasoning_summary_part.done output_item.done"
)
CALL = "output_item.added function_call_arguments.delta function_call_arguments.done output_item.done"
CUSTOM = "output_item.added custom_tool_call_input.delta custom_tool_call_input.done output_item.done"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], TEXT),
        ([Delta("Hi")], TEXT),
        ([Delta("answer", thinking="hm")], f"{THOUGHT} {TEXT}"),
        ([Delta(tool_calls=(ToolCall("f"), ToolCall("mail__send")))], f"{CALL} {CALL}"),
        ([Delta("I look.", tool_calls=(ToolCall("patch"),)), Delta("Done.")], f"{TEXT} {CUSTOM} {TEXT}"),
        ([Delta("a"), Delta(thinking="b"), Delta("c")], f"{TEXT} {THOUGHT} {TEXT}"),
    ],
)
def test_the_order_of_the_events(pieces: list[Delta], expected: str) -> None:
    assert kinds(streamed(*pieces)) == ["created", "in_progress", *expected.split(), "completed"]


def test_pieces_of_one_item_share_it() -> None:
    told = streamed(Delta("Hi"), Delta(), Delta(" there"))
    assert [event["delta"] for event in told if "delta" in event] == ["Hi", " there"]
    assert {event["item_id"] for event in told if "item_id" in event} == {"msg_1_0"}
    added, done = (event for event in told if event["type"].startswith("response.output_item"))
    assert added["item"]["id"] == done["item"]["id"] == "msg_1_0"
    assert added["item"] == done["item"] | {"status": "in_progress", "content": []}


def test_an_empty_piece_is_no_event() -> None:
    assert encoder().pieces([Delta(), Delta(logprobs=(LOGPROB,))]) == b""


def test_a_response_is_created_before_anything_is_known_of_it() -> None:
    [created] = events(encoder().begin())
    assert (created["type"], created["response"]["status"]) == ("response.created", "queued")
    assert created["response"]["output"] == []
    assert created["response"]["id"] == "resp_1"


@pytest.mark.parametrize(
    ("progress", "comment", "kind"),
    [
        (Progress("queued", 3, 40.2), b": queued, 3 ahead, about 40 s\n", "queued"),
        (Progress("queued", 2), b": queued, 2 ahead\n", "queued"),
        (Progress("paused", 2), b": paused, 2 ahead\n", "queued"),
        (Progress("loading"), b": loading\n", "in_progress"),
        (Progress("running"), b": running\n", "in_progress"),
    ],
)
def test_a_caller_who_waits_hears_an_event_that_may_be_repeated(progress: Progress, comment: bytes, kind: str) -> None:
    writer = encoder()
    writer.begin()
    for number in (1, 2):
        data = writer.waiting(progress)
        assert data.startswith(comment)
        [event] = events(data)
        assert (event["type"], event["sequence_number"]) == (f"response.{kind}", number)
        assert event["response"]["status"] == kind


def test_word_in_the_middle_of_an_answer_is_that_it_goes_on() -> None:
    writer = encoder()
    data = writer.begin() + writer.waiting(Progress("running")) + writer.pieces([Delta("Hi")])
    data += writer.waiting(Progress("queued", 1)) + writer.pieces([Delta(" there")]) + writer.end(STOP)
    told = events(data)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert kinds(told)[:2] == ["created", "in_progress"]
    assert kinds(told)[4:7] == ["output_text.delta", "in_progress", "output_text.delta"]
    assert kinds(told).count("in_progress") == 2
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "Hi there"


def test_a_broken_stream_ends_with_a_failure_and_nothing_made_up() -> None:
    writer = encoder()
    data = writer.begin() + writer.pieces([Delta("half", thinking="hm")]) + writer.error(errors.UpstreamBroke("Broke."))
    *_, delta, failed = events(data)
    assert delta["type"] == "response.output_text.delta"
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert [item["type"] for item in failed["response"]["output"]] == ["reasoning"]
    assert failed["response"]["error"] == {
        "code": "server_error",
        "message": "Broke.",
        "param": None,
        "type": "upstream_broke",
    }


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (errors.PromptTooLong("Too long."), "context_length_exceeded", "Too long."),
        (errors.Unfinished("Stopped.", retry_after=5), "rate_limit_exceeded", "Stopped. Please try again in 5s."),
        (errors.LineFull("Full."), "rate_limit_exceeded", "Full. Please try again in 1s."),
        (errors.ModelNotFound("Gone."), "invalid_prompt", "Gone."),
        (errors.UpstreamRefused("No.", status=422), "invalid_prompt", "No."),
        (errors.Cancelled("By hand."), "invalid_prompt", "By hand."),
        (errors.WaitExpired("Too late."), "invalid_prompt", "Too late."),
        (errors.LoadTimedOut("Slow."), "invalid_prompt", "Slow."),
        (errors.LoadFailed("Big."), "invalid_prompt", "Big."),
        (errors.EngineStuck("Stuck."), "invalid_prompt", "Stuck."),
        (errors.UpstreamUnreachable("Away."), "server_error", "Away."),
        (errors.QueueError("A bug."), "server_error", "A bug."),
    ],
)
def test_the_code_of_a_failure_says_whether_to_ask_again(error: errors.QueueError, code: str, says: str) -> None:
    assert failure_of(error) == (code, says)


@given(st.lists(deltas), st.data())
def test_a_stream_says_what_a_whole_answer_says(pieces: list[Delta], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(pieces)))
    writer = encoder()
    stream = writer.begin() + writer.pieces(pieces[:cut]) + writer.waiting(Progress("running"))
    stream += writer.pieces(pieces[cut:]) + writer.end(STOP)
    told = events(stream)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    output = told[-1]["response"]["output"]
    assert [event["item"] for event in told if event["type"] == "response.output_item.done"] == output
    assert [event["output_index"] for event in told if event["type"] == "response.output_item.added"] == list(
        range(len(output))
    )
    for kind, field in (("message", "output_text.delta"), ("reasoning", "reasoning_summary_text.delta")):
        said = "".join(event["delta"] for event in told if event["type"] == f"response.{field}")
        assert said == "".join(text_of(item) for item in output if item["type"] == kind)
        assert said == "".join(text_of(item) for item in whole(*pieces)["output"] if item["type"] == kind)
    assert len({item["id"] for item in output}) == len(output)


def text_of(item: Any) -> str:
    texts = item["content"] if item["type"] == "message" else item["summary"]
    return "".join(part["text"] for part in texts)


@given(st.text(min_size=1))
def test_text_is_verbatim(text: str) -> None:
    assert whole(Delta(text))["output"][0]["content"][0]["text"] == text
    assert [event["delta"] for event in streamed(Delta(text)) if "delta" in event] == [text]


def test_every_answer_has_an_id_of_its_own() -> None:
    ids = {encoder(unique="").id for _ in range(100)}
    assert len(ids) == 100


def test_a_number_of_tokens() -> None:
    assert json.loads(input_tokens_body(7)) == {"object": "response.input_tokens", "input_tokens": 7}
