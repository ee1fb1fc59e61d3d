"""OpenAI's list of models, with what programs look for beside it: how large a context is, and what goes in and out.

OpenAI has no field for the context, so each program looks where its first server had one. All of them hold the size
that a request really gets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from llm_queue.wire.shapes import JsonObject

CONTEXT_FIELDS: Final = ("context_length", "max_model_len", "max_context_length", "context_window")
"""Where programs look: as at OpenRouter, vLLM, LM Studio, and gateways."""


class ModelFacts(msgspec.Struct, frozen=True):
    """What is known of a model. ``created`` is in Unix seconds; ``context`` and ``trained`` are in tokens.

    ``context`` is what a request gets, 0 where that is not known; ``trained`` is what the weights were trained for.
    ``capabilities`` are in Ollama's words; none: not known.
    """

    name: str
    created: int = 0
    context: int = 0
    trained: int | None = None
    capabilities: frozenset[str] = frozenset()


def models_body(models: Iterable[ModelFacts]) -> bytes:
    """The list of models."""
    return msgspec.json.encode({"object": "list", "data": [_model(facts) for facts in models]}) + b"\n"


def model_body(facts: ModelFacts) -> bytes:
    """One model of that list."""
    return msgspec.json.encode(_model(facts)) + b"\n"


def _model(facts: ModelFacts) -> JsonObject:
    owner, slash, _ = facts.name.rpartition("/")
    model: JsonObject = {
        "id": facts.name,
        "object": "model",
        "created": facts.created,
        "owned_by": owner if slash else "library",
    }
    if facts.context:
        model |= dict.fromkeys(CONTEXT_FIELDS, facts.context)
    meta = {"n_ctx": facts.context or None, "n_ctx_train": facts.trained}  # llama-server's
    if meta := {name: size for name, size in meta.items() if size is not None}:
        model["meta"] = meta
    if facts.capabilities:
        model["architecture"] = _modalities(facts.capabilities)
    return model


def _modalities(capabilities: frozenset[str]) -> JsonObject:
    """What goes in and comes out, as far as it can pass here: there is no sound."""
    writes = "embedding" not in capabilities or "completion" in capabilities
    return {
        "input_modalities": ["text", "image"] if "vision" in capabilities else ["text"],
        "output_modalities": ["text"] if writes else ["embeddings"],
    }
