"""One HTTP API of an engine: model work on one connection, questions on another, and what goes wrong in our terms."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol

import httpx
import trio

from llm_queue.errors import (
    ConnectionLost,
    LoopDetected,
    QueueError,
    UpstreamBroke,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.instance import HEADER, VIA, Instance
from llm_queue.traceparent import sent_headers
from llm_queue.upstream.transport import Connect, OneConnection, open_stream
from llm_queue.wire.shapes import Completion, Delta
from llm_queue.wire.upstreams.too_long import prompt_too_long

QUESTION_TIMEOUT: Final = 5.0
"""Seconds for a question that loads nothing. Ollama and llama-server answer in milliseconds, also while they work."""

MAX_ANSWER: Final = 64 * 2**20
"""Bytes of an answer that is read as a whole: a list of models, an error, or vectors, of which 2,000 with 1,024 numbers
each have about 45 MB.
"""


CallerAtFault = Callable[[int, str], int]
"""Tells by the status and the text of an error with which status the caller is refused; 0 if it is not at fault."""

NO_SUCH_INPUT: Final = "input is not supported"
"""llama.cpp's server says so, with status 500, of an image or a sound that its model cannot take."""


def status_4xx(status: int, _text: str) -> int:
    """The request was at fault if HTTP says so."""
    return status if 400 <= status < 500 else 0


def status_or_text(status: int, text: str) -> int:
    """The request was at fault if HTTP says so, or if the text does; the status is the server's own either way."""
    return status if status == 500 and NO_SUCH_INPUT in text else status_4xx(status, text)


class AnswerDecoder(Protocol):
    """One of the wire's decoders: bytes in, pieces of an answer out, and its end."""

    @property
    def done(self) -> bool:
        """True once the answer has ended as it should."""

    def feed(self, data: bytes) -> list[Delta]:
        """What these bytes complete."""

    def close(self) -> tuple[list[Delta], Completion]:
        """What is left, and the end. Raises :class:`~llm_queue.errors.UpstreamBroke` if there was none."""


