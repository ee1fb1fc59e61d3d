"""From Anthropic's message request to ours: what arrives, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_queue.errors import BadRequest
from llm_queue.wire.callers.anthropic_request import MessagesReply, parse_counted, parse_messages
from llm_queue.wire.callers.dialect import Parsed, RequestLimits
from llm_queue.wire.shapes import ChatRequest, Message, Sampling, ToolCall, ToolChoice

LIMITS = RequestLimits(max_depth=64, max_messages=5, num_ctx_ceiling=65536)
PIXEL = "iVBORw0KGgo="
PLACE = "messages[0].content"
WEATHER = {"name": "weather", "description": "the weather", "input_schema": {"type": "object"}}


def parsed(**fields: Any) -> Parsed[MessagesReply]:
    body = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]} | fields
    return parse_messages(json.dumps(body).encode(), LIMITS)


def request_of(**fields: Any) -> ChatRequest:
    request = parsed(**fields).request
    assert isinstance(request, ChatRequest)
    return request


def messages_of(*turns: Any, **fields: Any) -> tuple[Message, ...]:
    return request_of(messages=list(turns), **fields).messages


def user(*blocks: Any) -> Any:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> Any:
    return {"role": "assistant", "content": list(blocks)}


def text(said: str) -> Any:
    return {"type": "text", "text": said}


def picture(**source: Any) -> Any:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL} | source}


def result(content: Any = "sunny", **fields: Any) -> Any:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content} | fields


def refused(field: str, **fields: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        parsed(**fields)
    assert caught.value.param == field
    assert field in caught.value.message
    return caught.value.message


# --- parameters -------------------------------------------------------------------------------------------------------


def test_the_least_request() -> None:
    assert parsed() == Parsed(
        ChatRequest("m", (Message("user", "hi"),), max_tokens=10, think_if_able=True), MessagesReply()
    )


def test_a_request_without_a_model_is_for_the_configured_one() -> None:
    assert request_of(model=None).model == ""


def test_sampling_is_passed_on_only_if_given() -> None:
    request = request_of(temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["a", "b"])
    assert request.sampling == Sampling(temperature=0.5, top_p=0.9, top_k=40, stop=("a", "b"))
    assert request_of(stop_sequences=[], temperature=None).sampling == Sampling()
    assert parsed(stop_sequences=["a"]).reply == MessagesReply(("a",))


def test_a_stream_is_asked_for() -> None:
    assert parsed(stream=True).stream
    assert not parsed(stream=None).stream


@pytest.mark.parametrize("given", [{}, {"max_tokens": None}])
def test_the_length_of_the_answer_must_be_said(given: Any) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | given
    with pytest.raises(BadRequest, match="max_tokens: this field is required") as caught:
        parse_messages(json.dumps(body).encode(), LIMITS)
    assert caught.value.param == "max_tokens"


def test_tokens_are_counted_without_a_length() -> None:
    counted = parse_counted(b'{"messages":[{"role":"user","content":"hi"}]}', LIMITS)
    assert counted.request.model == ""
    with pytest.raises(BadRequest):
        parse_counted(b'{"messages":[{"role":"user"}]}', LIMITS)


@pytest.mark.parametrize("max_tokens", [0, -1, "5", 1.5])
def test_no_length_and_less_are_refused(max_tokens: Any) -> None:
    refused("max_tokens", max_tokens=max_tokens)


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({}, None),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, True),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "something new"}}, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, "high"),
        ({"thinking": {"type": "enabled"}, "output_config": {"effort": "xhigh"}}, "max"),
        ({"output_config": {"effort": "low"}}, "low"),
        ({"output_config": {}}, None),
    ],
)
def test_thinking_is_a_switch_and_an_effort(fields: Any, think: Any) -> None:
    request = request_of(**fields)
    assert (request.think, request.think_if_able) == (think, True)


def test_an_unknown_effort_is_refused() -> None:
    refused("output_config.effort", output_config={"effort": "enormous"})


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_the_schema_of_the_answer(place: str) -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    assert request_of(**{place: {"format": wanted} if place == "output_config" else wanted}).format == {
        "type": "object"
    }


def test_a_format_that_is_no_schema_is_refused() -> None:
    refused("output_config.format.type", output_config={"format": {"type": "xml", "schema": {}}})


# --- tools ------------------------------------------------------------------------------------------------------------


def test_tools_go_on_in_openais_form() -> None:
    tools = [WEATHER, {"type": "custom", "name": "f", "input_schema": {}, "strict": True, "cache_control": {}}]
    assert request_of(tools=tools).tools == (
        {
            "type": "function",
            "function": {"name": "weather", "parameters": {"type": "object"}, "description": "the weather"},
        },
        {"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}},
    )


def test_tools_that_anthropic_runs_are_left_out_and_named() -> None:
    tools = [
        WEATHER,
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "odd, \r\nname", "name": "x"},
        {"type": "", "name": None},
    ]
    got = parsed(tools=tools)
    assert isinstance(got.request, ChatRequest)
    assert [tool["function"]["name"] for tool in got.request.tools] == ["weather"]
    assert got.wishes.dropped == ("tools.web_search_20250305", "tools.bash_20250124", "tools", "tools")


def test_a_tool_of_a_type_of_its_own_that_has_a_schema_is_one_as_any_other() -> None:
    assert len(request_of(tools=[WEATHER | {"type": "function"}]).tools) == 1


def test_every_type_that_is_left_out_is_named_once() -> None:
    tools = [{"type": f"server_{number % 50}", "name": str(number)} for number in range(100)]
    assert parsed(tools=tools).wishes.dropped == tuple(f"tools.server_{number}" for number in range(50))


@pytest.mark.parametrize("missing", ["name", "input_schema"])
def test_a_tool_without_name_or_schema_is_refused(missing: str) -> None:
    refused(f"tools[1].{missing}", tools=[WEATHER, {**WEATHER, missing: None}])


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ({"type": "auto"}, ToolChoice("auto")),
        ({"type": "any"}, ToolChoice("required")),
        ({"type": "none"}, ToolChoice("none")),
        ({"type": "tool", "name": "weather"}, ToolChoice("function", "weather")),
        (None, None),
    ],
)
def test_which_tools_may_be_called(said: Any, choice: ToolChoice | None) -> None:
    request = request_of(tools=[WEATHER], tool_choice=said)
    assert (request.tool_choice, request.parallel_tool_calls) == (choice, None)


def test_one_call_at_a_time() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert request_of(tools=[WEATHER], tool_choice=choice).parallel_tool_calls is False


def test_a_choice_of_a_tool_that_is_left_out_is_none_and_named() -> None:
    got = parsed(tools=[WEATHER, {"type": "bash_1", "name": "bash"}], tool_choice={"type": "tool", "name": "bash"})
    assert isinstance(got.request, ChatRequest)
    assert got.request.tool_choice is None
    assert got.wishes.dropped == ("tool_choice", "tools.bash_1")


def test_a_choice_of_no_tool_is_refused() -> None:
    assert "'f'" in refused("tool_choice.name", tools=[WEATHER], tool_choice={"type": "tool", "name": "f"})
    refused("tool_choice.name", tools=[WEATHER], tool_choice={"type": "tool"})
    refused("tool_choice.type", tool_choice={"type": "perhaps"})


# --- for the line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "lane", "unknown"),
    [
        ("auto", "normal", False),
        ("standard_only", "normal", False),
        ("priority", "interactive", False),
        ("flex", "background", False),
        ("nonsense", "normal", True),
        (7, "normal", True),
        (None, None, False),
    ],
)
def test_a_service_tier_is_a_lane(tier: Any, lane: str | None, unknown: bool) -> None:
    wishes = parsed(service_tier=tier).wishes
    assert (wishes.lane, wishes.unknown_lane) == (lane, unknown)


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        ("u-1", "u-1"),
        ("123", "123"),
        ('{"device_id": "d", "session_id": "s-1"}', "s-1"),
        ('{"session_id": 5}', '{"session_id": 5}'),
        ("user_" + "0f" * 100 + "_account__session_s-1", "s-1"),
        ("user_0f_account_a-1_session_s-1", "s-1"),
        ("user_0f_account__session_", "user_0f_account__session_"),
        ("[" * 100_000, "[" * 200),
        (5, None),
        (None, None),
        ("", None),
    ],
)
def test_the_user_is_a_session(user_id: Any, session: str | None) -> None:
    assert parsed(metadata={"user_id": user_id}).wishes.session == session
    assert parsed(metadata={}).wishes.session is None


def test_what_has_no_effect_is_named_and_the_unknown_ignored() -> None:
    got = parsed(
        context_management={"edits": []},
        mcp_servers=[],
        container="c",
        speed="fast",
        diagnostics={},
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    assert got.wishes.dropped == (
        "container", "context_management", "mcp_servers", "speed", "thinking.budget_tokens",
    )  # fmt: skip


# --- turns ------------------------------------------------------------------------------------------------------------


def test_text_stays_as_it_is_and_blocks_of_a_turn_are_lines() -> None:
    assert messages_of({"role": "user", "content": "  a \n"}) == (Message("user", "  a \n"),)
    assert messages_of(user(text(" a"), text(""), text("b "))) == (Message("user", " a\nb "),)


def test_an_answer_is_one_text() -> None:
    """Anthropic cuts an answer into blocks in the middle of sentences, where it quotes something."""
    assert messages_of(assistant(text(""), text("The sky "), text("is blue."))) == (
        Message("assistant", "The sky is blue."),
    )
    assert messages_of({"role": "assistant", "content": "a"}) == (Message("assistant", "a"),)


def test_all_that_the_system_says_is_one_message_at_the_beginning() -> None:
    turns = [
        {"role": "system", "content": "c"},
        {"role": "user", "content": "hi"},
        {"role": "system", "content": [text("d"), text("")]},
    ]
    assert messages_of(*turns, system=[text("a"), text("b")]) == (
        Message("system", "a\nb\nc\nd"),
        Message("user", "hi"),
    )
    assert messages_of(*turns[1:2], system="a") == (Message("system", "a"), Message("user", "hi"))
    assert messages_of(*turns[:1]) == (Message("system", "c"),)


@pytest.mark.parametrize(
    ("system", "left"),
    [
        (
            [text("x-anthropic-billing-header: cc_version=2.1.197.495; cc_entrypoint=cli;"), text("Be kind.")],
            "Be kind.",
        ),
        ("x-anthropic-billing-header: cch=abc;\nBe kind.", "Be kind."),
        ("Say x-anthropic-billing-header: a", "Say x-anthropic-billing-header: a"),
    ],
)
def test_the_line_for_the_bill_is_left_out(system: Any, left: str) -> None:
    assert messages_of({"role": "user", "content": "hi"}, system=system)[0] == Message("system", left)


def test_results_go_before_the_words_of_their_turn() -> None:
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": name, "input": {}} for n, name in enumerate("ab")]
    results = [result("one", tool_use_id="toolu_0"), text("and?"), picture(), result("two", tool_use_id="toolu_1")]
    assert messages_of(assistant(*calls), user(*results))[1:] == (
        Message("tool", "one", tool_call_id="toolu_0", tool_name="a"),
        Message("tool", "two", tool_call_id="toolu_1", tool_name="b"),
        Message("user", "and?", images=(PIXEL,)),
    )


def test_no_empty_message_is_left_beside_results() -> None:
    assert messages_of(user(result(), text(""))) == (Message("tool", "sunny", tool_call_id="toolu_1"),)
    assert messages_of(user(picture(), result()))[1] == Message("user", "", images=(PIXEL,))
    assert messages_of(user()) == (Message("user", ""),)


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        ([text("a"), text("b")], {}, "a\nb"),
        ([{"type": "tool_reference", "tool_name": "f"}], {}, "f"),
        (None, {}, ""),
        ([], {"is_error": False}, ""),
        ("no such file", {"is_error": True}, "Error: no such file"),
        (None, {"is_error": True}, "Error"),
    ],
)
def test_what_a_result_says(content: Any, fields: Any, said: str) -> None:
    assert messages_of(user(result(content, **fields)))[0].content == said


def test_a_result_may_have_pictures() -> None:
    assert messages_of(user(result([text("see"), picture()])))[0].images == (PIXEL,)


def test_thoughts_and_calls_of_an_answer() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        text("Let me look."),
        {"type": "thinking", "thinking": "well"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1.10, "b": [1]}},
        {"type": "tool_use", "name": "g"},
        {"type": "tool_use", "name": "h", "input": None},
    ]
    calls = (ToolCall("f", '{"a": 1.1, "b": [1]}', "toolu_1"), ToolCall("g", "{}"), ToolCall("h", "{}"))
    assert messages_of(assistant(*blocks)) == (
        Message("assistant", "Let me look.", thinking="hm\nwell", tool_calls=calls),
    )


def test_the_input_of_a_call_stays_as_it_was_written() -> None:
    body = (
        b'{"max_tokens":1,"messages":[{"role":"assistant","content":'
        b'[{"type":"tool_use","name":"f","input":{"a":1.10, "b":123456789012345678901234567890}}]}]}'
    )
    request = parse_messages(body, LIMITS).request
    assert isinstance(request, ChatRequest)
    assert request.messages[0].tool_calls[0].arguments == '{"a":1.10, "b":123456789012345678901234567890}'


@pytest.mark.parametrize("input", ["text", 5, [], True])
def test_an_input_that_is_no_object_is_refused(input: Any) -> None:
    refused(f"{PLACE}[0].input", messages=[assistant({"type": "tool_use", "name": "f", "input": input})])


def test_what_other_servers_did_in_earlier_answers_is_skipped_and_named() -> None:
    blocks = [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "1", "content": []},
        {"type": "redacted_thinking", "data": "y"},
    ]
    got = parsed(messages=[assistant(*blocks, text("It rains.")), assistant(*blocks)])
    assert isinstance(got.request, ChatRequest)
    assert got.request.messages == (Message("assistant", "It rains."),)
    assert got.wishes.dropped == (
        "content.redacted_thinking", "content.server_tool_use", "content.web_search_tool_result",
    )  # fmt: skip


def test_nothing_at_all_is_refused() -> None:
    """An empty conversation would be a load at Ollama's."""
    refused("messages", messages=[assistant({"type": "redacted_thinking", "data": "x"})])
    refused("messages", messages=[{"role": "system", "content": ""}])


