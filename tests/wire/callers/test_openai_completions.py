"""OpenAI's older completions: what is asked for, and answers whole, streamed and broken."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue import errors
from llm_queue.errors import BadRequest
from llm_queue.wire.callers.dialect import Parsed, Progress, RequestLimits, Served
from llm_queue.wire.callers.openai_completions import CompletionEncoder, CompletionReply, parse_completion
from llm_queue.wire.shapes import (
    Completion,
    Delta,
    FinishReason,
    PartEnd,
    Sampling,
    TextRequest,
    ToolCall,
    Vectors,
    fold,
)
from llm_queue.wire.wishes import Wishes

LIMITS = RequestLimits(max_depth=64, max_messages=10, num_ctx_ceiling=65536)
STOP = Completion("stop", prompt_tokens=11, completion_tokens=4)
USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}


def parse(**fields: Any) -> Parsed[CompletionReply]:
    return parse_completion(json.dumps({"prompt": "Once"} | fields).encode(), LIMITS)


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(**fields)
    return caught.value


def encoder(answer_id: str | None = None, **reply: Any) -> CompletionEncoder:
    return CompletionEncoder(CompletionReply(**reply), Served("m:latest", 1_700_000_000), answer_id=answer_id)


def whole(*pieces: Delta, completion: Completion = STOP) -> Any:
    return json.loads(encoder("cmpl-1").whole(fold(list(pieces), completion)))


def events(stream: bytes) -> list[Any]:
    datas = [event.removeprefix("data: ") for event in stream.decode().split("\n\n")[:-1]]
    return [data if data == "[DONE]" else json.loads(data) for data in datas]


def streamed(*pieces: Delta, completion: Completion = STOP, **reply: Any) -> list[Any]:
    writer = encoder(**reply)
    return events(writer.begin() + writer.pieces(pieces) + writer.end(completion))


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["Once", ["Once"]])
def test_a_text_or_a_list_of_one(prompt: Any) -> None:
    parsed = parse(prompt=prompt, model="m")
    assert parsed == Parsed(TextRequest("m", "Once"), CompletionReply())


def test_several_texts_are_several_requests_that_differ_in_nothing_else() -> None:
    parsed = parse(prompt=["a", "b", "c"], model="m", seed=3, suffix="end")
    first, *more = (TextRequest("m", text, "end", sampling=Sampling(seed=3)) for text in "abc")
    assert parsed == Parsed(first, CompletionReply(), more=tuple(more))


def test_all_that_may_be_asked_for() -> None:
    parsed = parse(
        suffix="end", max_tokens=7, temperature=0, stop="\n", seed=3, top_k=5, logprobs=2, n=1, best_of=1, echo=False,
        stream=True, stream_options={"include_usage": True, "include_obfuscation": False}, user="somebody",
    )  # fmt: skip
    sampling = Sampling(temperature=0, stop=("\n",), seed=3, top_k=5)
    request = TextRequest("", "Once", "end", sampling=sampling, max_tokens=7, logprobs=True, top_logprobs=2)
    assert parsed == Parsed(request, CompletionReply(include_usage=True), stream=True)


@pytest.mark.parametrize("fields", [{"max_tokens": 7}, {"options": {"num_predict": 7}}])
def test_the_most_tokens_of_an_answer(fields: dict[str, Any]) -> None:
    assert parse(**fields).request == TextRequest("", "Once", max_tokens=7)
    assert parse(max_tokens=0).request == TextRequest("", "Once")


def test_no_likely_tokens_beside_the_one_that_was_picked() -> None:
    assert parse(logprobs=0).request == TextRequest("", "Once", logprobs=True)


NULLABLE = [
    *("model", "suffix", "echo", "best_of", "n", "logprobs", "max_tokens", "options", "num_ctx", "numCtx", "priority"),
    *("service_tier", "prompt_cache_key", "stop", "stream", "stream_options", "temperature", "logit_bias"),
]


@pytest.mark.parametrize("field", NULLABLE)
def test_null_is_the_same_as_absent(field: str) -> None:
    assert parse(**{field: None}) == parse()


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompt": None}, "prompt", "Expected"),
        ({"prompt": ""}, "prompt", "nothing to go on with"),
        ({"prompt": ["a", ""]}, "prompt[1]", "nothing to go on with"),
        ({"prompt": []}, "prompt", "the list is empty"),
        ({"prompt": ["a"] * 11}, "prompt", "at most 10"),
        ({"prompt": [1, 2]}, "prompt", "token ids"),
        ({"prompt": [[1, 2]]}, "prompt", "token ids"),
        ({"prompt": [None]}, "prompt[0]", "Expected a string"),
        ({"echo": True}, "echo", "not repeated"),
        ({"n": 2}, "n", "<= 1"),
        ({"best_of": 3}, "best_of", "<= 1"),
        ({"logprobs": 21}, "logprobs", "<= 20"),
        ({"logprobs": True}, "logprobs", "whole number"),
        ({"suffix": 3}, "suffix", "string"),
        ({"stop": 3}, "stop", "string"),
        ({"numCtx": 65537}, "numCtx", "from 1 to 65536"),
        ({"num_ctx": 4096, "options": {"num_ctx": 8192}}, "num_ctx", "differ"),
    ],
)
def test_an_error_names_the_field(fields: dict[str, Any], param: str, words: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert words in error.message


def test_a_body_without_a_prompt_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_completion(b'{"model":"m"}', LIMITS)
    assert caught.value.param == "prompt"


def test_what_is_meant_for_the_line() -> None:
    fields = {"priority": True, "numCtx": 4096, "prompt_cache_key": "talk", "num_gpu": 1, "logit_bias": {"50256": -100}}
    wishes = Wishes("interactive", num_ctx=4096, session="talk", dropped=("num_gpu", "logit_bias"))
    assert parse(**fields).wishes == wishes


@given(st.binary())
def test_any_bytes_are_refused_or_read(said: bytes) -> None:
    with contextlib.suppress(BadRequest):
        parse_completion(said, LIMITS)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_whole_answer() -> None:
    assert whole(Delta(" upon"), Delta(" a time\n")) == {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "m:latest",
        "system_fingerprint": "fp_llm_queue",
        "choices": [{"index": 0, "text": " upon a time\n", "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def test_a_stream_has_the_same_shape_and_says_in_its_last_choice_why_it_ended() -> None:
    first, second, finish, done = streamed(Delta(" upon"), Delta(), Delta(" a time"))
    assert first["object"] == second["object"] == finish["object"] == "text_completion"
    assert first["choices"] == [{"index": 0, "text": " upon", "logprobs": None, "finish_reason": None}]
    assert second["choices"][0]["text"] == " a time"
    assert finish["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]
    assert done == "[DONE]"
    assert first["id"] == finish["id"]
    assert first["id"].startswith("cmpl-")


def test_usage_is_a_chunk_of_its_own_and_only_on_demand() -> None:
    *before, usage, _ = streamed(Delta("x"), include_usage=True)
    assert (usage["choices"], usage["usage"]) == ([], USAGE)
    assert all("usage" not in event for event in before)


@pytest.mark.parametrize(
    ("said", "text", "reason"),
    [
        ("stop", "", "stop"),
        ("length", "", "length"),
        ("content_filter", "", "content_filter"),
        ("tool_calls", "", "stop"),
        ("other", "new", "new"),
        ("other", "", "other"),
        ("load", "load", "load"),
    ],
)
def test_the_finish_reason_is_the_truth(said: FinishReason, text: str, reason: str) -> None:
    completion = Completion(said, finish_text=text)
    assert whole(Delta("x"), completion=completion)["choices"][0]["finish_reason"] == reason
    assert streamed(completion=completion)[0]["choices"][0]["finish_reason"] == reason


def test_thoughts_stand_beside_the_text() -> None:
    assert whole(Delta(thinking="hm"), Delta("a"))["choices"][0]["reasoning"] == "hm"
    assert streamed(Delta(thinking="hm"))[0]["choices"][0]["reasoning"] == "hm"


def test_what_is_no_text_is_left_out() -> None:
    assert len(streamed(Delta(tool_calls=(ToolCall("f"),)))) == 2
    assert encoder().pieces([Vectors(((1.0,),))]) == b""


def item(token: str, logprob: float, **top: float) -> dict[str, Any]:
    others = [{"token": other, "logprob": likely, "bytes": None} for other, likely in top.items()]
    return {"token": token, "logprob": logprob, "bytes": None, "top_logprobs": others}


def test_logprobs_are_four_lists() -> None:
    pieces = (Delta("ab", logprobs=(item("ab", -0.5, ab=-0.5, x=-1.0),)), Delta("ü!", logprobs=(item("ü!", -2, y=-1),)))
    expected = {
        "tokens": ["ab", "ü!"],
        "token_logprobs": [-0.5, -2],
        "top_logprobs": [{"ab": -0.5, "x": -1.0}, {"y": -1, "ü!": -2}],
        "text_offset": [0, 2],
    }
    assert whole(*pieces)["choices"][0]["logprobs"] == expected
    parts = [event["choices"][0]["logprobs"] for event in streamed(*pieces)[:2]]
    assert {name: parts[0][name] + parts[1][name] for name in expected} == expected


def test_without_likely_tokens_there_is_no_list_of_them() -> None:
    logprobs = whole(Delta("ab", logprobs=(item("a", -0.5), item("b", -1))))["choices"][0]["logprobs"]
    assert logprobs == {
        "tokens": ["a", "b"], "token_logprobs": [-0.5, -1], "top_logprobs": None, "text_offset": [0, 1],
    }  # fmt: skip


def test_several_texts_have_a_choice_each_and_their_counts_together() -> None:
    first = fold([Delta("a", logprobs=(item("a", -1),))], Completion("length", 3, 1, cached_tokens=2))
    last = fold([Delta("b", logprobs=(item("b", -1),))], Completion("stop", 4, 2, cached_tokens=0))
    answer = json.loads(encoder().whole(msgspec.structs.replace(last, earlier=(first,))))
    assert [(one["index"], one["text"], one["finish_reason"]) for one in answer["choices"]] == [
        (0, "a", "length"), (1, "b", "stop"),
    ]  # fmt: skip
    assert [one["logprobs"]["text_offset"] for one in answer["choices"]] == [[0], [0]]
    assert answer["usage"] == {
        "prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2},
    }  # fmt: skip
    ends = (first.completion, msgspec.structs.replace(last.completion, cached_tokens=None))
    pieces = (Delta("a", logprobs=(item("a", -1),)), PartEnd(completion=ends[0]), Delta("b", logprobs=(item("b", -1),)))
    *chunks, usage, done = streamed(*pieces, completion=ends[1], include_usage=True)
    said = [chunk["choices"][0] for chunk in chunks]
    assert [(one["index"], one["text"], one["finish_reason"]) for one in said] == [
        (0, "a", None), (0, "", "length"), (1, "b", None), (1, "", "stop"),
    ]  # fmt: skip
    assert said[2]["logprobs"]["text_offset"] == [0]
    assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert done == "[DONE]"


def test_a_caller_who_waits_gets_a_comment() -> None:
    assert encoder().waiting(Progress("queued", 3, 40.2)) == b": queued, 3 ahead, about 40 s\n\n"


def test_a_broken_stream_ends_with_an_error_and_nothing_made_up() -> None:
    writer = encoder()
    first, error = events(writer.pieces([Delta("half an ans")]) + writer.error(errors.UpstreamBroke("It broke.")))
    assert first["choices"][0]["finish_reason"] is None
    assert error == {"error": {"message": "It broke.", "type": "api_error", "param": None, "code": "upstream_broke"}}


@given(st.lists(st.text()), st.integers(0, 5))
def test_a_stream_says_what_a_whole_answer_says(texts: list[str], cut: int) -> None:
    pieces = [Delta(text) for text in texts]
    writer = encoder()
    stream = events(writer.pieces(pieces[:cut]) + writer.pieces(pieces[cut:]) + writer.end(STOP))
    assert "".join(event["choices"][0]["text"] for event in stream[:-1]) == whole(*pieces)["choices"][0]["text"]
