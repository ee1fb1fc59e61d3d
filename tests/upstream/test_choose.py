"""Which engine stands behind the line, by what is asked for and what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from llm_queue.settings import Settings, WrongSetting, load
from llm_queue.settings.values import ServerUrl
from llm_queue.testing.fake_ollama import FakeOllama, serve
from llm_queue.testing.fake_ollama.behaviour import Behaviour
from llm_queue.upstream import choose as choosing
from llm_queue.upstream.choose import Choice, NoUpstream, choose
from llm_queue.upstream.embedded import Embedded, private
from llm_queue.upstream.embedded.weights import NoWeights
from llm_queue.upstream.ollama import Ollama
from llm_queue.upstream.openai import OpenAIServer


class Machine:
    """What is there: nothing, until the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = monkeypatch
        self.folder = folder
        self.environ = {"PATH": str(folder)}
        self.fetched = 0
        self.cannot_fetch = False
        self.install(False)
        monkeypatch.setattr("llm_queue.upstream.embedded.weights.weights", self.weights)

    async def weights(self, say: Callable[[str], None]) -> Path:
        await trio.lowlevel.checkpoint()
        if self.cannot_fetch:
            raise NoWeights("no network")
        self.fetched += 1
        return self.model("small")

    def install(self, there: bool = True) -> None:
        self._patch.setattr(choosing, "_installed", lambda: there)

    def ollama_at(self, url: str) -> None:
        self._patch.setattr(choosing, "OLLAMA_URL", url)

    def command(self, name: str) -> None:
        program = self.folder / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)

    def model(self, name: str) -> Path:
        path = self.folder / f"{name}.gguf"
        path.write_bytes(b"")
        return path

    async def choose(self, **settings: Any) -> Choice:
        return await choose(Settings(**settings), self.environ)


