"""Ollama, by its native API: the engine that the line drives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import httpx
import msgspec
import trio

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import (
    LoadFailed,
    UpstreamBroke,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.upstream.protocol import Model
from llm_queue.upstream.transport import Connect, OneConnection, open_stream
from llm_queue.wire import ollama as wire
from llm_queue.wire.chat import ChatRequest, Completion, Delta

QUESTION_TIMEOUT: Final = 5.0
"""Seconds for a question that loads nothing. Ollama answers in milliseconds, also while it loads or runs a model."""

MAX_ANSWER: Final = 16 * 2**20
"""Bytes of an answer that is read as a whole: a list of models, a model's description, an error."""


class Ollama:
    """Implements :class:`~llm_queue.upstream.protocol.Upstream`; raises nothing but our own errors.

    Model work has a connection of its own, and so have questions, which go one after the other: a question never waits
    for model work. Both go straight to the transport. An ``httpx.AsyncClient`` in between would wrap each body in async
    generators, which trio cannot close when a run is given up from inside, and all else it adds (cookies, redirects,
    proxies, authentication) must not happen here.
    """

    name = "Ollama"

    def __init__(self, url: str, *, keep_alive: str = "1h", connect: Connect = open_stream) -> None:
        """``keep_alive`` is sent with loads only: on work it would set anew what others have asked for."""
        self.url = url.rstrip("/")
        self._keep_alive = keep_alive
        self._work = OneConnection(connect)
        self._questions = OneConnection(connect)
        self._question = trio.Lock()

    async def models(self) -> list[Model]:
        """What ``/api/tags`` lists; a model's identity is its digest."""
        tags = wire.parse_tags(await self._ask("GET", "/api/tags"))
        return [Model(name=tag.name, identity=tag.digest, created=tag.created) for tag in tags]

    async def describe(self, model: Model) -> Model:
        """What ``/api/show`` adds. Raises :class:`~llm_queue.errors.UpstreamRefused` (404) for a model that is gone."""
        shown = wire.parse_show(await self._ask("POST", "/api/show", msgspec.json.encode({"model": model.name})))
        return msgspec.structs.replace(model, trained=shown.trained, capabilities=shown.capabilities)

    async def resident(self) -> frozenset[RunnerKey]:
        """What ``/api/ps`` lists. A model that is still loading is not there yet."""
        loaded = wire.parse_ps(await self._ask("GET", "/api/ps"))
        return frozenset(RunnerKey(one.digest, one.context_length or 0) for one in loaded)

    async def probe(self) -> None:
        """Ask for the version: the cheapest question."""
        await self._ask("GET", "/api/version")

    async def load(self, model: Model, num_ctx: int) -> None:
        """A chat without messages. Ollama kills a load when its connection closes, so cancel it only to give it up.

        Raises :class:`~llm_queue.errors.LoadFailed` for all that Ollama says against it but 503
        (:class:`~llm_queue.errors.UpstreamBusy`).
        """
        embeds_only = "embedding" in model.capabilities and "completion" not in model.capabilities
        path = "/api/embed" if embeds_only else "/api/chat"  # an embed without input loads as well
        try:
            async with self._exchange(
                self._work, "POST", path, wire.load_body(model.name, num_ctx, self._keep_alive)
            ) as response:
                await _whole(response)
        except (UpstreamRefused, UpstreamBroke) as error:
            raise LoadFailed(
                f"{self.name} could not load {model.name} with num_ctx {num_ctx}: {error.message}"
            ) from error

    async def run(self, model: Model, num_ctx: int, request: ChatRequest, emit: Callable[[Delta], None]) -> Completion:
        """A streamed chat under the model's own name, whatever alias the request has."""
        body = wire.chat_body(msgspec.structs.replace(request, model=model.name), num_ctx)
        answer = wire.ChatDecoder()
        try:
            async with self._exchange(self._work, "POST", "/api/chat", body) as response:
                async for data in _stream(response):
                    for delta in answer.feed(data):
                        emit(delta)
        except UpstreamBroke:
            if not answer.done:  # what breaks after the end does not matter
                raise
        return answer.close()

    async def aclose(self) -> None:
        await self._work.aclose()
        await self._questions.aclose()

    async def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A question that loads nothing, answered as a whole."""
        async with self._question:
            try:
                with trio.fail_after(QUESTION_TIMEOUT):
                    async with self._exchange(self._questions, method, path, body) as response:
                        return await _whole(response)
            except trio.TooSlowError:
                raise UpstreamUnreachable(
                    f"{self.name} at {self.url} does not answer within {QUESTION_TIMEOUT:g} s. Restart it."
                ) from None

    @asynccontextmanager
    async def _exchange(
        self, transport: OneConnection, method: str, path: str, body: bytes
    ) -> AsyncIterator[httpx.Response]:
        """One request and its answer, whose status is 200. On the way out the answer is at its end or seen closed."""
        headers = {"accept": "application/x-ndjson, application/json", "user-agent": "llm-queue"}
        if body:
            headers["content-type"] = "application/json"
        request = httpx.Request(method, self.url + path, headers=headers, content=body)
        try:
            response = await transport.handle_async_request(request)
            try:
                if response.status_code != 200:
                    raise self._refusal(response.status_code, await _whole(response))
                yield response
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UpstreamUnreachable(
                f"{self.name} cannot be reached at {self.url} ({error}). "
                "Start it (`ollama serve`), or correct OLLAMA_URL."
            ) from error
        except httpx.TransportError as error:
            raise UpstreamBroke(f"{self.name} broke off its answer: {error}") from error

    def _refusal(self, status: int, body: bytes) -> UpstreamError:
        text = wire.error_text(body) or f"{self.name} answered with status {status}."
        if 400 <= status < 500:
            return UpstreamRefused(text, status=status)
        return UpstreamBusy(text) if status == 503 else UpstreamBroke(text)


def _stream(response: httpx.Response) -> httpx.AsyncByteStream:
    """The body as it arrives, without the generators that ``aiter_raw`` puts around it."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response.stream


async def _whole(response: httpx.Response) -> bytes:
    body = bytearray()
    async for data in _stream(response):
        body += data
        if len(body) > MAX_ANSWER:
            raise UpstreamBroke(f"The upstream sent an answer of more than {MAX_ANSWER} bytes.")
    return bytes(body)
