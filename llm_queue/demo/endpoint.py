"""The service that the programs talk to: the one that runs already, or one of our own for as long as the demo lasts."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import trio

from llm_queue import running
from llm_queue.launch import command, environment
from llm_queue.settings import Settings

READY_WITHIN: Final = 15.0
"""Seconds for which a service may say that it is not ready: as long as it waits for an engine that it never saw, and
some more."""

END_WITHIN: Final = 5.0
"""Seconds for a service that was told to end. Nobody waits in its line any more."""

"""The name of a key; a key may end in ``=``, as base64 does."""

_LISTENING: Final = re.compile(r"listening on (http://\S+)")


class NoService(Exception):
    """There is no service to talk to. The text says why."""


@asynccontextmanager
async def service(
    settings: Settings, environ: Mapping[str, str], tell: Callable[[str], None]
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that is ready, which runs already or is ours; ours ends with the block, however that ends.

    ``tell`` gets a line on which of the two it is, and those of a starting service. Raises :class:`NoService`, in a
    group as nurseries do.
    """
    first = settings.port[0]
    url = running.address(settings)
    async with running.client(url, settings) as http:
        found = first != 0 and await _readiness(http)
        if found:
            tell(f"using the service at {url}")
            await _until_ready(http)
            yield http
            return
    # Nobody listens there (None), or a program that is none of ours (False).
    alone = dataclasses.replace(settings, port=(first if found is None else 0,))
    async with _started(alone, environ, tell) as url, running.client(url, settings) as http:
        tell(f"started a service at {url}, for this demo alone")
        await _until_ready(http)
        yield http


async def _readiness(http: httpx.AsyncClient) -> dict[str, Any] | bool | None:
    """What the service says of itself; None if nobody is there, False if it is somebody else."""
    try:
        response = await http.get("/ready", timeout=READY_WITHIN)
        said = response.json()
    except httpx.ConnectError:
        return None
    except (httpx.HTTPError, ValueError):
        return False
    if isinstance(said, dict) and "ready" in said:
        return said
    if response.status_code == 401:
        raise NoService("the service that runs asks for a key: give it with LLM_QUEUE_API_KEYS")
    return False


async def _until_ready(http: httpx.AsyncClient) -> None:
    last_moment = trio.current_time() + READY_WITHIN
    while True:
        said = await _readiness(http)
        if isinstance(said, dict) and said["ready"]:
            return
        if trio.current_time() >= last_moment:
            reason = said.get("reason") if isinstance(said, dict) else "it has gone"
            raise NoService(f"the service cannot serve: {reason}")
        await trio.sleep(0.1)


@asynccontextmanager
async def _started(settings: Settings, environ: Mapping[str, str], tell: Callable[[str], None]) -> AsyncIterator[str]:
    said: deque[str] = deque(maxlen=20)
    found: list[str] = []
    listening = trio.Event()

    def hear(line: str) -> None:
        said.append(line)
        if match := _LISTENING.search(line):
            found.append(match[1])
            listening.set()
        elif not found and not line.startswith("{"):
            tell(line)

    process = await trio.lowlevel.open_process(
        command(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(settings, environ) | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
    )
    try:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                assert process.stdout is not None
                await _lines(process.stdout, hear)
                listening.set()

            nursery.start_soon(listen)
            await listening.wait()
            if not found:
                raise NoService("\n".join(["the service did not start:", *said]))
            yield found[0]
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _lines(stream: trio.abc.ReceiveStream, hear: Callable[[str], None]) -> None:
    rest = b""
    async for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            hear(line.decode("utf-8", "replace").rstrip())


async def _end(process: trio.Process) -> None:
    if process.poll() is None:
        process.terminate()
        with trio.move_on_after(END_WITHIN):
            await process.wait()
    if process.poll() is None:
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()