@pytest.fixture
async def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    machine = Machine(monkeypatch, tmp_path)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    machine.ollama_at(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
    await listener.aclose()  # from now on nobody answers there
    return machine


# --- auto -------------------------------------------------------------------------------------------------------------


async def test_an_address_of_ollama_settles_it(machine: Machine) -> None:
    machine.install()
    engine = await machine.choose(ollama_url=ServerUrl("http://elsewhere:1"))
    assert isinstance(engine.upstream, Ollama)
    assert engine.upstream.url == "http://elsewhere:1"
    assert not engine.notes


async def test_an_ollama_that_answers_is_taken(machine: Machine, nursery: trio.Nursery) -> None:
    machine.install()
    machine.ollama_at(await nursery.start(serve, FakeOllama(Behaviour())))
    engine = await machine.choose()
    assert isinstance(engine.upstream, Ollama)
    assert not engine.notes


async def test_an_ollama_that_is_installed_is_taken_and_may_come_later(machine: Machine) -> None:
    machine.install()
    machine.command("ollama")
    assert isinstance((await machine.choose()).upstream, Ollama)


async def test_without_ollama_the_embedded_engine_serves_and_the_first_lines_say_so(machine: Machine) -> None:
    machine.install()
    engine = await machine.choose()
    assert isinstance(engine.upstream, Embedded)
    assert engine.upstream.default_model == "small"
    assert "no Ollama answers" in engine.notes[0]
    assert "judges nothing" in engine.notes[1]


async def test_with_nothing_there_it_is_ollama_and_how_to_get_it(machine: Machine) -> None:
    engine = await machine.choose()
    assert isinstance(engine.upstream, Ollama)
    assert "ollama.com/download" in engine.notes[0]
    assert "pip install xllamacpp" in engine.notes[1]


async def test_what_a_setting_points_to_is_taken(machine: Machine) -> None:
    machine.install()
    assert isinstance((await machine.choose(gguf=str(machine.model("mine")))).upstream, Embedded)
    assert isinstance((await machine.choose(upstream_url=ServerUrl("http://x"))).upstream, OpenAIServer)
    assert machine.fetched == 0


# --- by name ----------------------------------------------------------------------------------------------------------


async def test_an_engine_asked_for_by_name_is_the_one(machine: Machine, nursery: trio.Nursery) -> None:
    machine.install()
    machine.ollama_at(await nursery.start(serve, FakeOllama(Behaviour())))
    assert isinstance((await machine.choose(engine="ollama", gguf="x")).upstream, Ollama)
    assert isinstance((await machine.choose(engine="embedded")).upstream, Embedded)
    upstream = (await machine.choose(engine="openai", upstream_url=ServerUrl("http://x/v1"))).upstream
    assert isinstance(upstream, OpenAIServer)
    assert upstream.url == "http://x"


async def test_a_model_of_ones_own_is_not_talked_down(machine: Machine) -> None:
    machine.install()
    engine = await machine.choose(engine="embedded", gguf=str(machine.model("mine")))
    assert (engine.upstream.default_model, engine.notes, machine.fetched) == ("mine", (), 0)


async def test_only_the_small_model_has_a_limit_for_answers_whose_request_has_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []

    def embedded(source: Path, **options: object) -> Embedded:
        asked.append(options)
        return Embedded(source)

    monkeypatch.setattr("llm_queue.upstream.embedded.Embedded", embedded)
    machine.install()
    await machine.choose(engine="embedded")
    await machine.choose(engine="embedded", gguf=str(machine.model("mine")), engine_memory=2**30)
    kept = {"old_prompts": 256 * 2**20, "prompts": None}
    assert asked == [{"memory": None, "answer_tokens": 512, **kept}, {"memory": 2**30, **kept}]


@pytest.mark.parametrize("how", ["asked for", "its own model", "for want of another"])
async def test_the_first_lines_say_where_prompts_are_kept(
    how: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "SHARED_MEMORY", machine.folder / "not there")
    monkeypatch.setattr(private, "cache_folder", lambda: machine.folder / "cache")
    machine.install()
    settings: dict[str, dict[str, object]] = {
        "asked for": {"engine": "embedded"},
        "its own model": {"gguf": str(machine.model("mine"))},
        "for want of another": {},
    }
    choice = await machine.choose(keep_prompts=2**30, **settings[how])
    said = f"prompts are kept as files in {machine.folder / 'cache'}, 1.0 GiB at most"
    assert said in choice.notes
    assert not (machine.folder / "cache").exists()  # before there is a prompt


async def test_the_embedded_engine_without_its_extra_says_how_to_get_it(machine: Machine) -> None:
    with pytest.raises(NoUpstream, match="pip install xllamacpp"):
        await machine.choose(engine="embedded")


async def test_a_folder_without_models_is_refused(machine: Machine) -> None:
    machine.install()
    for gguf in (machine.folder, machine.folder / "nowhere"):
        with pytest.raises(NoUpstream, match="no GGUF file"):
            await machine.choose(gguf=str(gguf))


async def test_weights_that_cannot_be_had_are_a_clear_end(machine: Machine) -> None:
    machine.install()
    machine.cannot_fetch = True
    with pytest.raises(NoUpstream, match="no network"):
        await machine.choose()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_an_openai_engine_needs_an_address() -> None:
    with pytest.raises(WrongSetting, match="--upstream-url"):
        Settings(engine="openai")


def test_the_engine_is_one_of_four() -> None:
    with pytest.raises(WrongSetting, match="LLM_QUEUE_ENGINE takes auto or ollama or embedded or openai"):
        load({}, {"LLM_QUEUE_ENGINE": "gpt"})


def test_keys_do_not_show() -> None:
    settings = load({}, {"LLM_QUEUE_UPSTREAM_KEY": "secret-a", "LLM_QUEUE_API_KEYS": "secret-b"})
    assert (settings.upstream_key, settings.api_keys) == ("secret-a", ("secret-b",))
    assert "secret" not in repr(settings)


# --- ourselves --------------------------------------------------------------------------------------------------------

PLACES = [("127.0.0.1", 11434), ("::1", 11434)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_an_upstream_at_one_of_our_addresses_is_refused(machine: Machine, host: str) -> None:
    url = ServerUrl(f"http://{host}:11434")
    for settings in (Settings(ollama_url=url), Settings(engine="ollama", ollama_url=url)):
        with pytest.raises(NoUpstream, match=r"--ollama-url http://.*:11434 leads to this llm-queue itself"):
            await choose(settings, {}, places=PLACES)
    with pytest.raises(NoUpstream, match=r"--upstream-url http://.*:11434 leads to this llm-queue itself"):
        await choose(Settings(upstream_url=url), {}, places=PLACES)


async def test_in_ollama_s_place_one_must_say_where_ollama_is(machine: Machine) -> None:
    machine.ollama_at("http://localhost:11434")
    for settings in (Settings(), Settings(engine="ollama")):
        with pytest.raises(NoUpstream, match=r"where Ollama is looked for.*Say with --ollama-url"):
            await choose(settings, machine.environ, places=PLACES)
    machine.install()
    machine.command("ollama")
    with pytest.raises(NoUpstream, match="where Ollama is looked for"):
        await choose(Settings(), machine.environ, places=PLACES)


async def test_where_no_ollama_ever_was_the_embedded_engine_may_take_its_place(machine: Machine) -> None:
    machine.ollama_at("http://localhost:11434")
    machine.install()
    engine = await choose(Settings(), machine.environ, places=PLACES)
    assert isinstance(engine.upstream, Embedded)
    assert "our own address" in engine.notes[0]
