"""Which engine stands behind the line: the one that was asked for, or the one that is there."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from llm_queue import log
from llm_queue.errors import UpstreamError, UpstreamUnreachable
from llm_queue.instance import Instance
from llm_queue.settings import Settings
from llm_queue.settings.values import OLLAMA_PORT, ServerUrl
from llm_queue.upstream.ollama import Ollama
from llm_queue.upstream.openai import OpenAIServer
from llm_queue.upstream.ourselves import Place, is_ourselves
from llm_queue.upstream.protocol import Upstream

OLLAMA_URL: Final = f"http://localhost:{OLLAMA_PORT}"
"""Where Ollama listens by its own default."""

GET_OLLAMA: Final = "get it from ollama.com/download, then `ollama pull granite4.1:8b`"
GET_EMBEDDED: Final = "python3 -m pip install xllamacpp"


class NoUpstream(Exception):
    """The engine that was asked for is not to be had. The text says what to do."""


class Choice(NamedTuple):
    """The engine, and what people should know about the choice, in lines for the greeting."""

    upstream: Upstream
    notes: tuple[str, ...] = ()


async def choose(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    instance: Instance | None = None,
    places: Sequence[Place] = (),
) -> Choice:
    """The engine of ``settings.engine``.

    ``auto`` takes what another setting points to (Ollama before the others); else an Ollama that answers or is
    installed; else the embedded engine if it is installed; else Ollama, which may come later. ``environ`` says where
    programs are, ``instance`` who asks, and ``places`` where we listen: no upstream can be there. Raises
    :class:`NoUpstream`. May take as long as fetching a model takes.
    """
    match settings.engine:
        case "ollama":
            return Choice(await _ollama(settings, instance, places))
        case "openai":
            return Choice(await _openai(settings, instance, places))
        case "embedded":
            return await _embedded(settings, environ)
    if settings.ollama_url is not None:
        return Choice(await _ollama(settings, instance, places))
    if settings.upstream_url is not None:
        return Choice(await _openai(settings, instance, places))
    if settings.gguf is not None:
        return await _embedded(settings, environ)
    return await _whatever_is_there(settings, environ, instance, places)


async def _whatever_is_there(
    settings: Settings, environ: Mapping[str, str], instance: Instance | None, places: Sequence[Place]
) -> Choice:
    has_command = shutil.which("ollama", path=environ.get("PATH", "")) is not None
    if _installed() and not has_command and await is_ourselves(OLLAMA_URL, places):
        return await _embedded_since(settings, environ, f"{OLLAMA_URL} is our own address")
    ollama = await _ollama(settings, instance, places)
    if await _answers(ollama) or has_command:
        return Choice(ollama)
    nowhere = f"no Ollama answers at {ollama.url}"
    if _installed():
        return await _embedded_since(settings, environ, nowhere)
    return Choice(ollama, (f"{nowhere}: {GET_OLLAMA}", f"or, to do without it: {GET_EMBEDDED}"))


async def _embedded_since(settings: Settings, environ: Mapping[str, str], reason: str) -> Choice:
    upstream, notes = await _embedded(settings, environ)
    return Choice(upstream, (f"{reason}, so the embedded engine serves; --engine ollama waits for one", *notes))


async def _ollama(settings: Settings, instance: Instance | None, places: Sequence[Place]) -> Ollama:
    url = settings.ollama_url or ServerUrl(OLLAMA_URL)
    if await is_ourselves(url, places):
        asked = f"--ollama-url {url}" if settings.ollama_url else f"{url}, where Ollama is looked for,"
        raise NoUpstream(f"{asked} leads to this llm-queue itself (a loop). Say with --ollama-url where Ollama is.")
    return Ollama(
        url,
        keep_alive=settings.keep_alive,
        authorization=url.authorization,
        instance=instance,
        truncate=False if settings.fit_context else None,
    )


async def _openai(settings: Settings, instance: Instance | None, places: Sequence[Place]) -> OpenAIServer:
    assert settings.upstream_url is not None
    url = settings.upstream_url
    if await is_ourselves(url, places):
        raise NoUpstream(f"--upstream-url {url} leads to this llm-queue itself (a loop). Say where the server is.")
    return OpenAIServer(url, settings.upstream_key, authorization=url.authorization, instance=instance)


async def _embedded(settings: Settings, environ: Mapping[str, str]) -> Choice:
    if not _installed():
        raise NoUpstream(f"the embedded engine is not installed: {GET_EMBEDDED}")
    # Most have an Ollama, and start sooner without these.
    from llm_queue.upstream.embedded import Embedded
    from llm_queue.upstream.embedded.kept import keep_prompts
    from llm_queue.upstream.embedded.weights import ANSWER_TOKENS, NAME, NoWeights, weights

    prompts = await keep_prompts(settings.keep_prompts, environ)
    notes = (prompts.note,) if prompts is not None else ()
    made = partial(Embedded, memory=settings.engine_memory, old_prompts=settings.engine_cache, prompts=prompts)
    if settings.gguf is None:
        try:
            source = await weights(log.complain)
        except NoWeights as error:
            raise NoUpstream(str(error)) from error
        engine = made(source, answer_tokens=ANSWER_TOKENS)
        shows = f"{NAME} shows that the line works; it judges nothing right: --gguf takes another"
        return Choice(engine, (shows, *notes))
    source = _from_home(settings.gguf)
    engine = made(source)
    if not engine.default_model:
        raise NoUpstream(f"--gguf {source}: there is no GGUF file")
    return Choice(engine, notes)


def _from_home(path: str) -> Path:
    """A tilde is the shell's to read, and comes unread from unit files."""
    return Path(path).expanduser()


def _installed() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


async def _answers(ollama: Ollama) -> bool:
    try:
        await ollama.probe()
    except UpstreamUnreachable:
        return False
    except UpstreamError:
        pass  # whatever it is, it is there
    finally:
        await ollama.aclose()
    return True
