"""What the pages say of contexts that fit, of remote models and of late answers is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llm_queue.dispatch import fit, lengths, remote
from llm_queue.web import stream, whole

DOCS = Path(__file__).resolve().parent.parent / "docs"

NUMBERS = {8: "eight", 10: "ten", 16: "sixteen"}


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("contexts.md", f"{fit.ROOM:,} tokens, if the caller sets no limit"),
        ("contexts.md", f"no more than {fit.ROOM:,} tokens or a quarter of the prompt, whichever is more"),
        ("contexts.md", f"| text | bytes / {lengths.BYTES_PER_TOKEN:g}, until the model has counted |"),
        ("contexts.md", f"| around each message | {lengths.PER_MESSAGE} |"),
        ("contexts.md", f"| each image | {lengths.PER_IMAGE:,} |"),
        ("contexts.md", f"Prompts under {lengths.LEARNED_FROM:,} bytes"),
        ("contexts.md", f"for {lengths.MOST_MODELS} models at most"),
        ("contexts.md", f"even at {lengths.SPARSEST:g} bytes per token"),
        ("contexts.md", f"once a model has counted {NUMBERS[lengths.SURE_AFTER]} prompts"),
        ("http.md", f"{NUMBERS[remote.MOST].capitalize()} may be under way at once"),
        ("http.md", f"after {whole.PATIENCE:g} s the headers leave with status 200"),
        ("http.md", f"a space every {NUMBERS[int(stream.QUIET)]} seconds"),
    ],
)
def test_the_numbers_of_the_documentation_are_those_of_the_code(page: str, says: str) -> None:
    text = re.sub(r"\s+", " ", (DOCS / page).read_text(encoding="utf-8"))
    assert says in text


def test_the_shares_of_the_documentation_are_those_of_the_code() -> None:
    assert (fit.LARGE_ROOM, lengths.RISE, lengths.MARGIN, lengths.SURE) == (1 / 4, 1 / 16, 0.9, 2.0)
    text = re.sub(r"\s+", " ", (DOCS / "contexts.md").read_text(encoding="utf-8"))
    assert "draws the estimate by a sixteenth of the difference, and a tenth is always added on top" in text
    assert "at twice the bytes per token of its sparsest one" in text
