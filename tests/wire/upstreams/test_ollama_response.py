"""Ollama's lines, whole and broken. The samples are what Ollama 0.33 sent."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.errors import UpstreamBroke
from llm_queue.wire.shapes import Completion, Delta, ToolCall, Vectors
from llm_queue.wire.upstreams.lines import MAX_LINE
from llm_queue.wire.upstreams.ollama_response import LineDecoder, error_text, parse_loaded, parse_plain_embedded

SAID = (
    b'{"model":"m","created_at":"2026-11-23T09:03:24.6Z","message":{"role":"assistant","content":" B"},"done":false,'
    b'"logprobs":[{"token":" B","logprob":-4.5,"bytes":[32,66],"top_logprobs":[{"token":"I","logprob":-2.25,'
    b'"bytes":[73]}]}]}\n'
)
DONE = (
    b'{"model":"m","created_at":"2026-11-23T09:03:24.7Z","message":{"role":"assistant","content":""},"done":true,'
    b'"done_reason":"length","total_duration":1671056215,"load_duration":1500000000,"prompt_eval_count":11,'
    b'"prompt_eval_cached_count":0,"prompt_eval_duration":48235000,"eval_count":4,"eval_duration":51108000}\n'
)


def line(**fields: Any) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def said(content: str = "", **message: Any) -> bytes:
    return line(model="m", message={"role": "assistant", "content": content} | message, done=False)


def read(*chunks: bytes) -> tuple[list[Delta], Completion]:
    decoder = LineDecoder()
    deltas = [delta for chunk in chunks for delta in decoder.feed(chunk)]
    left, completion = decoder.close()
    return deltas + left, completion


def test_a_stream_and_its_end() -> None:
    deltas, completion = read(SAID + DONE)
    logprob = {
        "token": " B",
        "logprob": -4.5,
        "bytes": [32, 66],
        "top_logprobs": [{"token": "I", "logprob": -2.25, "bytes": [73]}],
    }
    assert deltas == [Delta(" B", logprobs=(logprob,))]
    assert completion == Completion(
        "length",
        finish_text="length",
        prompt_tokens=11,
        completion_tokens=4,
        cached_tokens=0,
        load_seconds=1.5,
        prompt_seconds=48235000 * 1e-9,
        answer_seconds=51108000 * 1e-9,
        total_seconds=1671056215 * 1e-9,
    )


def test_logprobs_have_every_field_of_openais() -> None:
    ((delta,), _) = read(line(message={"content": "a"}, logprobs=[{"token": "a", "logprob": -1.0}]), DONE)
    assert delta.logprobs == ({"token": "a", "logprob": -1.0, "bytes": None, "top_logprobs": []},)


def test_thinking_and_content_are_told_apart() -> None:
    deltas, _ = read(said(thinking=" hm"), said(" 4 ", thinking="!"), DONE)
    assert deltas == [Delta(thinking=" hm"), Delta(" 4 ", thinking="!")]


CALL = {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}


def test_tool_calls_may_come_before_the_end_or_in_it() -> None:
    call = ToolCall("f", '{"a": 1}', "call_1")
    deltas, _ = read(said(tool_calls=[CALL]), DONE)
    assert deltas == [Delta(tool_calls=(call,))]
    deltas, completion = read(line(message={"content": "x", "tool_calls": [CALL]}, done=True, done_reason="stop"))
    assert deltas == [Delta("x", tool_calls=(call,))]
    assert completion.finish_reason == "stop"


def test_a_tool_call_needs_no_id_and_no_arguments() -> None:
    deltas, _ = read(
        said(tool_calls=[{"function": {"name": "f", "arguments": None}}, {"id": "", **_function("g")}]), DONE
    )
    assert deltas == [Delta(tool_calls=(ToolCall("f"), ToolCall("g")))]


def _function(name: str) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {}}}


def test_null_is_nothing() -> None:
    deltas, completion = read(
        line(message=None, logprobs=None, done=None, error=None),
        line(message={"content": None, "thinking": None, "tool_calls": None}),
        line(done=True, done_reason=None, prompt_eval_count=None),
    )
    assert deltas == []
    assert completion.finish_reason == "stop"


def test_counts_that_are_missing_are_zero() -> None:
    completion = read(line(done=True, done_reason="load"))[1]
    assert completion == Completion("load", 0, 0, 0.0, None, 0.0, 0.0, "load", total_seconds=0.0)


def test_a_truncated_stream_is_an_error() -> None:
    for chunks in ((), (b"",), (SAID,), (SAID, DONE[:20]), (SAID, said(), b"\n")):
        with pytest.raises(UpstreamBroke):
            read(*chunks)


def test_an_answer_that_is_not_done_is_an_error() -> None:
    with pytest.raises(UpstreamBroke):
        read(line(message={"content": "half"}, done=False, done_reason="stop"))


def test_the_last_line_needs_no_newline() -> None:
    assert read(SAID, DONE.rstrip())[1].finish_reason == "length"
    assert read(line(message={"content": "kept"}, done=True).rstrip())[0] == [Delta("kept")]


def test_the_text_of_an_error_line_is_kept() -> None:
    decoder = LineDecoder()
    assert decoder.feed(SAID)
    with pytest.raises(UpstreamBroke, match=r"^an error was encountered: unexpected EOF$"):
        decoder.feed(line(error="an error was encountered: unexpected EOF"))


def test_an_error_without_a_newline_is_read_at_the_end() -> None:
    with pytest.raises(UpstreamBroke, match=r"^out of memory$"):
        read(SAID, b'{"error":"out of memory"}')


def test_an_error_wins_over_done() -> None:
    with pytest.raises(UpstreamBroke, match=r"^no$"):
        read(line(error="no", done=True))


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>Bad Gateway</html>\n",
        b"{\n",
        b"[]\n",
        b"null\n",
        b'{"message":"text"}\n',
        b'{"message":{"content":3}}\n',
        b'{"done":"yes"}\n',
        b'{"message":{"content":"\xff"}}\n',
        b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":' + b"[" * 100_000 + b"\n",
    ],
)
def test_a_line_that_is_none_is_an_error(garbage: bytes) -> None:
    with pytest.raises(UpstreamBroke):
        read(SAID, garbage, DONE)


def test_an_error_about_a_garbled_line_does_not_quote_it() -> None:
    with pytest.raises(UpstreamBroke) as caught:
        LineDecoder().feed(b'{"message":{"content":"a secret\n')
    assert "secret" not in caught.value.message


def test_what_follows_the_end_is_ignored() -> None:
    decoder = LineDecoder()
    assert decoder.feed(DONE + b"garbage\n" + SAID + b"more") == []
    assert decoder.feed(b"garbage\n" + SAID) == []
    assert decoder.close()[1].finish_reason == "length"


def test_it_is_done_when_the_upstream_says_so() -> None:
    decoder = LineDecoder()
    seen = []
    for chunk in (SAID, DONE[:50], DONE[50:], b"more"):
        decoder.feed(chunk)
        seen.append(decoder.done)
    assert seen == [False, False, True, True]


def test_empty_lines_are_ignored() -> None:
    assert read(b"\n \n\r\n", SAID, b"\n", DONE)[0] == read(SAID + DONE)[0]


def test_a_line_may_be_long_but_not_endless() -> None:
    whole = said("x" * (MAX_LINE - 200))
    ((delta,), _) = read(whole[:1000], whole[1000:], DONE)
    assert len(delta.content) == MAX_LINE - 200
    with pytest.raises(UpstreamBroke, match="more than"):
        LineDecoder().feed(said("x" * MAX_LINE))
    decoder = LineDecoder()
    decoder.feed(b"x" * MAX_LINE)
    with pytest.raises(UpstreamBroke, match="more than"):
        decoder.feed(b"x")


pieces = st.lists(
    st.one_of(
        st.builds(said, st.text(), thinking=st.text()),
        st.builds(said, st.text(), tool_calls=st.lists(st.just(CALL), max_size=2)),
        st.sampled_from([SAID, b"\n"]),
    ),
    max_size=8,
)


@given(pieces, st.lists(st.integers(min_value=0, max_value=10_000)))
def test_cuts_of_the_network_change_nothing(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(lines) + DONE
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert read(*chunks) == read(*lines, DONE)


def test_a_stream_may_come_byte_by_byte() -> None:
    stream = said("Grüße 😀") + SAID + DONE
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == read(stream)


@given(st.text(min_size=1))
def test_text_is_verbatim(text: str) -> None:
    assert read(said(text), DONE)[0] == [Delta(text)]


@given(st.lists(st.binary() | st.sampled_from([SAID, DONE, b"\n", b'{"error":""}\n'])))
def test_anything_is_read_or_is_broken(chunks: list[bytes]) -> None:
    with contextlib.suppress(UpstreamBroke):
        read(*chunks)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":"model \'nope:latest\' not found"}', "model 'nope:latest' not found"),
        (
            rb'{"error":"{\"error\":{\"code\":400,\"message\":\"Multimodal data provided, but model does not support '
            rb'multimodal requests.\",\"type\":\"invalid_request_error\"}}"}',
            "Multimodal data provided, but model does not support multimodal requests.",
        ),
        (b'{"error":{"message":"no"}}', "no"),
        (b'{"error":"unauthorized","signin_url":"https://x/y"}', "unauthorized (sign in at https://x/y)"),
        (b'{"error":"unauthorized","signin_url":""}', "unauthorized"),
        (b"502 Bad Gateway\n", "502 Bad Gateway"),
        (b'{"error":3}', '{"error":3}'),
        (b"\xff", "\ufffd"),
        (b"", ""),
        (b"[" * 3000, "[" * 3000),
    ],
)
def test_the_text_of_an_error_is_unwrapped(body: bytes, text: str) -> None:
    assert error_text(body) == text


def test_the_text_of_an_error_is_bounded() -> None:
    assert len(error_text(b"x" * 1_000_000)) == 4000


def test_the_older_embeddings_have_one_vector() -> None:
    vectors, completion = parse_plain_embedded(b'{"embedding":[3.0,4.0]}')
    assert (vectors, completion.finish_reason, completion.prompt_tokens) == (Vectors(((3.0, 4.0),)), "stop", None)
    with pytest.raises(UpstreamBroke):
        parse_plain_embedded(b"{}")


def test_what_only_loads_says_how_long_that_took() -> None:
    completion = parse_loaded(b'{"model":"m","done":true,"done_reason":"load","load_duration":1500000000}')
    assert (completion.finish_reason, completion.load_seconds) == ("load", 1.5)
    assert parse_loaded(b'{"model":"m","embeddings":[]}').finish_text == ""