def test_without_any_turn_it_is_the_persons_who_says_nothing() -> None:
    assert messages_of() == (Message("user", ""),)
    assert messages_of(system="Be brief.") == (Message("system", "Be brief."), Message("user", ""))


def test_a_stream_has_a_guess_at_the_size_of_its_prompt() -> None:
    messages = [{"role": "user", "content": "x" * 400}]
    assert parsed(messages=messages, stream=True).reply.about_tokens == 101
    assert parsed(messages=messages).reply.about_tokens == 0


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}}, "abc"),
        (
            {"type": "document", "title": "T", "context": "C", "source": {"type": "text", "data": "abc"}},
            "T\nC\nabc",
        ),
        ({"type": "document", "source": {"type": "content", "content": "abc"}}, "abc"),
        ({"type": "document", "source": {"type": "content", "content": [text("a"), text("b")]}}, "a\nb"),
        ({"type": "search_result", "title": "T", "source": "S", "content": [text("a")]}, "T\nS\na"),
        ({"type": "search_result", "content": [text("a")]}, "a"),
    ],
)
def test_documents_are_text(block: Any, said: str) -> None:
    assert messages_of(user(block))[0].content == said
    assert messages_of(user(result([block])))[0].content == said


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "x"}}, "source"),
        ({"type": "document", "source": {"type": "url", "url": "https://example.com/x.pdf"}}, "source"),
        ({"type": "document", "source": {"type": "text"}}, "source.data"),
        ({"type": "document", "source": {"type": "content"}}, "source.content"),
        ({"type": "document"}, "source"),
        ({"type": "image", "source": {"type": "url", "url": "https://example.com/x.png"}}, "source"),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "source"),
        ({"type": "image", "source": {"type": "base64"}}, "source"),
        (picture(media_type="image/tiff"), "source.media_type"),
        (picture(data="@@"), "source.data"),
        (picture(data=""), "source.data"),
        ({"type": "text"}, "text"),
        ({"type": "text", "text": 5}, "text"),
        ({"text": "x"}, "type"),
        ({"type": "search_result"}, "content"),
    ],
)
def test_a_block_that_cannot_be_passed_on_is_refused_by_its_place(block: Any, field: str) -> None:
    refused(f"{PLACE}[1].{field}", messages=[user(text("see"), block)])


