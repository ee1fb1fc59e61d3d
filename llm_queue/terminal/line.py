"""A running service as its commands ask it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import httpx
import msgspec

from llm_queue.terminal.shapes import Loose, ModelList, Queue, Ready, Report

ANSWERS_WITHIN: Final = 10.0
"""Seconds for an answer that needs no model: it comes from memory, or from an upstream that is asked for five."""

MOST_JOBS: Final = 1000
"""Jobs that the service lists at most: among them a shortened id is looked for."""

WHOLE_ID: Final = 22
"""Characters of a job's id."""

V = TypeVar("V", bound=Loose)


class NoAnswer(Exception):
    """The service is not there, or did not do what it was asked. The text says what to do."""


class Unknown(NoAnswer):
    """The service has no such address, or no such job: 404."""


class Line:
    """Asks one service. Each call raises :class:`NoAnswer`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.url = str(http.base_url).rstrip("/")

    async def ready(self) -> Ready:
        """What it says of itself. Raises :class:`NoAnswer` also where a program that is none of ours answers."""
        response = await self._send("GET", "/ready")
        said = _read(response, Ready) if response.content[:1] == b"{" else Ready()
        if response.status_code == 401:
            raise NoAnswer(_error_of(response))
        if said.ready is None:
            raise NoAnswer(f"What answers at {self.url} is no llm-queue: give the port of yours with --port (or PORT).")
        return said

    async def queue(self, limit: int | None = None) -> Queue:
        """The line, with its first ``limit`` jobs."""
        return _read(await self.get("/queue" if limit is None else f"/queue?limit={limit}"), Queue)

    async def models(self) -> ModelList:
        """The models that can be asked."""
        return _read(await self.get("/v1/models"), ModelList)

    async def report(self, job: str) -> Report:
        """The report of the job of that id. Raises :class:`Unknown` if there is none."""
        return _read(await self.get(f"/queue/jobs/{job}"), Report)

    async def get(self, path: str) -> httpx.Response:
        """An answer that is no error."""
        return _checked(await self._send("GET", path))

    async def command(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Have it do something, and return what it says."""
        try:
            said = _checked(await self._send("POST", path, body or {})).json()
        except ValueError:
            said = {}
        return said if isinstance(said, dict) else {}

    async def whole_id(self, shortened: str) -> str:
        """The id of the one job, living or lately ended, whose id begins so."""
        if len(shortened) >= WHOLE_ID:
            return shortened
        queue = await self.queue(MOST_JOBS)
        known = dict.fromkeys([one.job for one in queue.jobs] + [one.job for one in queue.finished])
        found = [one for one in known if one.startswith(shortened)]
        if len(found) > 1:
            some = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
            raise NoAnswer(f"{len(found)} jobs begin with {shortened}: {some}. Say more of the id.")
        if not found:
            raise NoAnswer(
                f"No job that waits, runs or has just ended begins with {shortened}. Of one that ended earlier, say "
                "the whole id: it is in the log, and in the answer's X-LLM-Queue-Job."
            )
        return found[0]

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Queue]]:
        """The line, whenever it has changed. Raises :class:`Unknown` where the service is too old for that."""
        try:
            async with self.http.stream("GET", "/queue/events", headers={"Accept": "text/event-stream"}) as response:
                if response.is_error:
                    await response.aread()
                _checked(response)
                yield _queues(response)
        except httpx.HTTPError as error:
            raise self._gone(error) from error

    async def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            return await self.http.request(method, path, json=body, timeout=ANSWERS_WITHIN)
        except httpx.HTTPError as error:
            raise self._gone(error) from error

    def _gone(self, error: httpx.HTTPError) -> NoAnswer:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return NoAnswer(
                f"No service answers at {self.url}. Start it with: llm-queue serve. "
                "If it runs elsewhere, say so with --port and --host (or PORT and HOST)."
            )
        return NoAnswer(f"The service at {self.url} did not answer ({type(error).__name__}): its log may say why.")


async def _queues(response: httpx.Response) -> AsyncIterator[Queue]:
    data: list[str] = []
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield _decoded("\n".join(data).encode(), Queue)
            data = []


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_error:
        return response
    said = _error_of(response)
    raise Unknown(said) if response.status_code == 404 else NoAnswer(said)


def _error_of(response: httpx.Response) -> str:
    if response.status_code == 401:
        return "The service asks for a key: give it with LLM_QUEUE_API_KEYS, or a file of keys with --api-keys-file."
    return error_text(response.content) or f"The service said {response.status_code}."


def error_text(body: bytes | str) -> str:
    """The message of an error in any of the shapes that a service answers in; empty if there is none."""
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    error = said.get("error") if isinstance(said, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""


def _read(response: httpx.Response, shape: type[V]) -> V:
    return _decoded(response.content, shape)


def _decoded(body: bytes, shape: type[V]) -> V:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise NoAnswer(
            f"The service says what this llm-queue does not understand ({error}): they are of different versions. "
            "Restart the service with this one."
        ) from error
