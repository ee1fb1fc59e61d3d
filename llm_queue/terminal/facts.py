"""What the doctor looks at, as values: the service, the engine behind it, and this machine."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from llm_queue.processes.connected import Program, connected_to, listening_at
from llm_queue.processes.surroundings import environment_of, total_memory
from llm_queue.service.machine import Machine
from llm_queue.service.ollama import SHOW, read_unit, variables_in
from llm_queue.settings import Settings
from llm_queue.settings.values import OLLAMA_PORT
from llm_queue.terminal.line import Line, NoAnswer
from llm_queue.terminal.shapes import Loose, Queue

ANSWERS_WITHIN: Final = 5.0
"""Seconds for what an Ollama answers from memory."""

OF_INTEREST: Final = ("OLLAMA_", "LLAMA_ARG_")
"""How the variables begin that Ollama and its engines read."""

Starter = Literal["system unit", "user unit", "app", "hand"]
"""Who starts Ollama: a unit of the machine or of the user, its app (macOS and Windows), or somebody by hand."""


class LoadedNow(Loose, frozen=True, kw_only=True):
    """A model of ``GET /api/ps``."""

    name: str = ""
    size: int = 0
    size_vram: int = 0
    context_length: int = 0


class _Loaded(Loose, frozen=True, kw_only=True):
    models: tuple[LoadedNow, ...] = ()


class _Version(Loose, frozen=True, kw_only=True):
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class OllamaFacts:
    """An Ollama that answers. ``is_a_line`` is true if it is another llm-queue that does."""

    version: str = ""
    loaded: Sequence[LoadedNow] = ()
    is_a_line: bool = False


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that findings are made of.

    ``queue`` is None if no service of ours answers at ``url``, and ``asked`` then says what came instead. ``listening``
    has who listens at our port, and ``upstream_listening`` who listens at the upstream's, by address; ``connected`` who
    is connected to the upstream besides the service and us. ``variables`` are those of Ollama, by where they were
    found. Sizes are in bytes.
    """

    url: str
    port: int
    both_loopbacks: bool = True
    queue: Queue | None = None
    asked: str = ""
    upstream: str = "Ollama"
    upstream_url: str = ""
    ollama: OllamaFacts | None = None
    listening: Mapping[str, Program] = field(default_factory=dict)
    upstream_listening: Mapping[str, Program] = field(default_factory=dict)
    connected: Sequence[Program] = ()
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    starter: Starter = "hand"
    platform: str = "linux"
    memory: int = 0
    num_ctx: int = 8192

    @property
    def upstream_port(self) -> int:
        """Where the upstream listens; 0 where it has no port of its own."""
        return _place(self.upstream_url)[1]

    @property
    def service(self) -> Program | None:
        """The process that serves, as far as the system tells."""
        return next(iter(self.listening.values()), None) if self.queue is not None else None


@dataclass(frozen=True)
class Sources:
    """Whom the facts come from; each can be another in a test."""

    listening: Callable[[int], dict[str, Program]] = listening_at
    connected: Callable[[str, int, Collection[int]], list[Program]] = connected_to
    environment: Callable[[int], dict[str, str] | None] = environment_of
    query: Callable[[Sequence[str]], str] = field(default_factory=lambda: Machine().query)
    memory: Callable[[], int] = total_memory
    platform: str = sys.platform
    transport: httpx.AsyncBaseTransport | None = None


async def gather(line: Line, settings: Settings, sources: Sources) -> Facts:
    """Look at everything once. Takes about a second; raises nothing that a machine can be blamed for."""
    queue, asked = await _service(line)
    upstream, url = "Ollama", str(settings.ollama_url or f"http://localhost:{OLLAMA_PORT}")
    if queue is not None and queue.upstream.name:
        upstream, url = queue.upstream.name, queue.upstream.url
    ollama = await _ollama(url, sources.transport) if upstream == "Ollama" else None
    facts = Facts(
        url=line.url,
        port=urlsplit(line.url).port or settings.port[0],
        both_loopbacks=settings.host is None,
        queue=queue,
        asked=asked,
        upstream=upstream,
        upstream_url=url,
        ollama=ollama,
        num_ctx=settings.num_ctx,
        platform=sources.platform,
    )
    return await trio.to_thread.run_sync(_with_machine, facts, sources, abandon_on_cancel=True)


async def _service(line: Line) -> tuple[Queue | None, str]:
    try:
        await line.ready()
        return await line.queue(), ""
    except NoAnswer as error:
        return None, str(error)


async def _ollama(url: str, transport: httpx.AsyncBaseTransport | None) -> OllamaFacts | None:
    async with httpx.AsyncClient(base_url=url, timeout=ANSWERS_WITHIN, trust_env=False, transport=transport) as http:
        try:
            version = _read(await http.get("/api/version"), _Version)
            if version is None:
                return None
            loaded = _read(await http.get("/api/ps"), _Loaded) or _Loaded()
            ready = await http.get("/ready")
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
    said = _object(ready)
    return OllamaFacts(version=version.version, loaded=loaded.models, is_a_line="ready" in said)


def _with_machine(facts: Facts, sources: Sources) -> Facts:
    """The same facts, with those of this machine. Blocks."""
    host, port = _place(facts.upstream_url)
    listening = sources.listening(facts.port)
    ours = {os.getpid()} | {one.process_id for one in listening.values() if facts.queue is not None and one.process_id}
    upstream_listening = sources.listening(port) if port else {}
    connected = sources.connected(host, port, ours) if port else []
    is_here = bool(upstream_listening) and _is_loopback(host)
    variables, starter = (
        _variables(upstream_listening, sources) if facts.upstream == "Ollama" and is_here else ({}, "hand")
    )
    return dataclasses.replace(
        facts,
        listening=listening,
        upstream_listening=upstream_listening,
        connected=connected,
        variables=variables,
        starter=starter,
        memory=sources.memory(),
    )


def _variables(listening: Mapping[str, Program], sources: Sources) -> tuple[dict[str, dict[str, str]], Starter]:
    """The variables of the Ollama of this machine, by where they were found, and who starts it."""
    found: dict[str, dict[str, str]] = {}
    starter: Starter = "app" if sources.platform in ("darwin", "win32") else "hand"
    if sources.platform == "linux":
        for kind, control in (("system unit", ("systemctl",)), ("user unit", ("systemctl", "--user"))):
            said = sources.query([*control, *SHOW])
            unit = read_unit(said, of_system=kind == "system unit")
            if unit is not None and unit.active and starter == "hand":
                starter = "system unit" if kind == "system unit" else "user unit"
                found[f"its {kind}"] = _of_interest(variables_in(said))
    for program in listening.values():
        environment = sources.environment(program.process_id) if program.process_id is not None else None
        if environment is not None:  # what it was really given goes before what its unit says now
            return {f"process {program.process_id}": _of_interest(environment)}, starter
    return found, starter


def _of_interest(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value.strip("\"' ") for name, value in variables.items() if name.startswith(OF_INTEREST) and value}


def _place(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return "", 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == "localhost"


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        said = response.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _read(response: httpx.Response, shape: type[Any]) -> Any:
    if response.is_error:
        return None
    try:
        return msgspec.json.decode(response.content, type=shape)
    except msgspec.MsgspecError:
        return None