def test_a_block_of_an_unknown_type_is_refused_where_a_person_sent_it() -> None:
    assert "container_upload" in refused(f"{PLACE}[0]", messages=[user({"type": "container_upload"})])
    refused(f"{PLACE}[0]", messages=[user("text")])


@pytest.mark.parametrize("data", [PIXEL, "iVBOR\r\nw0KGgo="])
def test_a_picture_is_base64_without_line_ends(data: str) -> None:
    assert messages_of(user(picture(data=data, media_type=None)))[0] == Message("user", "", images=(PIXEL,))


def test_roles_are_known() -> None:
    refused("messages[0].role", messages=[{"role": "tool", "content": "x"}])
    refused("messages[0].content", messages=[{"role": "user"}])


def test_bounds() -> None:
    refused("messages", messages=[{"role": "user", "content": "x"}] * 6)
    with pytest.raises(BadRequest, match="not valid JSON"):
        parse_messages(b'{"messages": [', LIMITS)


@pytest.mark.parametrize("said", [rb"\ud800", rb"\x", b"\xff", b"\n"])
def test_what_is_no_json_is_found_in_blocks_too(said: bytes) -> None:
    body = b'{"max_tokens":1,"messages":[{"role":"user","content":[{"type":"text","text":"%b"}]}]}'
    with pytest.raises(BadRequest, match=r"not valid JSON|not UTF-8"):
        parse_messages(body % said, LIMITS)


def test_an_image_in_what_the_system_says_is_refused() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "aGVsbG8="}}
    refused("system[0]", system=[image])


@pytest.mark.parametrize("kind", ["image/PNG", "image/jpeg", None])
def test_an_image_may_say_its_kind_in_any_case(kind: str | None) -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "aGVsbG8=", "media_type": kind}}
    assert request_of(messages=[{"role": "user", "content": [image]}]).messages[0].images == ("aGVsbG8=",)
