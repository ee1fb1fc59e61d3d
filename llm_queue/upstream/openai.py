"""Any server that speaks OpenAI's dialect: llama-server, LM Studio, vLLM."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from llm_queue.core.keys import RunnerKey
from llm_queue.upstream.http import CallerAtFault, HttpApi, status_4xx
from llm_queue.upstream.protocol import Model
from llm_queue.upstream.transport import Connect, open_stream
from llm_queue.wire.shapes import ChatRequest, Completion, Delta
from llm_queue.wire.upstreams import openai as wire


class OpenAIServer:
    """Implements :class:`~llm_queue.upstream.protocol.Upstream`; raises nothing but our own errors.

    Such a server loads what it likes when it likes, and its context size is its own affair. So every model that it
    lists counts as resident, and nothing is ever loaded.
    """

    chooses_context = False
    default_model = ""
    more_models = "Which models there are is the server's own affair."

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        name: str = "OpenAI-compatible server",
        unreachable: str = "Start it, or correct --upstream-url or --upstream-key.",
        caller_at_fault: CallerAtFault = status_4xx,
        connect: Connect = open_stream,
    ) -> None:
        """``url`` may end in ``/v1`` or not. ``unreachable`` tells people what to do when it cannot be used.

        ``caller_at_fault`` tells by an error's status and text that the same request would fail again.
        """
        self.name = name
        self.url = url.rstrip("/").removesuffix("/v1")
        # llama-server closes a connection after a streamed answer without a word of warning, so each has one request.
        headers = {"accept": "text/event-stream, application/json", "connection": "close"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        self._api = HttpApi(
            name,
            self.url,
            error_text=wire.error_text,
            unreachable=unreachable,
            headers=headers,
            caller_at_fault=caller_at_fault,
            connect=connect,
        )

    async def models(self) -> list[Model]:
        """What ``/v1/models`` lists; a model's identity is its name."""
        listed = wire.parse_models(await self._api.ask("GET", "/v1/models"))
        return [Model(name=one.id, identity=one.id, created=one.created) for one in listed]

    async def describe(self, model: Model) -> Model:
        """Nothing more is known."""
        await trio.lowlevel.checkpoint()
        return model

    async def resident(self) -> frozenset[RunnerKey]:
        """Every model that is listed, without a context size."""
        return frozenset(RunnerKey(model.identity, 0) for model in await self.models())

    async def probe(self) -> None:
        """Ask for the models: every such server has them, and llama-server says 503 until it can work."""
        await self._api.ask("GET", "/v1/models")

    async def load(self, model: Model, num_ctx: int) -> None:
        """Nothing to do."""
        await trio.lowlevel.checkpoint()

    async def run(self, model: Model, num_ctx: int, request: ChatRequest, emit: Callable[[Delta], None]) -> Completion:
        """A streamed chat under the model's own name, whatever alias the request has."""
        body = wire.chat_body(msgspec.structs.replace(request, model=model.name))
        return await self._api.converse("/v1/chat/completions", body, wire.OpenAIStreamDecoder(), emit)

    async def aclose(self) -> None:
        await self._api.aclose()
