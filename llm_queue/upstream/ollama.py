"""Ollama, by its native API: the engine that the line drives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, assert_never

import msgspec
import trio

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import ConnectionLost, LoadFailed, UpstreamBroke, UpstreamRefused
from llm_queue.instance import Instance
from llm_queue.upstream.http import HttpApi, status_4xx
from llm_queue.upstream.lifetimes import Lifetimes
from llm_queue.upstream.native import OllamaApi
from llm_queue.upstream.protocol import NO_SIZES, Model, Size
from llm_queue.upstream.transport import Connect, open_stream
from llm_queue.wire.durations import lifetime_setting
from llm_queue.wire.shapes import (
    ChatRequest,
    Completion,
    EmbedRequest,
    LoadRequest,
    Piece,
    Request,
    TextRequest,
    Vectors,
)
from llm_queue.wire.upstreams import ollama_catalog as catalog
from llm_queue.wire.upstreams import ollama_request as asking
from llm_queue.wire.upstreams import ollama_response as answers
from llm_queue.wire.upstreams.ollama_forced import decoder_of

NEARLY_FULL: Final = 0.98
"""Share of the context at which a prompt was probably cut: Ollama leaves out old messages until the rest fits."""

NO_EMBEDDINGS: Final = "does not support embeddings"
"""What llama-server says for a model that was loaded to chat."""

KEPT: Final = (4, 5)
"""Tokens that Ollama keeps at the beginning of a last message that is too long by itself: its default ``num_keep``, and
one for the beginning of the text where a model has that. It drops half of the rest (``contextShiftPromptLimit`` in its
llm/llama_server.go, 0.33)."""


class Ollama:
    """Implements :class:`~llm_queue.upstream.protocol.Upstream`; raises nothing but our own errors."""

    name = "Ollama"
    chooses_context = True
    default_model = "granite4.1:8b"
    more_models = "`ollama pull NAME` gets another."

    def __init__(
        self,
        url: str,
        *,
        keep_alive: str = "1h",
        authorization: str | None = None,
        instance: Instance | None = None,
        truncate: bool | None = None,
        connect: Connect = open_stream,
    ) -> None:
        """``keep_alive`` is how long a model stays for which nobody asks for longer. It is sent with loads, and with
        work only where that asks for longer than what holds: it would set anew what others have asked for.

        One of zero is the exception. Sent with a load it would undo it, so the load keeps the model for as long as its
        first request may take to begin, and each request says that the model may go after its answer.
        ``authorization`` is the value of that header, for a proxy in front of Ollama. ``instance`` is who asks.
        ``truncate`` is what is said for a chat or a text whose caller does not say it: False makes a prompt that is too
        long an error, with None Ollama cuts it without a word.
        """
        self.url = url.rstrip("/")
        self.sizes: Mapping[str, Size] = NO_SIZES
        self._lifetimes = Lifetimes(lifetime_setting(keep_alive))
        self._truncate = truncate
        self._api = HttpApi(
            self.name,
            self.url,
            error_text=answers.error_text,
            unreachable="Start it (`ollama serve`), or correct OLLAMA_URL.",
            elsewhere="Say with --ollama-url (OLLAMA_URL) where Ollama itself is.",
            headers={"accept": "application/x-ndjson, application/json"}
            | ({"authorization": authorization} if authorization else {}),
            caller_at_fault=_at_fault,
            instance=instance,
            connect=connect,
        )
        self.native = OllamaApi(self._api, authorization, connect)

    def check(self, request: Request) -> tuple[str, ...]:
        """What Ollama has no field for. It needs the arguments of earlier tool calls as objects."""
        return asking.check(request)

    def unlisted(self, name: str) -> Model | None:
        """A model of Ollama's cloud, whose name says so: Ollama serves those that it has not pulled as well."""
        return Model(name=name.strip(), identity=name.strip(), remote=True) if catalog.named_remote(name) else None

    async def models(self) -> list[Model]:
        """What ``/api/tags`` lists; a model's identity is its digest."""
        tags = catalog.parse_tags(await self._api.ask("GET", "/api/tags"))
        return [Model(name=tag.name, identity=tag.digest, created=tag.created, remote=tag.remote) for tag in tags]

    async def describe(self, model: Model) -> Model:
        """What ``/api/show`` adds. Raises :class:`~llm_queue.errors.UpstreamRefused` (404) for a model that is gone.

        Nothing is asked about a remote model: for some, Ollama would have to ask its cloud.
        """
        if model.remote:
            await trio.lowlevel.checkpoint()
            return model
        shown = catalog.parse_show(await self._api.ask("POST", "/api/show", msgspec.json.encode({"model": model.name})))
        return msgspec.structs.replace(
            model, trained=shown.trained, capabilities=shown.capabilities, remote=shown.remote
        )

    async def resident(self) -> frozenset[RunnerKey]:
        """What ``/api/ps`` lists. A model that is still loading is not there yet."""
        loaded = catalog.parse_ps(await self._api.ask("GET", "/api/ps"))
        self.sizes = {one.digest: Size(one.size, one.size_vram) for one in loaded}
        return frozenset(RunnerKey(one.digest, one.context_length or 0) for one in loaded)

    async def count_tokens(self, model: Model, request: Request) -> int | None:
        """It has no way to tell: its one count is that of an answer."""
        await trio.lowlevel.checkpoint()
        return None

    async def probe(self) -> None:
        """Ask for the version: the cheapest question."""
        await self._api.ask("GET", "/api/version")

    async def load(self, model: Model, num_ctx: int) -> None:
        """A chat without messages. Ollama kills a load when its connection closes, so cancel it only to give it up.

        Raises :class:`~llm_queue.errors.LoadFailed` for all that Ollama says against it but 503
        (:class:`~llm_queue.errors.UpstreamBusy`), and :class:`~llm_queue.errors.ConnectionLost` when it says nothing.
        """
        await self._load(model, num_ctx)

    async def run(self, model: Model, num_ctx: int, request: Request, emit: Callable[[Piece], None]) -> Completion:
        """A streamed chat or generate, or an embed, under the model's own name, whatever alias the request has.

        What runs elsewhere gets no ``keep_alive`` and no context size: that is its own affair. It is never loaded.
        """
        if isinstance(request, LoadRequest):
            if model.remote:
                await trio.lowlevel.checkpoint()
                return Completion("unload" if request.unload else "load")
            return await (self._unload(model) if request.unload else self._load(model, num_ctx, request.keep_alive))
        apart = model.remote
        request = msgspec.structs.replace(request, model=model.name)
        if isinstance(request, ChatRequest | TextRequest) and request.truncate is None and not apart:
            request = msgspec.structs.replace(request, truncate=self._truncate)
        keep_alive = None if apart else self._lifetimes.of_work(model.identity, request.keep_alive)
        match request:
            case ChatRequest():
                if request.think_if_able and "thinking" not in model.capabilities:
                    request = msgspec.structs.replace(request, think=None)  # Ollama would refuse it
                path, body = "/api/chat", asking.chat_body(request, num_ctx, keep_alive)
            case TextRequest():
                path, body = "/api/generate", asking.generate_body(request, num_ctx, keep_alive)
            case EmbedRequest():
                vectors, completion = await self._embed(request, num_ctx, keep_alive, apart=apart)
                emit(vectors)
                self._lifetimes.sent(model.identity, keep_alive)
                return msgspec.structs.replace(completion, unloaded=keep_alive == 0)
            case _:
                assert_never(request)
        completion = await self._api.converse(path, body, decoder_of(request), emit, apart=apart)
        self._lifetimes.sent(model.identity, keep_alive)
        cut = not apart and _was_cut(num_ctx, completion.prompt_tokens or 0)
        return msgspec.structs.replace(completion, truncated=cut, unloaded=keep_alive == 0)

    async def _embed(
        self, request: EmbedRequest, num_ctx: int, keep_alive: float | None, *, apart: bool
    ) -> tuple[Vectors, Completion]:
        if request.normalized or len(request.inputs) != 1:
            body = asking.embed_body(request, num_ctx, keep_alive)
            return answers.parse_embedded(await self._api.work("/api/embed", body, apart=apart))
        body = asking.plain_embed_body(request.model, request.inputs[0], num_ctx, keep_alive)
        return answers.parse_plain_embedded(await self._api.work("/api/embeddings", body, apart=apart))

    async def _load(self, model: Model, num_ctx: int, asked: float | None = None) -> Completion:
        embeds_only = "embedding" in model.capabilities and "completion" not in model.capabilities
        path = "/api/embed" if embeds_only else "/api/chat"  # an embed without input loads as well
        keep_alive = self._lifetimes.of_load(model.identity, asked)
        try:
            answer = await self._api.work(path, asking.load_body(model.name, num_ctx, keep_alive))
        except ConnectionLost:
            raise  # Ollama itself went away: that says nothing of the model
        except (UpstreamRefused, UpstreamBroke) as error:
            raise LoadFailed(
                f"{self.name} could not load {model.name} with num_ctx {num_ctx}: {error.message}"
            ) from error
        self._lifetimes.sent(model.identity, keep_alive)
        return msgspec.structs.replace(answers.parse_loaded(answer), finish_reason="load", finish_text="load")

    async def _unload(self, model: Model) -> Completion:
        completion = answers.parse_loaded(await self._api.work("/api/chat", asking.unload_body(model.name)))
        self._lifetimes.forget(model.identity)
        return msgspec.structs.replace(completion, finish_reason="unload", finish_text="unload", unloaded=True)

    async def aclose(self) -> None:
        await self._api.aclose()


def _at_fault(status: int, text: str) -> int:
    """A model that only chats is asked to embed: the older way says 500 to that, the newer 501."""
    return status_4xx(status, text) or (400 if NO_EMBEDDINGS in text else 0)


def _was_cut(num_ctx: int, prompt_tokens: int) -> bool:
    """True if the prompt has a size to which Ollama cuts one that is too long, without a word."""
    halves = [num_ctx - (num_ctx - kept) // 2 for kept in KEPT]
    return prompt_tokens >= NEARLY_FULL * num_ctx or prompt_tokens in halves
