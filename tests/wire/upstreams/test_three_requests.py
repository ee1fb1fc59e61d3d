"""Chats, texts and embeds in the dialects of both upstreams: what is asked, what is left out, what comes back."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest

from llm_queue.errors import BadRequest, UpstreamBroke
from llm_queue.wire.shapes import (
    ChatRequest,
    Delta,
    EmbedRequest,
    LoadRequest,
    Message,
    Request,
    Sampling,
    TextRequest,
    ToolCall,
    ToolChoice,
    Vectors,
    fold,
    has_images,
)
from llm_queue.wire.upstreams import ollama_request, ollama_response, openai_request, openai_response

TOOL = {"type": "function", "function": {"name": "look"}}
OTHER = {"type": "function", "function": {"name": "other"}}
HI = (Message("user", "hi"),)


def loaded(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body))


# --- Ollama -----------------------------------------------------------------------------------------------------------


def test_a_text_goes_to_ollama_with_all_that_it_has() -> None:
    request = TextRequest(
        "m", "once", suffix="end", system="be brief", template="{{ .Prompt }}", raw=True, images=("aWE=",),
        context=(1, 2),
        sampling=Sampling(temperature=0.5, typical_p=0.9), max_tokens=7, format="json", think=False, logprobs=True,
        top_logprobs=2,
    )  # fmt: skip
    assert loaded(ollama_request.generate_body(request, 4096, 0.0)) == {
        "model": "m", "prompt": "once", "stream": True, "suffix": "end", "system": "be brief",
        "template": "{{ .Prompt }}", "raw": True, "images": ["aWE="], "context": [1, 2], "keep_alive": 0,
        "options": {"temperature": 0.5, "num_predict": 7, "num_ctx": 4096}, "format": "json", "think": False,
        "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    assert loaded(ollama_request.generate_body(TextRequest("m", "x"), 1)) == {
        "model": "m", "prompt": "x", "stream": True, "options": {"num_ctx": 1},
    }  # fmt: skip


def test_texts_to_embed_go_to_ollama_with_all_that_they_have() -> None:
    request = EmbedRequest("m", ("a", "b"), dimensions=64, truncate=False)
    assert loaded(ollama_request.embed_body(request, 4096, 0.0)) == {
        "model": "m", "input": ["a", "b"], "options": {"num_ctx": 4096}, "dimensions": 64, "truncate": False,
        "keep_alive": 0,
    }  # fmt: skip
    assert loaded(ollama_request.embed_body(EmbedRequest("m", ("a",)), 1)).keys() == {"model", "input", "options"}


def test_a_chat_says_zero_lifetime_only_where_the_model_is_to_go() -> None:
    assert loaded(ollama_request.chat_body(ChatRequest("m", HI), 1, 0.0))["keep_alive"] == 0
    assert "keep_alive" not in loaded(ollama_request.chat_body(ChatRequest("m", HI), 1))


@pytest.mark.parametrize(("seconds", "sent"), [(None, None), (600.0, 600), (1.5, 1.5), (math.inf, -1), (0.0, 0)])
def test_a_request_says_how_long_its_model_stays_where_it_is_told_to(seconds: float | None, sent: object) -> None:
    for body in (
        ollama_request.chat_body(ChatRequest("m", HI), 1, seconds),
        ollama_request.generate_body(TextRequest("m", "x"), 1, seconds),
        ollama_request.embed_body(EmbedRequest("m", ("a",)), 1, seconds),
        ollama_request.plain_embed_body("m", "a", 1, seconds),
    ):
        assert loaded(body).get("keep_alive") == sent


def test_a_text_with_the_models_template_is_a_chat_to_servers_whose_texts_have_none() -> None:
    request = TextRequest(
        "m", "once", system="be brief", templated=True, images=("aWE=",), sampling=Sampling(top_k=3), max_tokens=7,
        format="json", think=False, logprobs=True, top_logprobs=2, truncate=True, keep_alive=60.0,
    )  # fmt: skip
    assert openai_request.as_chat(request) == ChatRequest(
        "m", (Message("system", "be brief"), Message("user", "once", images=("aWE=",))), sampling=Sampling(top_k=3),
        max_tokens=7, format="json", think=False, logprobs=True, top_logprobs=2, truncate=True, keep_alive=60.0,
    )  # fmt: skip
    assert openai_request.as_chat(TextRequest("m", "x")) == ChatRequest("m", (Message("user", "x"),))
    assert openai_request.check(request, openai_request.COMMON) == ("truncate", "keep_alive")
    for more in (
        TextRequest("m", "x", templated=True, template="t"),
        TextRequest("m", "x", templated=True, context=(1,)),
    ):
        with pytest.raises(BadRequest):
            openai_request.check(more, openai_request.COMMON)
    assert "templated" not in loaded(ollama_request.generate_body(request, 1))


def test_the_older_embeddings_a_load_an_unload_and_truncate() -> None:
    assert loaded(ollama_request.plain_embed_body("m", "a", 7)) == {
        "model": "m", "prompt": "a", "options": {"num_ctx": 7},
    }  # fmt: skip
    assert "options" not in loaded(ollama_request.plain_embed_body("m", "a", 0))
    assert loaded(ollama_request.unload_body("m")) == {
        "model": "m", "messages": [], "stream": False, "keep_alive": 0,
    }  # fmt: skip
    assert ollama_request.check(LoadRequest("m")) == openai_request.check(LoadRequest("m"), frozenset()) == ()
    assert openai_request.check(LoadRequest("m", 60.0), frozenset()) == ("keep_alive",)
    assert loaded(ollama_request.chat_body(ChatRequest("m", HI, truncate=False), 1))["truncate"] is False
    chat = ChatRequest("m", HI, truncate=True, keep_alive=1.0)
    assert openai_request.check(chat, frozenset()) == ("truncate", "keep_alive")


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        (None, [TOOL, OTHER]),
        (ToolChoice("auto"), [TOOL, OTHER]),
        (ToolChoice("none"), None),
    ],
)
def test_ollama_gets_the_tools_that_may_be_chosen(choice: ToolChoice | None, tools: list[Any] | None) -> None:
    body = loaded(ollama_request.chat_body(ChatRequest("m", HI, tools=(TOOL, OTHER), tool_choice=choice), 1))
    assert body.get("tools") == tools


@pytest.mark.parametrize(
    ("request_", "dropped"),
    [
        (EmbedRequest("m", ("a",)), ()),
        (TextRequest("m", "a", sampling=Sampling(typical_p=1.0)), ("typical_p",)),
        (ChatRequest("m", HI, tool_choice=ToolChoice("required")), ()),
        (ChatRequest("m", HI, tools=(TOOL,), tool_choice=ToolChoice("none")), ()),
        (ChatRequest("m", HI, tools=(TOOL,), parallel_tool_calls=False), ("parallel_tool_calls",)),
        (ChatRequest("m", HI, tools=(TOOL,), tool_choice=ToolChoice("required"), parallel_tool_calls=False), ()),
        (ChatRequest("m", HI, parallel_tool_calls=False), ()),
        (ChatRequest("m", HI, grammar='root ::= "a"'), ("grammar",)),
    ],
)
def test_what_ollama_answers_without_is_named(request_: Request, dropped: tuple[str, ...]) -> None:
    assert ollama_request.check(request_) == dropped


@pytest.mark.parametrize("arguments", ['{"a": 1', "[1]", "1", "x"])
def test_arguments_that_are_no_object_are_refused_for_ollama_and_the_call_is_named(arguments: str) -> None:
    chat = ChatRequest("m", (Message("assistant", tool_calls=(ToolCall("look", arguments),)),))
    with pytest.raises(BadRequest, match="'look' are no JSON object") as refused:
        ollama_request.check(chat)
    assert refused.value.param == "messages[0].tool_calls[0].function.arguments"


@pytest.mark.parametrize(("arguments", "sent"), [("null", "{}"), ("", "{}"), ('{"a": 1.10}', '{"a": 1.10}')])
def test_arguments_go_to_ollama_character_by_character(arguments: str, sent: str) -> None:
    chat = ChatRequest("m", (Message("assistant", tool_calls=(ToolCall("look", arguments, "id"),)),))
    assert ollama_request.check(chat) == ()
    assert f'"arguments":{sent}'.encode() in ollama_request.chat_body(chat, 1)


def test_vectors_come_back_from_ollama_with_their_counts() -> None:
    vectors, completion = ollama_response.parse_embedded(b'{"embeddings":[[1,0],[0,1]],"prompt_eval_count":5}')
    assert vectors == Vectors(((1.0, 0.0), (0.0, 1.0)))
    assert completion.prompt_tokens == 5
    assert vectors.size > 64
    assert fold([vectors], completion).vectors == vectors.vectors
    with pytest.raises(UpstreamBroke, match="without embeddings"):
        ollama_response.parse_embedded(b"{}")


@pytest.mark.parametrize(
    ("arguments", "text"), [(b'{"a":1.10}', '{"a":1.10}'), (b'"{\\"a\\":1}"', '{"a":1}'), (b"null", "{}")]
)
def test_arguments_come_back_from_ollama_as_they_are(arguments: bytes, text: str) -> None:
    line = b'{"message":{"role":"assistant","tool_calls":[{"function":{"name":"look","arguments":%b}}]},"done":true}\n'
    decoder = ollama_response.LineDecoder()
    [delta] = decoder.feed(line % arguments)
    assert delta.tool_calls[0].arguments == text


# --- OpenAI-compatible ------------------------------------------------------------------------------------------------


def test_a_text_goes_to_a_server_with_what_it_has_fields_for() -> None:
    request = TextRequest(
        "m",
        "once",
        suffix="end",
        sampling=Sampling(seed=1, repeat_last_n=4),
        max_tokens=7,
        logprobs=True,
        top_logprobs=2,
    )
    assert loaded(openai_request.text_body(request)) == {
        "model": "m", "prompt": "once", "stream": True, "stream_options": {"include_usage": True}, "suffix": "end",
        "seed": 1, "max_tokens": 7, "logprobs": 2,
    }  # fmt: skip
    assert loaded(openai_request.text_body(TextRequest("m", "x"), counts=False)).keys() == {"model", "prompt", "stream"}


def test_texts_to_embed_go_to_a_server_as_a_list_and_come_back_as_numbers() -> None:
    assert loaded(openai_request.embed_body(EmbedRequest("m", ("a",), dimensions=3))) == {
        "model": "m", "input": ["a"], "encoding_format": "float", "dimensions": 3,
    }  # fmt: skip
    assert "dimensions" not in loaded(openai_request.embed_body(EmbedRequest("m", ("a",))))


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (ToolChoice("none"), "none"),
        (ToolChoice("required"), "required"),
        (ToolChoice("function", "look"), {"type": "function", "function": {"name": "look"}}),
    ],
)
def test_a_server_is_told_which_tool_to_choose(choice: ToolChoice, sent: Any) -> None:
    chat = ChatRequest("m", HI, tools=(TOOL,), tool_choice=choice, parallel_tool_calls=False)
    body = loaded(openai_request.chat_body(chat))
    assert (body["tool_choice"], body["parallel_tool_calls"]) == (sent, False)


def test_a_suffix_that_llama_cpp_would_not_look_at_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"llama\.cpp") as refused:
        openai_request.check(TextRequest("m", "once", suffix="end"), openai_request.LLAMA_CPP)
    assert refused.value.param == "suffix"
    assert openai_request.check(TextRequest("m", "once"), openai_request.LLAMA_CPP) == ()
    assert openai_request.check(TextRequest("m", "once", suffix="end"), openai_request.COMMON) == ()


def test_a_server_s_missing_fields_are_named_or_refused() -> None:
    known = openai_request.COMMON
    assert openai_request.check(EmbedRequest("m", ("a",)), known) == ()
    assert openai_request.check(EmbedRequest("m", ("a",), truncate=True), known) == ("truncate",)
    assert openai_request.check(TextRequest("m", "a", think=True, sampling=Sampling(typical_p=1.0)), known) == (
        "typical_p",
        "think",
    )
    assert openai_request.check(TextRequest("m", "a"), known) == ()
    assert openai_request.check(ChatRequest("m", HI, sampling=Sampling(typical_p=1.0)), openai_request.LLAMA_CPP) == ()
    with pytest.raises(BadRequest, match=r"template: .* send a chat"):
        openai_request.check(TextRequest("m", "a", template="x"), known)


def test_vectors_come_back_in_order_as_numbers_or_base64() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -1.0)).decode()
    body = {
        "data": [{"index": 1, "embedding": packed}, {"index": 0, "embedding": [1, 2]}],
        "usage": {"prompt_tokens": 3},
    }
    vectors, completion = openai_response.parse_embedded(json.dumps(body).encode())
    assert vectors == Vectors(((1.0, 2.0), (0.5, -1.0)))
    assert completion.prompt_tokens == 3
    unnumbered, _ = openai_response.parse_embedded(b'{"data":[{"embedding":[1]},{"embedding":[2]}]}')
    assert unnumbered == Vectors(((1.0,), (2.0,)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error":{"message":"too long"}}', "too long"),
        (b"{}", r"\{\}"),
        (b'{"data":[{"embedding":"%%"}]}', "neither numbers nor base64"),
        (b'{"data":[{"embedding":"AAA="}]}', "neither numbers nor base64"),
    ],
)
def test_an_answer_without_vectors_is_a_broken_one(body: bytes, said: str) -> None:
    with pytest.raises(UpstreamBroke, match=said):
        openai_response.parse_embedded(body)


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "has"),
    [
        (ChatRequest("m", HI), False),
        (ChatRequest("m", (Message("user", "x", images=("aWE=",)),)), True),
        (TextRequest("m", "x", images=("aWE=",)), True),
        (EmbedRequest("m", ("x",)), False),
    ],
)
def test_a_picture_is_found_wherever_it_is(request_: Request, has: bool) -> None:
    assert has_images(request_) is has


def test_an_error_within_an_error_is_unwrapped_as_often_as_ollama_wraps_it_and_no_more() -> None:
    text = "the reason"
    for _ in range(4):
        text = json.dumps({"error": text})
    assert ollama_response.error_text(text.encode()) == "the reason"
    assert ollama_response.error_text(json.dumps({"error": text}).encode()) == '{"error": "the reason"}'


def test_what_takes_room_while_nobody_reads_it_is_counted() -> None:
    small, large = Vectors(((1.0,),)), Vectors(((1.0,) * 1000,) * 3)
    assert large.size - small.size > 3 * 1000 * 8
    assert Delta(tool_calls=(ToolCall("f", "x" * 10_000),)).size > 10_000
