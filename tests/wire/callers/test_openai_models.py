"""The list of models, in OpenAI's shape and with the fields beside it that programs look for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_queue.wire.callers.openai_models import ModelFacts, model_body, models_body

BARE = {"id": "a:latest", "object": "model", "created": 1, "owned_by": "library"}


def test_the_list_of_models() -> None:
    own = {"id": "someone/model:1b", "object": "model", "created": 2, "owned_by": "someone"}
    listed = json.loads(models_body([ModelFacts("a:latest", 1), ModelFacts("someone/model:1b", 2)]))
    assert listed == {"object": "list", "data": [BARE, own]}
    assert json.loads(model_body(ModelFacts("someone/model:1b", 2))) == own
    assert json.loads(models_body([])) == {"object": "list", "data": []}


@pytest.mark.parametrize(
    ("context", "trained", "meta"),
    [(8192, 131072, {"n_ctx": 8192, "n_ctx_train": 131072}), (8192, None, {"n_ctx": 8192})],
)
def test_the_context_stands_wherever_a_program_may_look(context: int, trained: int | None, meta: Any) -> None:
    assert json.loads(model_body(ModelFacts("a:latest", 1, context, trained))) == BARE | {
        "context_length": 8192, "max_model_len": 8192, "max_context_length": 8192, "context_window": 8192, "meta": meta,
    }  # fmt: skip


def test_a_context_that_is_not_known_is_not_made_up() -> None:
    assert json.loads(model_body(ModelFacts("a:latest", 1, 0, 4096))) == BARE | {"meta": {"n_ctx_train": 4096}}


@pytest.mark.parametrize(
    ("capabilities", "goes_in", "comes_out"),
    [
        ({"completion", "tools"}, ["text"], ["text"]),
        ({"completion", "vision", "audio"}, ["text", "image"], ["text"]),
        ({"embedding"}, ["text"], ["embeddings"]),
        ({"completion", "embedding"}, ["text"], ["text"]),
    ],
)
def test_what_goes_in_and_comes_out(capabilities: set[str], goes_in: list[str], comes_out: list[str]) -> None:
    said = json.loads(model_body(ModelFacts("a:latest", capabilities=frozenset(capabilities))))
    assert said["architecture"] == {"input_modalities": goes_in, "output_modalities": comes_out}
