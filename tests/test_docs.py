"""The documentation tells the truth: what is drawn from the code is fresh, and what can be asked for is explained."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import openai
import pytest
import trio
import trio.testing

import llm_queue
from llm_queue import errors
from llm_queue.core.jobs import State
from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import QueueError
from llm_queue.settings import Settings, knobs
from llm_queue.testing.fake_ollama.behaviour import read_directives
from llm_queue.upstream.embedded import kept
from llm_queue.upstream.native import IDLE
from llm_queue.web.app import create_quart
from llm_queue.web.stream import QUIET
from llm_queue.wire.callers import ollama_shapes
from llm_queue.wire.callers import openai_shapes as shapes
from llm_queue.wire.callers.dialect import Progress, RequestLimits, Served
from llm_queue.wire.callers.ollama_request import NO_TOKENS
from llm_queue.wire.callers.openai_completions import CompletionBody
from llm_queue.wire.callers.openai_embeddings import EmbeddingBody
from llm_queue.wire.callers.openai_models import ModelFacts, model_body
from llm_queue.wire.callers.openai_shapes import ChatBody
from llm_queue.wire.callers.responses import ResponsesEncoder
from llm_queue.wire.callers.responses_request import parse_response
from llm_queue.wire.callers.responses_shapes import ResponsesBody
from llm_queue.wire.shapes import Completion, Delta, ToolCall
from tests.harness import Harness, answer, line
from tests.web.conftest import FakeLine

ROOT = Path(__file__).resolve().parent.parent
CODE = Path(llm_queue.__file__).parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_DOCUMENTS = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```([a-z]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEADER = re.compile(r"(?i)\b(?:x-llm-queue-[a-z-]+[a-z]|x-request-id|x-should-retry|x-openwebui-user-id|retry-after)\b")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def load_generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generate()


def blocks(document: Path, language: str) -> Iterator[str]:
    return (text for kind, text in FENCE.findall(document.read_text(encoding="utf-8")) if kind == language)


def first_cells(text: str) -> list[str]:
    """What stands between backticks in the first column of its tables."""
    rows = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(CODE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


# --- what is drawn from the code ---


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_generated_parts_are_as_the_code_has_them(document: Path) -> None:
    assert generate.stale(document.read_text(encoding="utf-8")) == [], "run: python docs/generate.py write"


def test_every_part_that_can_be_drawn_stands_somewhere() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    assert set(re.findall(r"<!-- generated: ([a-z-]+) -->", text)) == set(generate.PARTS)
    assert text.count("<!-- generated: ") == text.count("<!-- end -->")


def test_a_part_that_differs_is_found_and_mended() -> None:
    old = "before\n<!-- generated: states -->\nan old table\n<!-- end -->\nafter\n"
    assert generate.stale(old) == ["states"]
    fresh = generate.refreshed(old)
    assert "`queued`" in fresh
    assert fresh.startswith("before\n")
    assert fresh.endswith("\nafter\n")
    assert generate.stale(fresh) == []


# --- everything that can be asked for is explained ---


def test_every_setting_is_named_with_its_flag_and_its_variable() -> None:
    text = text_of("docs/settings.md")
    for knob in knobs():
        assert f"`{knob.flag}`" in text
        assert f"`{knob.env}`" in text


def test_every_route_is_named_with_its_method() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    routes = list(create_quart(Settings(), FakeLine()).url_map.iter_rules())
    assert len(routes) > 5
    for route in routes:
        address = re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", route.rule)
        for method in (route.methods or set()) - {"HEAD", "OPTIONS"}:
            assert f"`{method} {address}`" in text


def section(name: str, title: str) -> str:
    """What stands under a heading of the second level."""
    return text_of(name).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


OPENAI_BODIES = [("Chats", ChatBody), ("Completions", CompletionBody), ("Embeddings", EmbeddingBody)]


@pytest.mark.parametrize(("title", "body"), OPENAI_BODIES)
def test_every_field_of_a_request_of_openai_is_named(title: str, body: type[msgspec.Struct]) -> None:
    named = first_cells(section("docs/openai.md", title))
    for field in msgspec.structs.fields(body):
        assert field.encode_name in named


@pytest.mark.parametrize(
    ("title", "params"),
    [
        ("Chats", openai.types.chat.completion_create_params.CompletionCreateParamsBase),
        ("Completions", openai.types.completion_create_params.CompletionCreateParamsBase),
        ("Embeddings", openai.types.EmbeddingCreateParams),
    ],
)
def test_every_field_that_openai_s_sdk_can_send_is_named(title: str, params: type) -> None:
    named = first_cells(section("docs/openai.md", title))
    assert len(params.__annotations__) > 4
    for field in params.__annotations__:
        assert field in named


def test_every_part_of_a_message_is_named() -> None:
    named = first_cells(section("docs/openai.md", "Chats"))
    for part in shapes.Part.__subclasses__():
        assert part.__struct_config__.tag in named


def test_every_field_of_a_model_is_named() -> None:
    text = section("docs/openai.md", "Models")
    facts = ModelFacts("m", 1, 8192, 131072, frozenset({"vision"}))
    model = json.loads(model_body(facts))
    for field in (*model, *model["meta"], *model["architecture"]):
        assert f"`{field}`" in text


def test_every_field_of_the_responses_dialect_is_named_and_no_other() -> None:
    request, _, rest = text_of("docs/responses.md").partition("### Items")
    named = [name for name in first_cells(request) if name != "field"]
    assert sorted(named) == sorted(field.encode_name for field in msgspec.structs.fields(ResponsesBody))
    told = set(re.findall(r"`(response\.[a-z_.]+)`", rest))
    assert told == events_of_responses()


def events_of_responses() -> set[str]:
    """Every type of event that an answer of this dialect can have."""
    tools = [{"type": "custom", "name": "patch"}]
    reply = parse_response(json.dumps({"input": "x", "tools": tools}).encode(), RequestLimits(64, 10, 10)).reply
    piece = Delta("text", thinking="thought", tool_calls=(ToolCall("f"), ToolCall("patch")))
    stream = b""
    for reason in ("stop", "length"):
        writer = ResponsesEncoder(reply, Served("m", 0))
        stream += writer.begin() + writer.waiting(Progress("queued")) + writer.pieces([piece])
        stream += writer.end(Completion(reason))
    stream += ResponsesEncoder(reply, Served("m", 0)).error(QueueError())
    return set(re.findall(r"^event: (.+)$", stream.decode(), re.MULTILINE))


def test_every_error_code_is_named_with_its_status() -> None:
    text = text_of("docs/http.md")
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, QueueError)]
    assert len(classes) > 15
    for kind in classes:
        assert re.search(rf"\| `{kind.code}` \| ({kind.status}|the upstream's own)", text)


def test_every_header_is_named() -> None:
    explained = "\n".join(first_cells(text_of("docs/http.md"))).lower()
    found: set[str] = set()
    for path, tree in trees():
        if path.parent.name == "web":
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                    value = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                    found.update(HEADER.findall(value))
    assert len({name.lower() for name in found}) > 10
    for name in found:
        assert re.search(rf"^{name.lower()}\b", explained, re.MULTILINE), name


def test_every_event_of_the_log_is_named() -> None:
    events = first_cells(text_of("docs/operations.md"))
    logged = {pattern for _, tree in trees() for node in ast.walk(tree) for pattern in logged_by(node)}
    assert {"rejected", "load\\ failed"} <= logged
    logged |= {kept.NOT_KEPT, kept.NOT_USED, kept.NOT_DELETED}  # by their names, there
    for pattern in logged | {state.value for state in State if state.ended and state is not State.SUCCEEDED}:
        assert any(re.fullmatch(pattern, event) for event in events), pattern


def logged_by(node: ast.AST) -> Iterator[str]:
    """Patterns of what a call of a logger says; what is below info is for ourselves."""
    if isinstance(node, ast.Call) and node.args:
        called = ast.unparse(node.func)
        if re.fullmatch(r"(self\.)?_?log(ger)?\.(info|warning|error|critical|exception)|level", called):
            said = node.args[0]
            for branch in (said.body, said.orelse) if isinstance(said, ast.IfExp) else (said,):
                pattern = pattern_of(branch)
                if pattern != ".*":
                    yield pattern


def pattern_of(said: ast.expr) -> str:
    match said:
        case ast.Constant(value=str() as text):
            return ".*".join(re.escape(piece) for piece in re.split(r"%[sd]", text))
        case ast.JoinedStr(values=values):
            return "".join(pattern_of(value) for value in values)
        case _:
            return ".*"


def report_of(harness: Harness, ticket: Ticket) -> dict[str, Any]:
    report = harness.dispatcher.find(ticket.job.id)
    assert report is not None
    return report.as_dict()


async def test_every_field_of_the_line_and_of_a_job_is_named(autojump_clock: trio.testing.MockClock) -> None:
    text = text_of("docs/operations.md")
    async with line() as harness:
        ticket, waiting = harness.submit(), harness.submit()
        status = harness.dispatcher.status().as_dict()
        jobs = [report_of(harness, one) for one in (ticket, waiting)]
        await answer(ticket)
        await answer(waiting)
        jobs += [report_of(harness, ticket)]
    explanation = jobs[0]["explanation"]
    more = (explanation, *explanation["picks"], *status["programs"], *status["models"], *status["lanes"].values())
    for record in (
        *more,
        status,
        *(value for value in status.values() if isinstance(value, dict)),
        *status["jobs"],
        *jobs,
    ):
        for name in record:
            assert f"`{name}`" in text, name


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"].get("optional-dependencies", {}).values():
        wanted += extra
    for group in project["dependency-groups"].values():
        wanted += [one for one in group if isinstance(one, str)]
    text = text_of("docs/dependencies.md")
    for requirement in wanted:
        name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
        assert f"`{name}`" in text, name


def test_every_directive_of_the_fake_is_understood_by_it() -> None:
    text = text_of("docs/testing.md")
    shown = re.findall(r"^  (![a-z0-9]+)", text, re.MULTILINE)
    assert len(shown) > 10
    for directive in shown:
        assert read_directives(f"{directive} 400 x") is not None


# --- what can be tried ---


def test_the_commands_of_the_readme_are_those_that_are_run() -> None:
    run, test = [block.strip() for block in blocks(ROOT / "README.md", "sh")][:2]
    assert test in text_of(".ci/run").splitlines()
    assert run in [block.strip() for block in blocks(ROOT / "docs" / "index.md", "sh")]
    assert run == "python3 -m pip install '.[embedded]' && python3 -m llm_queue"


@pytest.mark.parametrize("document", ALL_DOCUMENTS, ids=name_of)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def anchors(document: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", ALL_DOCUMENTS, ids=name_of)
def test_every_json_block_is_json_and_every_python_block_is_python(document: Path) -> None:
    for text in blocks(document, "json"):
        json.loads(text)
    for text in blocks(document, "python"):
        compile(text, name_of(document), "exec")


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time jumps when nothing moves, but leaves the kernel a moment to carry bytes from socket to socket."""
    return trio.testing.MockClock(autojump_threshold=0.02)


