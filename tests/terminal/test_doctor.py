"""What the doctor makes of a machine: each finding, what mends it, and what is left alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest

from llm_queue import running
from llm_queue.processes.connected import HIDDEN, Program
from llm_queue.settings import Settings, load
from llm_queue.terminal.desk import Asked, Desk
from llm_queue.terminal.doctor import doctor, told
from llm_queue.terminal.facts import Facts, LoadedNow, OllamaFacts, Sources, gather
from llm_queue.terminal.findings import Finding, findings, mend
from llm_queue.terminal.line import Line
from llm_queue.terminal.paper import Paper
from llm_queue.terminal.shapes import Bypass, LoadedModel, Paused, Queue, Upstream
from tests.terminal.desks import NOBODY, FakeService, Stream

SERVICE = Program(7, "llm_queue")
GIB = 2**30

WELL = Facts(
    url="http://127.0.0.1:11500",
    port=11500,
    queue=Queue(upstream=Upstream(name="Ollama", url="http://localhost:11434")),
    upstream_url="http://localhost:11434",
    ollama=OllamaFacts(version="0.33.0"),
    listening={"127.0.0.1": SERVICE, "::1": SERVICE},
    upstream_listening={"127.0.0.1": Program(3, "/usr/bin/ollama")},
    variables={"process 3": {}},
    memory=64 * GIB,
)


def found(**changes: Any) -> list[Finding]:
    return findings(dataclasses.replace(WELL, **changes))


def trouble(**changes: Any) -> list[Finding]:
    return [one for one in found(**changes) if one.level != "ok"]


def the_one(**changes: Any) -> Finding:
    (finding,) = trouble(**changes)
    return finding


def with_variables(**values: str) -> dict[str, Any]:
    return {"variables": {"process 3": values}}


def test_where_all_is_well_nothing_is_to_be_mended() -> None:
    assert trouble() == []
    assert {one.topic for one in found()} == {"service", "port", "engine", "bypass", "settings", "memory"}
    assert not any(one.command for one in found())


def test_every_trouble_has_the_command_that_mends_it() -> None:
    assert all(one.command for facts in EVERY for one in trouble(**facts) if one.is_trouble)


# --- the service ---


def test_no_service_is_started_with_a_command() -> None:
    first = trouble(queue=None, listening={}, asked="No service answers")[0]
    assert (first.level, first.command) == ("error", "llm-queue serve")


def test_another_program_at_our_port_is_named() -> None:
    other = Program(9, "/home/ada/web.py")
    finding = the_one(queue=None, listening={"127.0.0.1": other, "::1": other}, asked="What answers is no llm-queue")
    assert "/home/ada/web.py (process 9)" in finding.text
    assert finding.command == "llm-queue serve --port 11501"


def test_a_service_that_asks_for_a_key_is_no_stranger() -> None:
    finding = the_one(queue=None, asked="The service asks for a key: give it")
    assert (finding.topic, finding.level) == ("service", "error")


def test_a_service_that_cannot_serve_says_why() -> None:
    away = Queue(upstream=Upstream(name="Ollama", url="http://localhost:11434", away="Ollama is not there"))
    first, second = trouble(queue=away, ollama=None, starter="system unit")
    assert "Ollama is not there" in first.text
    assert first.command == second.command == "sudo systemctl start ollama"


def test_a_pause_is_something_to_mend() -> None:
    assert the_one(queue=dataclasses_queue(paused=Paused())).command == "llm-queue resume"


def dataclasses_queue(**fields: Any) -> Queue:
    return Queue(upstream=Upstream(name="Ollama", url="http://localhost:11434"), **fields)


def test_another_program_on_the_other_loopback_address_is_found() -> None:
    finding = the_one(listening={"127.0.0.1": SERVICE, "::1": Program(9, "web.py")})
    assert finding.level == "warning"
    assert "[::1]:11500 belongs to web.py (process 9)" in finding.text


def test_a_loopback_address_that_nobody_has_is_worth_a_note() -> None:
    assert the_one(listening={"127.0.0.1": SERVICE}).level == "note"


def test_all_addresses_have_the_loopback_ones_in_them() -> None:
    assert trouble(listening={"0.0.0.0": SERVICE, "::": SERVICE}) == []
    assert trouble(listening={"127.0.0.1": SERVICE}, both_loopbacks=False) == []


# --- the engine ---


def test_an_ollama_that_is_not_there_is_started_as_it_is_started_here() -> None:
    for starter, platform, command in (
        ("hand", "linux", "ollama serve"),
        ("user unit", "linux", "systemctl --user start ollama"),
        ("app", "darwin", "open -a Ollama"),
    ):
        assert the_one(ollama=None, starter=starter, platform=platform).command == command


def test_what_is_loaded_is_said() -> None:
    loaded = OllamaFacts(version="0.33.0", loaded=[LoadedNow(name="m", size_vram=GIB, context_length=8192)])
    assert "It has loaded: m (context 8,192, 1.0 GiB)." in [one.text for one in found(ollama=loaded)]


def test_another_engine_is_no_reason_to_look_for_ollama() -> None:
    facts = found(upstream="Embedded", upstream_url="in a process", ollama=None, variables={}, upstream_listening={})
    assert all(one.level == "ok" for one in facts)
    assert any("Embedded" in one.text for one in facts)
    queue = Queue(upstream=Upstream(name="Embedded"), models=[LoadedModel(name="small", num_ctx=8192, size_bytes=GIB)])
    facts = found(queue=queue, upstream="Embedded", ollama=None, variables={})
    assert "It has loaded: small (context 8,192, 1.0 GiB)." in [one.text for one in facts]
    unsaid = [LoadedModel(name="small", num_ctx=8192), LoadedModel(name="mute")]
    facts = found(queue=Queue(models=unsaid), upstream="Embedded", ollama=None, variables={})
    assert "It has loaded: small (context 8,192), mute." in [one.text for one in facts]


def test_two_lines_in_a_row_are_found() -> None:
    assert "two lines in a row" in the_one(ollama=OllamaFacts(version="0.33.0", is_a_line=True)).text


def test_an_ollama_that_other_machines_can_reach_is_worth_a_note() -> None:
    finding = the_one(upstream_listening={"::": Program(3, "ollama")})
    assert (finding.level, finding.command) == ("note", "OLLAMA_HOST=127.0.0.1:11434 ollama serve")


# --- bypass ---


def test_a_program_that_goes_past_the_line_is_named_with_its_process() -> None:
    finding = the_one(connected=[Program(12, "/home/ada/chat.py", 3)])
    assert finding.level == "warning"
    assert "/home/ada/chat.py (process 12) has 3 connections to Ollama past the line" in finding.text


def test_programs_are_brought_to_the_line_as_its_place_allows() -> None:
    program = [Program(12, "chat.py")]
    assert the_one(connected=program).command == "llm-queue service install --take-over"
    moved = the_one(connected=program, upstream_url="http://localhost:11435")
    assert moved.command == "export OLLAMA_HOST=127.0.0.1:11500"


@pytest.mark.parametrize("name", ["llm_queue", "/home/ada/.local/bin/llm-queue", "/x/llm_queue/__main__.py"])
def test_two_lines_in_front_of_one_ollama_are_an_error(name: str) -> None:
    finding = the_one(connected=[Program(12, name)])
    assert (finding.level, finding.command) == ("error", "kill 12")
    assert "Two lines" in finding.text


def test_a_service_of_another_user_does_not_go_past_itself() -> None:
    hidden = {"127.0.0.1": Program(None, HIDDEN), "::1": Program(None, HIDDEN)}
    assert trouble(listening=hidden, connected=[Program(None, HIDDEN)]) == []
    assert the_one(connected=[Program(None, HIDDEN)]).level == "warning"


def test_without_a_service_nobody_goes_past_it() -> None:
    last = trouble(queue=None, listening={}, connected=[Program(12, "chat.py")])[-1]
    assert last.level == "note"


def test_what_the_line_has_noticed_is_passed_on() -> None:
    finding = the_one(queue=dataclasses_queue(bypass=Bypass(reason="a model was loaded past the line", program="x")))
    assert "a model was loaded past the line, by x" in finding.text


# --- settings ---


@pytest.mark.parametrize(
    ("name", "value", "level", "better"),
    [
        ("OLLAMA_NUM_PARALLEL", "4", "warning", "OLLAMA_NUM_PARALLEL=1 ollama serve"),
        ("OLLAMA_NUM_PARALLEL", "1", None, None),
        ("OLLAMA_NUM_PARALLEL", "many", None, None),
        ("OLLAMA_MAX_LOADED_MODELS", "1", "note", "env -u OLLAMA_MAX_LOADED_MODELS ollama serve"),
        ("OLLAMA_MAX_LOADED_MODELS", "2", None, None),
        ("OLLAMA_CONTEXT_LENGTH", "4096", "note", "OLLAMA_CONTEXT_LENGTH=8192 ollama serve"),
        ("OLLAMA_CONTEXT_LENGTH", "8192", None, None),
        ("OLLAMA_KEEP_ALIVE", "5m", "note", None),
        ("OLLAMA_MAX_QUEUE", "1", "note", "env -u OLLAMA_MAX_QUEUE ollama serve"),
        ("OLLAMA_MAX_QUEUE", "512", None, None),
        ("LLAMA_ARG_CACHE_RAM", "0", "warning", "env -u LLAMA_ARG_CACHE_RAM ollama serve"),
        ("LLAMA_ARG_CACHE_RAM", "1024", None, None),
        ("LLAMA_ARG_CACHE_RAM", "-1", "warning", "LLAMA_ARG_CACHE_RAM=5376 ollama serve"),
        ("LLAMA_ARG_THREADS", "2", "note", None),
        ("OLLAMA_DEBUG", "1", None, None),
    ],
)
def test_a_setting_at_odds_with_the_line_is_found_and_a_better_one_said(
    name: str, value: str, level: str | None, better: str | None
) -> None:
    facts = trouble(**with_variables(**{name: value}))
    assert [(one.level, one.command) for one in facts] == ([] if level is None else [(level, better)])
    assert all(f"{name}={value}" in one.text for one in facts)


def test_another_context_size_matters_more_when_somebody_goes_past_the_line() -> None:
    facts = trouble(connected=[Program(12, "x")], **with_variables(OLLAMA_CONTEXT_LENGTH="4096"))
    assert [one.level for one in facts if one.topic == "settings"] == ["warning"]


@pytest.mark.parametrize(
    ("memory", "version", "values", "level"),
    [
        (64 * GIB, "0.33.0", {}, "ok"),
        (32 * GIB, "0.33.0", {}, "note"),
        (12 * GIB, "0.33.0", {}, "warning"),
        (12 * GIB, "0.24.0", {}, None),
        (12 * GIB, "0.0.0", {}, "warning"),
        (12 * GIB, "", {}, None),
        (12 * GIB, "0.33.0", {"LLAMA_ARG_CACHE_RAM": "1024"}, "ok"),
        (24 * GIB, "0.33.0", {"OLLAMA_MAX_LOADED_MODELS": "2"}, "note"),
    ],
)
def test_the_memory_that_prompts_may_take_is_held_against_the_machines(
    memory: int, version: str, values: dict[str, str], level: str | None
) -> None:
    facts = found(memory=memory, ollama=OllamaFacts(version=version), **with_variables(**values))
    assert [one.level for one in facts if one.topic == "memory"] == ([level] if level else [])


@pytest.mark.parametrize(
    ("starter", "platform", "value", "command"),
    [
        ("hand", "linux", "1", "X=1 ollama serve"),
        ("app", "darwin", "1", "launchctl setenv X 1"),
        ("app", "darwin", None, "launchctl unsetenv X"),
        ("app", "win32", "1", "setx X 1"),
        ("app", "win32", None, 'setx X ""'),
        (
            "system unit",
            "linux",
            "1",
            "sudo mkdir -p /etc/systemd/system/ollama.service.d && printf '%s\\n' '[Service]' 'Environment=\"X=1\"' | "
            "sudo tee /etc/systemd/system/ollama.service.d/zz-llm-queue-x.conf && sudo systemctl daemon-reload && "
            "sudo systemctl restart ollama",
        ),
        (
            "user unit",
            "linux",
            None,
            "mkdir -p ~/.config/systemd/user/ollama.service.d && printf '%s\\n' '[Service]' 'UnsetEnvironment=X' | "
            "tee ~/.config/systemd/user/ollama.service.d/zz-llm-queue-x.conf && systemctl --user daemon-reload && "
            "systemctl --user restart ollama",
        ),
    ],
)
def test_a_variable_is_set_where_ollama_gets_it_from(
    starter: Any, platform: str, value: str | None, command: str
) -> None:
    assert mend(dataclasses.replace(WELL, starter=starter, platform=platform), "X", value) == command


EVERY: Sequence[dict[str, Any]] = (
    {"queue": None, "listening": {}},
    {"queue": dataclasses_queue(paused=Paused(), bypass=Bypass(reason="r"))},
    {"ollama": None},
    {"ollama": OllamaFacts(is_a_line=True)},
    {"listening": {"127.0.0.1": SERVICE, "::1": Program(9, "web.py")}},
    {"connected": [Program(12, "llm-queue"), Program(13, "x"), Program(None, HIDDEN)]},
    with_variables(OLLAMA_NUM_PARALLEL="2", LLAMA_ARG_CACHE_RAM="-1"),
)


# --- the facts ---


def ollama(request: httpx.Request) -> httpx.Response:
    answers = {
        "/api/version": {"version": "0.33.0"},
        "/api/ps": {"models": [{"name": "m", "size": 5, "size_vram": 0, "context_length": 4096}]},
    }
    said = answers.get(request.url.path)
    return httpx.Response(200, json=said) if said else httpx.Response(404, text="404 page not found")


UNIT = "LoadState=loaded\nActiveState=active\nEnvironment=OLLAMA_NUM_PARALLEL=4 'OLLAMA_HOST=0.0.0.0' PATH=/bin\n"


class Machine:
    """A machine with an Ollama, whose process may be asked or not."""

    def __init__(self, environment: Mapping[str, str] | None = None, unit: str = "", platform: str = "linux") -> None:
        self.environment = environment
        self.unit = unit
        self.besides: set[int] = set()
        self.sources = Sources(
            listening=lambda port: {11500: {"127.0.0.1": SERVICE}, 11434: {"127.0.0.1": Program(3, "ollama")}}.get(
                port, {}
            ),
            connected=self.connected,
            environment=lambda process: dict(self.environment) if self.environment is not None else None,
            query=lambda words: "" if "--user" in words else self.unit,
            memory=lambda: 64 * GIB,
            platform=platform,
            transport=httpx.MockTransport(ollama),
        )

    def connected(self, host: str, port: int, besides: Any) -> list[Program]:
        self.besides = set(besides)
        return [Program(12, "chat.py")]

    async def gather(self, service: FakeService, settings: Settings | None = None) -> Facts:
        settings = settings or Settings()
        async with running.client(running.address(settings), settings, service.transport) as http:
            return await gather(Line(http), settings, self.sources)


async def test_the_variables_of_the_process_go_before_those_of_its_unit() -> None:
    machine = Machine({"OLLAMA_NUM_PARALLEL": "2", "LLAMA_ARG_CACHE_RAM": "'512'", "HOME": "/"}, UNIT)
    facts = await machine.gather(FakeService())
    assert facts.variables == {"process 3": {"OLLAMA_NUM_PARALLEL": "2", "LLAMA_ARG_CACHE_RAM": "512"}}
    assert facts.starter == "system unit"
    assert facts.ollama == OllamaFacts(version="0.33.0", loaded=(LoadedNow(name="m", size=5, context_length=4096),))
    assert 7 in machine.besides, "the service itself goes not past itself"
    assert facts.connected == [Program(12, "chat.py")]


async def test_where_the_process_may_not_be_asked_its_unit_is() -> None:
    facts = await Machine(None, UNIT).gather(FakeService())
    assert facts.variables == {"its system unit": {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_HOST": "0.0.0.0"}}


async def test_without_a_service_the_ollama_of_the_settings_is_looked_at() -> None:
    machine = Machine({})
    facts = await machine.gather(FakeService(NOBODY), load({}, {"OLLAMA_URL": "localhost:11434", "PORT": "11500"}))
    assert facts.queue is None
    assert "llm-queue serve" in facts.asked
    assert facts.ollama is not None
    assert 7 not in machine.besides


async def test_an_ollama_of_another_machine_has_no_variables_here() -> None:
    line = {"upstream": {"name": "Ollama", "url": "http://192.0.2.7:11434"}}
    facts = await Machine({"OLLAMA_NUM_PARALLEL": "2"}, UNIT).gather(FakeService({"GET /queue": line}))
    assert facts.variables == {}


async def test_an_engine_that_is_none_of_ollamas_is_not_asked() -> None:
    line = {"upstream": {"name": "llama.cpp", "url": "a process of its own"}}
    facts = await Machine({}).gather(FakeService({"GET /queue": line}))
    assert (facts.ollama, facts.connected, facts.upstream_port) == (None, [], 0)


async def test_a_line_behind_the_line_is_known_by_its_own_answers() -> None:
    def another(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"ready": True, "version": "0.33.0", "models": "none"})

    machine = Machine({}, platform="darwin")
    machine.sources = dataclasses.replace(machine.sources, transport=httpx.MockTransport(another))
    facts = await machine.gather(FakeService())
    assert facts.ollama == OllamaFacts(version="0.33.0", is_a_line=True)
    assert facts.starter == "app"


@pytest.mark.parametrize("answer", [httpx.Response(500), httpx.Response(200, text="<html>")])
async def test_what_answers_otherwise_is_no_ollama(answer: httpx.Response) -> None:
    machine = Machine({})
    machine.sources = dataclasses.replace(machine.sources, transport=httpx.MockTransport(lambda request: answer))
    assert (await machine.gather(FakeService())).ollama is None


# --- what is said ---


async def run_doctor(machine: Machine, *, json_wanted: bool = False) -> tuple[int, str]:
    out = Stream()
    async with running.client(
        "http://127.0.0.1:11500", Settings(), FakeService({"GET /queue": CLEAN}).transport
    ) as http:
        desk = Desk(Line(http), Settings(), Asked(json=json_wanted), {}, out, Stream())
        return await doctor(desk, machine.sources), out.text


CLEAN = {"upstream": {"name": "Ollama", "url": "http://localhost:11434"}}


async def test_the_code_is_1_where_something_is_to_be_mended_and_0_where_not() -> None:
    machine = Machine({})
    code, text = await run_doctor(machine)
    assert code == 1
    assert "1 thing to mend." in text
    assert "$ llm-queue service install --take-over" in text
    machine.sources = dataclasses.replace(machine.sources, connected=lambda host, port, besides: [])
    code, text = await run_doctor(machine)
    assert code == 0
    assert "All is well." in text


async def test_as_json_each_finding_is_an_object() -> None:
    code, text = await run_doctor(Machine({}), json_wanted=True)
    assert code == 1
    said = json.loads(text)
    assert {tuple(one) for one in said} == {("level", "topic", "text", "command")}
    assert [one["topic"] for one in said if one["level"] == "warning"] == ["bypass"]


def test_findings_fit_the_paper_and_commands_stay_whole() -> None:
    long = Finding("warning", "x", "word " * 40, "command " * 30)
    lines = Paper(width=80).lines(told([long], 80)).split("\n")
    assert [line for line in lines if len(line) > 80] == [f"        $ {'command ' * 30}".rstrip()]
