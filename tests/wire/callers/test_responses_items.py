"""From the input items of the Responses dialect to messages: what is joined, what is skipped, what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.errors import BadRequest
from llm_queue.wire.callers.responses_items import messages_of, sealed, unsealed
from llm_queue.wire.callers.responses_parts import Reader
from llm_queue.wire.shapes import Message, ToolCall

PIXEL = base64.b64encode(b"not really a picture").decode()
IMAGE = {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{PIXEL}"}
USER = {"role": "user", "content": "Hello"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a": 1.10}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
SAID = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "phase": "final_answer",
    "content": [{"type": "output_text", "text": "Hi.", "annotations": [], "logprobs": []}],
}


def read(*items: Any, instructions: str | None = None) -> tuple[tuple[Message, ...], list[str]]:
    reader = Reader(max_depth=64)
    raw = msgspec.json.decode(json.dumps(items), type=list[msgspec.Raw])
    return messages_of(instructions, raw, reader), reader.skipped


def messages(*items: Any, **more: Any) -> tuple[Message, ...]:
    return read(*items, **more)[0]


def refused(*items: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(*items)
    return caught.value


def user(*parts: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": list(parts)}


# --- messages ---


def test_a_text_is_what_the_user_says() -> None:
    assert messages_of(None, "Hello", Reader(64)) == (Message("user", "Hello"),)
    assert messages_of("Be brief.", "Hello", Reader(64)) == (Message("system", "Be brief."), Message("user", "Hello"))


def test_all_that_system_and_developer_say_is_one_message_at_the_beginning() -> None:
    said = messages(
        {"role": "developer", "content": "one"},
        USER,
        {"type": "message", "role": "SYSTEM", "content": [{"type": "input_text", "text": "two"}, IMAGE]},
        instructions="zero",
    )
    assert said == (Message("system", "zero\n\none\n\ntwo", (PIXEL,)), Message("user", "Hello"))


def test_parts_are_joined_and_images_keep_their_order() -> None:
    file = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,R3LDvMOfZQ=="}
    text = {"type": "input_text", "text": "What is this?"}
    chat_image = {"type": "image_url", "image_url": {"url": f"data:;base64,{PIXEL}"}}
    [message] = messages(user(text, IMAGE, file, chat_image, {"type": "text", "text": "end"}))
    assert message == Message("user", "What is this?\na.txt\nGrüße\nend", (PIXEL, PIXEL))
    [message] = messages(user({"type": "input_file", "file_data": "R3LDvMOfZQ=="}))
    assert message.content == "Grüße"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "critic", "content": "x"}, "input[0].role"),
        ({"content": "x"}, "input[0].role"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": 5}, "input[0].content"),
        (user({"type": "input_audio"}), "input[0].content[0].type"),
        (user({}), "input[0].content[0].type"),
        (user({"type": "input_text"}), "input[0].content[0].text"),
        (user({"type": "input_image", "file_id": "file_1"}), "input[0].content[0].image_url"),
        (user({"type": "input_image", "image_url": "https://x.example/a.png"}), "input[0].content[0].image_url"),
        (user({"type": "input_image", "image_url": "data:image/png;base64,?"}), "input[0].content[0].image_url"),
        (user({"type": "input_image", "image_url": "data:image/png;base64,"}), "input[0].content[0].image_url"),
        (user({"type": "input_file", "file_id": "file_1"}), "input[0].content[0].file_data"),
        (user({"type": "input_file", "file_data": "data:;base64,JVBERv8="}), "input[0].content[0].file_data"),
        ({"type": "item_reference", "id": "msg_1"}, "input[0]"),
        ({"type": "function_call", "call_id": "c"}, "input[0].name"),
        ({"type": "function_call", "name": "f", "arguments": "[" * 100}, "input[0].arguments"),
        ({"type": 5}, "input[0].type"),
    ],
)
def test_what_the_caller_says_and_nobody_can_read_is_refused(item: Any, param: str) -> None:
    assert refused(item).param == param


# --- the model's turns ---


def test_thoughts_text_and_calls_become_one_message_again() -> None:
    second = CALL | {"call_id": "c2", "name": "send", "namespace": "mail"}
    said, skipped = read(USER, THOUGHT, SAID, CALL, second, OUTPUT, OUTPUT | {"call_id": "c2"})
    assert said == (
        Message("user", "Hello"),
        Message(
            "assistant",
            "Hi.",
            thinking="hm",
            tool_calls=(ToolCall("f", '{"a": 1.10}', "c1"), ToolCall("mail__send", '{"a": 1.10}', "c2")),
        ),
        Message("tool", "sunny", tool_call_id="c1", tool_name="f"),
        Message("tool", "sunny", tool_call_id="c2", tool_name="mail__send"),
    )
    assert skipped == []


def test_thoughts_between_calls_stay_in_their_turn() -> None:
    other = THOUGHT | {"content": [{"type": "reasoning_text", "text": "so"}]}
    [turn, _] = messages(SAID | {"content": "I look."}, THOUGHT, CALL, other, CALL | {"call_id": "c2"}, OUTPUT)
    assert (turn.content, turn.thinking, len(turn.tool_calls)) == ("I look.", "hm\n\nso", 2)


def test_texts_without_calls_stay_messages_of_their_own() -> None:
    said = messages(THOUGHT, SAID, SAID | {"content": None}, USER)
    assert said == (Message("assistant", "Hi.", thinking="hm"), Message("assistant", ""), Message("user", "Hello"))


def test_calls_after_results_are_a_turn_of_their_own() -> None:
    roles = [message.role for message in messages(USER, CALL, OUTPUT, CALL, OUTPUT, SAID)]
    assert roles == ["user", "assistant", "tool", "assistant", "tool", "assistant"]


def test_a_custom_call_is_a_call_with_its_input() -> None:
    call = {"type": "custom_tool_call", "call_id": "c9", "name": "patch", "input": 'a "b"'}
    output = {"type": "custom_tool_call_output", "call_id": "c9", "output": "done"}
    turn, result = messages(call, output)
    assert turn.tool_calls == (ToolCall("patch", '{"input":"a \\"b\\""}', "c9"),)
    assert result == Message("tool", "done", tool_call_id="c9", tool_name="patch")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "{}"),
        (" ", "{}"),
        ('{"a": 1.10}', '{"a": 1.10}'),
        ('{"a": "hal', '{"arguments":"{\\"a\\": \\"hal"}'),
        ("[1]", '{"arguments":"[1]"}'),
    ],
)
def test_arguments_of_an_earlier_call_are_an_object(arguments: str, expected: str) -> None:
    [turn] = messages(CALL | {"arguments": arguments})
    assert turn.tool_calls[0].arguments == expected


def test_a_result_may_have_parts_and_be_without_its_call() -> None:
    parts = [{"type": "input_text", "text": "a"}, IMAGE, {"type": "output_text", "text": "b"}]
    assert messages(OUTPUT | {"call_id": None, "output": parts}) == (Message("tool", "a\nb", (PIXEL,)),)
    assert messages(CALL | {"call_id": None})[0].tool_calls[0].id is None


# --- thoughts ---


@pytest.mark.parametrize(
    ("more", "thinking"),
    [
        ({"content": [{"type": "reasoning_text", "text": "raw"}], "encrypted_content": sealed("ours")}, "raw"),
        ({"content": None, "encrypted_content": sealed("ours")}, "ours"),
        ({"content": None, "encrypted_content": "gAAAAABtheirs"}, "hm"),
        ({"content": []}, "hm"),
        ({"summary": [], "encrypted_content": "gAAAAABtheirs"}, None),
        ({"summary": None}, None),
    ],
)
def test_a_thought_comes_back_in_one_of_three_forms(more: dict[str, Any], thinking: str | None) -> None:
    [message] = messages(THOUGHT | more, SAID)
    assert message.thinking == thinking


def test_a_thought_that_led_to_nothing_is_skipped() -> None:
    assert read(THOUGHT, USER) == ((Message("user", "Hello"),), ["input.reasoning"])


@given(st.text())
def test_what_is_sealed_can_be_read_again(text: str) -> None:
    assert unsealed(sealed(text)) == text


@pytest.mark.parametrize("content", ["", "gAAAAAB", "llmq1.?", "llmq1./w=="])
def test_what_we_did_not_write_is_not_read(content: str) -> None:
    assert unsealed(content) is None


def test_a_thought_that_is_only_named_is_skipped_and_text_that_is_only_named_is_refused() -> None:
    said, skipped = read(USER, {"type": "item_reference", "id": "rs_1_0"}, CALL, OUTPUT)
    assert [message.role for message in said] == ["user", "assistant", "tool"]
    assert skipped == ["input.item_reference"]
    assert "`store: false`" in refused(USER, {"type": "item_reference", "id": "msg_1_0"}).message
    assert refused({"type": "item_reference"}).param == "input[0]"


# --- history that nobody here understands ---

OTHERS = (
    *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "computer_call"),
    *("computer_call_output", "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output"),
    *("apply_patch_call", "apply_patch_call_output", "mcp_call", "mcp_list_tools", "mcp_approval_request"),
    *("mcp_approval_response", "tool_search_call", "tool_search_output", "compaction", "compaction_trigger"),
    *("additional_tools", "configuration_update", "program", "program_output", "something_new"),
)


@pytest.mark.parametrize("kind", OTHERS)
def test_an_item_that_nobody_here_understands_is_skipped_and_named(kind: str) -> None:
    odd = {"type": kind, "id": "x", "call_id": 5, "output": {"a": []}, "role": 7, "content": {}}
    assert read(USER, odd, SAID) == ((Message("user", "Hello"), Message("assistant", "Hi.")), [f"input.{kind}"])


def test_a_part_of_the_history_that_cannot_be_read_is_skipped_and_named() -> None:
    url = {"type": "input_image", "image_url": "https://x.example/a.png"}
    said, skipped = read(
        SAID | {"content": [{"type": "output_audio"}, {"type": "refusal", "refusal": "No."}, 5]},
        OUTPUT | {"output": [{"type": "encrypted_content"}, {"type": "input_text", "text": 5}, url]},
    )
    assert [message.content for message in said] == ["No.", ""]
    assert skipped == [
        "input.output_audio",
        "input",
        "input.encrypted_content",
        "input.input_text",
        "input.input_image",
    ]


def test_a_name_that_is_none_is_not_repeated() -> None:
    assert read(USER, {"type": "x\r\ny: z"})[1] == ["input"]
