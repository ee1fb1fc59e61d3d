"""Ollama, by its native API: the engine that the line drives."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import ConnectionLost, LoadFailed, UpstreamBroke, UpstreamRefused
from llm_queue.upstream.http import HttpApi
from llm_queue.upstream.protocol import Model
from llm_queue.upstream.transport import Connect, open_stream
from llm_queue.wire.shapes import ChatRequest, Completion, Delta
from llm_queue.wire.upstreams import ollama as wire


class Ollama:
    """Implements :class:`~llm_queue.upstream.protocol.Upstream`; raises nothing but our own errors."""

    name = "Ollama"
    chooses_context = True
    default_model = "granite4.1:8b"
    more_models = "`ollama pull NAME` gets another."

    def __init__(self, url: str, *, keep_alive: str = "1h", connect: Connect = open_stream) -> None:
        """``keep_alive`` is sent with loads only: on work it would set anew what others have asked for."""
        self.url = url.rstrip("/")
        self._keep_alive = keep_alive
        self._api = HttpApi(
            self.name,
            self.url,
            error_text=wire.error_text,
            unreachable="Start it (`ollama serve`), or correct OLLAMA_URL.",
            headers={"accept": "application/x-ndjson, application/json"},
            connect=connect,
        )

    async def models(self) -> list[Model]:
        """What ``/api/tags`` lists; a model's identity is its digest."""
        tags = wire.parse_tags(await self._api.ask("GET", "/api/tags"))
        return [Model(name=tag.name, identity=tag.digest, created=tag.created) for tag in tags]

    async def describe(self, model: Model) -> Model:
        """What ``/api/show`` adds. Raises :class:`~llm_queue.errors.UpstreamRefused` (404) for a model that is gone."""
        shown = wire.parse_show(await self._api.ask("POST", "/api/show", msgspec.json.encode({"model": model.name})))
        return msgspec.structs.replace(model, trained=shown.trained, capabilities=shown.capabilities)

    async def resident(self) -> frozenset[RunnerKey]:
        """What ``/api/ps`` lists. A model that is still loading is not there yet."""
        loaded = wire.parse_ps(await self._api.ask("GET", "/api/ps"))
        return frozenset(RunnerKey(one.digest, one.context_length or 0) for one in loaded)

    async def probe(self) -> None:
        """Ask for the version: the cheapest question."""
        await self._api.ask("GET", "/api/version")

    async def load(self, model: Model, num_ctx: int) -> None:
        """A chat without messages. Ollama kills a load when its connection closes, so cancel it only to give it up.

        Raises :class:`~llm_queue.errors.LoadFailed` for all that Ollama says against it but 503
        (:class:`~llm_queue.errors.UpstreamBusy`), and :class:`~llm_queue.errors.ConnectionLost` when it says nothing.
        """
        embeds_only = "embedding" in model.capabilities and "completion" not in model.capabilities
        path = "/api/embed" if embeds_only else "/api/chat"  # an embed without input loads as well
        try:
            await self._api.work(path, wire.load_body(model.name, num_ctx, self._keep_alive))
        except ConnectionLost:
            raise  # Ollama itself went away: that says nothing of the model
        except (UpstreamRefused, UpstreamBroke) as error:
            raise LoadFailed(
                f"{self.name} could not load {model.name} with num_ctx {num_ctx}: {error.message}"
            ) from error

    async def run(self, model: Model, num_ctx: int, request: ChatRequest, emit: Callable[[Delta], None]) -> Completion:
        """A streamed chat under the model's own name, whatever alias the request has."""
        body = wire.chat_body(msgspec.structs.replace(request, model=model.name), num_ctx)
        return await self._api.converse("/api/chat", body, wire.ChatDecoder(), emit)

    async def aclose(self) -> None:
        await self._api.aclose()
