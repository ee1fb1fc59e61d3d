"""How many tokens a prompt is taken to have."""

from __future__ import annotations

from llm_queue.dispatch.lengths import PER_IMAGE, PER_MESSAGE, PromptLengths
from llm_queue.wire.prompts import PromptSize


def test_a_model_that_has_counted_nothing_yet_is_taken_to_have_three_bytes_a_token() -> None:
    lengths = PromptLengths()
    assert lengths.estimate(None, PromptSize(0)) == 0
    assert lengths.estimate("sha", PromptSize(10, messages=2, images=1)) == 4 + 2 * PER_MESSAGE + PER_IMAGE