class HttpApi:
    """Model work has a connection of its own, and so have questions, which go one after the other: a question never
    waits for model work. Work that is only passed on through here has a connection for each request.

    Both go straight to the transport. An ``httpx.AsyncClient`` in between would wrap each body in async generators,
    which trio cannot close when a run is given up from inside, and all else it adds (cookies, redirects, proxies,
    authentication) must not happen here. Raises nothing but our own errors.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        error_text: Callable[[bytes], str],
        unreachable: str,
        elsewhere: str = "",
        headers: Mapping[str, str] | None = None,
        caller_at_fault: CallerAtFault = status_4xx,
        instance: Instance | None = None,
        connect: Connect = open_stream,
    ) -> None:
        """``error_text`` finds in an error's body what it says; ``unreachable`` is what a person can do when there is
        no connection, and ``elsewhere`` when the address is wrong.

        ``caller_at_fault`` tells by an error's status and text that the same request would fail again, and how that is
        passed on. ``instance`` is named in each request; without one, the upstream is a process of ours, which asks
        nobody.
        """
        self.name = name
        self.url = url.rstrip("/")
        self._error_text = error_text
        self._unreachable = unreachable
        self._elsewhere = elsewhere
        self._caller_at_fault = caller_at_fault
        self._instance = instance
        self._headers = {"user-agent": "llm-queue"} | dict(headers or {})
        self._connect = connect
        self._work = OneConnection(connect)
        self._questions = OneConnection(connect)
        self._question = trio.Lock()

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A question that loads nothing, answered as a whole."""
        async with self._question:
            try:
                with trio.fail_after(QUESTION_TIMEOUT):
                    async with self._exchange(self._questions, method, path, body) as response:
                        return await _whole(response)
            except trio.TooSlowError:
                raise self._too_slow() from None

    async def ask_any(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        """The same with whatever status it is answered: that, the media type, and the body.

        ``headers`` go over those of every request.
        """
        async with self._question:
            try:
                with trio.fail_after(QUESTION_TIMEOUT):
                    sent = self._open(self._questions, method, path, body, headers)
                    async with sent as response:
                        media_type = response.headers.get("content-type", "")
                        return response.status_code, media_type, await _whole(response)
            except trio.TooSlowError:
                raise self._too_slow() from None

    async def work(self, path: str, body: bytes, *, apart: bool = False) -> bytes:
        """Model work, answered as a whole; ``apart`` as in :meth:`converse`."""
        async with (
            self._connection(apart=apart) as connection,
            self._exchange(connection, "POST", path, body, apart=apart) as response,
        ):
            return await _whole(response)

    async def converse(
        self,
        path: str,
        body: bytes,
        answer: AnswerDecoder,
        emit: Callable[[Delta], None],
        *,
        apart: bool = False,
    ) -> Completion:
        """Model work, each piece of its answer decoded and handed to ``emit`` as it arrives. Returns its true end.

        An exception that ``emit`` raises ends the request as a cancellation would. ``apart``: it is passed on to
        another place, so it has a connection of its own, beside all other work, and a 401 is that place's refusal.
        """
        try:
            async with (
                self._connection(apart=apart) as connection,
                self._exchange(connection, "POST", path, body, apart=apart) as response,
            ):
                async for data in _stream(response):
                    for delta in answer.feed(data):
                        emit(delta)
        except UpstreamBroke:
            if not answer.done:  # what breaks after the end does not matter
                raise
        left, completion = answer.close()
        for delta in left:
            emit(delta)
        return completion

    @property
    def closed_after(self) -> float:
        """Seconds that the upstream took to close its side of the last work that was given up; infinity: it did not."""
        return self._work.closed_after

    async def aclose(self) -> None:
        """Close both connections."""
        await self._work.aclose()
        await self._questions.aclose()

    @asynccontextmanager
    async def _connection(self, *, apart: bool) -> AsyncIterator[OneConnection]:
        """The connection for model work, or one for this request alone."""
        if not apart:
            yield self._work
            return
        connection = OneConnection(self._connect)
        try:
            yield connection
        finally:
            await connection.aclose()  # noqa: ASYNC102 - forceful: it does not wait

    @asynccontextmanager
    async def _exchange(
        self, transport: OneConnection, method: str, path: str, body: bytes, *, apart: bool = False
    ) -> AsyncIterator[httpx.Response]:
        """One request and its answer, whose status is 200. On the way out the answer is at its end or seen closed."""
        async with self._open(transport, method, path, body) as response:
            if response.status_code != 200:
                raise self._refusal(response.status_code, await _whole(response), apart=apart)
            yield response

    @asynccontextmanager
    async def _open(
        self, transport: OneConnection, method: str, path: str, body: bytes, more: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """The same for any status, with ``more`` headers."""
        headers = self._headers | ({"content-type": "application/json"} if body else {}) | dict(more or {})
        headers |= sent_headers()
        if self._instance is not None:
            headers[HEADER] = self._instance.header()
        request = httpx.Request(method, _parsed(self.url + path), headers=header_bytes(headers), content=body)
        try:
            response = await transport.handle_async_request(request)
            try:
                if self._instance is not None:
                    self._look_for_queues(self._instance, response)
                yield response
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UpstreamUnreachable(
                f"{self.name} cannot be reached at {self.url} ({error}). {self._unreachable}"
            ) from error
        except httpx.TransportError as error:
            raise ConnectionLost(f"{self.name} broke off its answer: {error}") from error

    def _too_slow(self) -> UpstreamUnreachable:
        return UpstreamUnreachable(
            f"{self.name} at {self.url} does not answer within {QUESTION_TIMEOUT:g} s. Restart it."
        )

    def _look_for_queues(self, instance: Instance, response: httpx.Response) -> None:
        """Tell by the head of an answer whether another llm-queue gave it, or ours."""
        if response.status_code == LoopDetected.status:
            raise LoopDetected(f"{self.url} leads back to this llm-queue itself (a loop). {self._elsewhere}")
        instance.behind = instance.behind or VIA in response.headers.get("via", "")

    def _refusal(self, status: int, body: bytes, *, apart: bool) -> QueueError:
        text = self._error_text(body) or f"{self.name} answered with status {status}."
        if status in (400, 413, 500) and (too_long := prompt_too_long(text)) is not None:
            return too_long
        if status == 401 and not apart:  # a setting of ours is wrong: no caller could mend it with a key of its own
            return UpstreamUnreachable(f"{self.name} at {self.url} lets nobody in: {text} {self._unreachable}")
        # 501: the model, or the whole server, has no such thing, as Ollama says to embeds of a chat model.
        if refused := 400 if status == 501 else self._caller_at_fault(status, text):
            return UpstreamRefused(text, status=refused)
        return UpstreamBusy(text) if status == 503 else UpstreamBroke(text)


def header_bytes(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The headers as they are sent. Some are a caller's, and HTTP has any byte there, as a character of Latin-1."""
    return [(name.encode("ascii"), value.encode("latin-1", "replace")) for name, value in headers.items()]


@functools.lru_cache(64)
def _parsed(url: str) -> httpx.URL:
    """The URL, which is parsed once: there are few, and it takes a tenth of a millisecond."""
    return httpx.URL(url)


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
