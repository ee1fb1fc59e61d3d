"""Any server that speaks OpenAI's dialect: llama-server, LM Studio, vLLM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import trio

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import UpstreamRefused
from llm_queue.instance import Instance
from llm_queue.upstream.http import CallerAtFault, HttpApi, status_or_text
from llm_queue.upstream.protocol import NO_SIZES, Model
from llm_queue.upstream.transport import Connect, open_stream
from llm_queue.wire.shapes import (
    ChatRequest,
    Completion,
    EmbedRequest,
    LoadRequest,
    Piece,
    Request,
    TextRequest,
    has_images,
)
from llm_queue.wire.upstreams import openai_catalog as catalog
from llm_queue.wire.upstreams import openai_request as asking
from llm_queue.wire.upstreams import openai_response as answers

COUNTS: Final = "stream_options"
"""The field that asks a stream for its counts. Servers whose shapes are older refuse it by name, with 400 or 422."""

NO_SUCH_ADDRESS: Final = (404, 405)
"""Statuses that servers have for an address that they do not know."""


class OpenAIServer:
    """Implements :class:`~llm_queue.upstream.protocol.Upstream`; raises nothing but our own errors.

    Such a server loads what it likes when it likes, and its context size is its own affair. So every model that it
    lists counts as resident, and nothing is ever loaded.
    """

    chooses_context = False
    default_model = ""
    more_models = "Which models there are is the server's own affair."
    native = None
    sizes = NO_SIZES

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        name: str = "OpenAI-compatible server",
        authorization: str | None = None,
        unreachable: str = "Start it, or correct --upstream-url or --upstream-key.",
        sampling: frozenset[str] = asking.COMMON,
        caller_at_fault: CallerAtFault = status_or_text,
        instance: Instance | None = None,
        connect: Connect = open_stream,
    ) -> None:
        """``url`` may end in ``/v1`` or not. ``authorization`` is the value of that header where there is no key.
        ``unreachable`` tells people what to do when it cannot be used.

        ``sampling`` names the fields of :class:`~llm_queue.wire.shapes.Sampling` that the server has.
        ``caller_at_fault`` tells by an error's status and text that the same request would fail again, and how that is
        passed on. ``instance`` is who asks.
        """
        self.name = name
        self.url = url.rstrip("/").removesuffix("/v1")
        self._sampling = sampling
        self._counts = True
        self._tells_prompts = True
        # llama-server closes a connection after a streamed answer without a word of warning, so each has one request.
        headers = {"accept": "text/event-stream, application/json", "connection": "close"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        elif authorization is not None:
            headers["authorization"] = authorization
        self._api = HttpApi(
            name,
            self.url,
            error_text=catalog.error_text,
            unreachable=unreachable,
            elsewhere="Say with --upstream-url (LLM_QUEUE_UPSTREAM_URL) where the server itself is.",
            headers=headers,
            caller_at_fault=caller_at_fault,
            instance=instance,
            connect=connect,
        )

    def check(self, request: Request) -> tuple[str, ...]:
        """What such a server has no field for."""
        return asking.check(request, self._sampling)

    def unlisted(self, name: str) -> Model | None:
        """None: what such a server does not list, it does not have."""
        return None

    async def models(self) -> list[Model]:
        """What ``/v1/models`` lists; a model's identity is its name."""
        listed = catalog.parse_models(await self._api.ask("GET", "/v1/models"))
        return [
            Model(name=one.id, identity=one.id, trained=one.trained, created=one.created, served=one.context)
            for one in listed
        ]

    async def describe(self, model: Model) -> Model:
        """Nothing more is known."""
        await trio.lowlevel.checkpoint()
        return model

    async def count_tokens(self, model: Model, request: Request) -> int | None:
        """llama-server writes the prompt out and cuts it into tokens, in the threads that do no model work.

        Of a picture it would count the mark that stands for it, so such a prompt is not counted. A server that has no
        such addresses is not asked again.
        """
        if not isinstance(request, ChatRequest) or has_images(request) or not self._tells_prompts:
            return None
        body = asking.chat_body(msgspec.structs.replace(request, model=model.name), self._sampling, counts=False)
        try:
            prompt = answers.parse_prompt(await self._api.ask("POST", "/apply-template", body))
            tokens = await self._api.ask("POST", "/tokenize", asking.tokenize_body(model.name, prompt))
            return answers.count_of(tokens)
        except UpstreamRefused as refusal:
            self._tells_prompts = refusal.http_status not in NO_SUCH_ADDRESS
            return None

    async def resident(self) -> frozenset[RunnerKey]:
        """Every model that is listed, without a context size."""
        return frozenset(RunnerKey(model.identity, 0) for model in await self.models())

    async def probe(self) -> None:
        """Ask for the models: every such server has them, and llama-server says 503 until it can work."""
        await self._api.ask("GET", "/v1/models")

    async def load(self, model: Model, num_ctx: int) -> None:
        """Nothing to do."""
        await trio.lowlevel.checkpoint()

    async def run(self, model: Model, num_ctx: int, request: Request, emit: Callable[[Piece], None]) -> Completion:
        """A streamed answer or vectors, under the model's own name, whatever alias the request has.

        A server that refuses to be asked for its counts is asked again without, and never for counts again.
        """
        if isinstance(request, LoadRequest):
            await trio.lowlevel.checkpoint()  # it loads what it likes when it likes
            return Completion("unload" if request.unload else "load")
        request = msgspec.structs.replace(request, model=model.name)
        if isinstance(request, TextRequest) and request.templated:
            request = asking.as_chat(request)
        if isinstance(request, EmbedRequest):
            answer = await self._api.work("/v1/embeddings", asking.embed_body(request))
            vectors, completion = answers.parse_embedded(answer)
            emit(vectors)
            return completion
        try:
            return await self._converse(request, emit)
        except UpstreamRefused as refusal:
            if not (self._counts and COUNTS in refusal.message):
                raise
        self._counts = False
        return await self._converse(request, emit)

    async def _converse(self, request: ChatRequest | TextRequest, emit: Callable[[Piece], None]) -> Completion:
        if isinstance(request, ChatRequest):
            path, body = "/v1/chat/completions", asking.chat_body(request, self._sampling, counts=self._counts)
        else:
            path, body = "/v1/completions", asking.text_body(request, self._sampling, counts=self._counts)
        return await self._api.converse(path, body, answers.StreamDecoder(), emit)

    async def aclose(self) -> None:
        await self._api.aclose()
