"""How large a prompt is: all that a model reads is counted, and nothing twice."""

from __future__ import annotations

import pytest

from llm_queue.wire.prompts import PromptSize, prompt_size
from llm_queue.wire.shapes import ChatRequest, EmbedRequest, LoadRequest, Message, Request, TextRequest, ToolCall

TOOL = {"type": "function"}  # 19 bytes of JSON


@pytest.mark.parametrize(
    ("request_", "size"),
    [
        (ChatRequest("m", ()), PromptSize(0)),
        (ChatRequest("m", (Message("user", "four"), Message("system", "é"))), PromptSize(6, 2)),
        (ChatRequest("m", (Message("user", "", images=("aaaa", "bbbb")),)), PromptSize(0, 1, 2)),
        (ChatRequest("m", (Message("assistant", "a", thinking="bc"),)), PromptSize(3, 1)),
        (ChatRequest("m", (Message("assistant", tool_calls=(ToolCall("f", '{"a":1}'),)),)), PromptSize(8, 1)),
        (ChatRequest("m", (), tools=(TOOL, TOOL)), PromptSize(38)),
        (TextRequest("m", "ab", suffix="c", system="d", template="e", images=("aaaa",)), PromptSize(5, 1, 1)),
        (TextRequest("m", "ab"), PromptSize(2, 1)),
        (TextRequest("m", "ab", context=(7, 8, 9)), PromptSize(2, 1, 0, 3)),
        (EmbedRequest("m", ("a", "abc", "ab")), PromptSize(3)),
        (EmbedRequest("m", ()), PromptSize(0)),
        (LoadRequest("m"), PromptSize(0)),
    ],
)
def test_all_that_a_model_reads_is_counted(request_: Request, size: PromptSize) -> None:
    assert prompt_size(request_) == size
