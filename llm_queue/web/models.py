"""What the lists of models say of each."""

from __future__ import annotations

from llm_queue.errors import UpstreamUnreachable
from llm_queue.upstream.protocol import Model
from llm_queue.web.service import Service
from llm_queue.wire.callers.openai_models import ModelFacts


async def known_models(line: Service) -> list[tuple[Model, bool]]:
    """All models, and whether each is described; from memory while the upstream is away.

    What costs a question per model is asked once. Raises ``UpstreamUnreachable`` if no model was ever seen.
    """
    catalog = line.catalog
    try:
        await catalog.refresh()
    except UpstreamUnreachable:
        if not catalog.models():
            raise
    else:
        await catalog.describe_all()
    described = [(model, catalog.lookup(model.name)) for model in catalog.models()]
    return [(known or model, known is not None) for model, known in described]


def facts_of(line: Service, model: Model, *, described: bool = True) -> ModelFacts:
    """What OpenAI's list says of a model: of one that is not ``described``, without what that would tell."""
    if not described:
        return ModelFacts(model.name, model.created)
    return ModelFacts(model.name, model.created, line.models.granted_ctx(model), model.trained, model.capabilities)