async def test_the_example_for_testing_a_program_works(clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    [example] = blocks(ROOT / "docs" / "testing.md", "python")
    names: dict[str, Any] = {}
    exec(compile(example, "docs/testing.md", "exec"), names)
    [test] = [value for name, value in names.items() if name.startswith("test_")]
    await test(nursery)


# --- Ollama's dialect ---


def test_every_field_and_option_of_ollamas_dialect_is_named() -> None:
    named = set(first_cells(text_of("docs/ollama.md")))
    for body in (
        ollama_shapes.ChatBody,
        ollama_shapes.GenerateBody,
        ollama_shapes.EmbedBody,
        ollama_shapes.EmbeddingsBody,
    ):
        for field in msgspec.structs.fields(body):
            assert field.encode_name in named, f"{field.encode_name} of {body.__name__}"
    for field in msgspec.structs.fields(ollama_shapes.Options):
        assert field.encode_name in named, f"the option {field.encode_name}"


def test_the_fields_named_for_ollamas_dialect_are_read() -> None:
    text = text_of("docs/ollama.md")
    table = text[text.index("## Requests") : text.index("## Answers")]
    shapes = (ollama_shapes.ChatBody, ollama_shapes.GenerateBody, ollama_shapes.EmbedBody, ollama_shapes.Options)
    read = {field.encode_name for shape in shapes for field in msgspec.structs.fields(shape)}
    assert set(first_cells(table)) - read == set()


def test_the_numbers_of_ollamas_dialect_are_the_codes() -> None:
    text = text_of("docs/ollama.md")
    assert f"0 is read as {NO_TOKENS}:" in text
    assert f"{IDLE / 60:g} minutes of silence" in text
    assert f"After {QUIET:g} s without a word" in text
    for name in ("OLLAMA_NUM_CTX", "--keep-alive", "--allow-ollama-admin", "LLM_QUEUE_ALLOW_OLLAMA_ADMIN"):
        assert name in text
