"""Names that stand for models: which one answers, and what a 404 advises."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from llm_queue.errors import ModelNotFound
from llm_queue.testing import ScriptedUpstream
from llm_queue.testing.scripted import scripted_model
from llm_queue.upstream.aliases import Aliases, advice
from llm_queue.upstream.catalog import TRUST, Catalog

QWEN, SMALL = scripted_model("qwen3:8b"), scripted_model("small:latest")

ALIASES = Aliases(
    [("*", "any"), ("claude-*", "claude"), ("claude-haiku-*", "never"), ("Claude-Haiku-4-5", "haiku"), ("o[34]", "o")]
)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("claude-haiku-4-5", "haiku"),
        ("CLAUDE-HAIKU-4-5:latest", "haiku"),
        (" claude-sonnet-4-5 ", "claude"),
        ("claude-haiku-3", "claude"),
        ("o3", "o"),
        ("o3-mini", "any"),
        ("claude", "any"),
    ],
)
def test_an_exact_name_goes_before_patterns_and_a_star_comes_last(name: str, model: str) -> None:
    found = ALIASES.find(name)
    assert found is not None
    assert found[1] == model


def test_without_a_star_other_names_have_no_alias() -> None:
    assert Aliases([("claude-*", "x")]).find("gpt-4o") is None
    assert Aliases().find("gpt-4o") is None


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("claude-haiku-4-5", "claude-*"),
        ("gpt-4o-mini", "gpt-*"),
        ("chatgpt-4o-latest", "chatgpt-*"),
        ("o3", "o3"),
        ("o4-mini", "o4-*"),
        ("gemini-2.5-pro", "gemini-*"),
        ("Grok-4", "Grok-*"),
        ("text-embedding-3-small", "text-embedding-*"),
    ],
)
def test_a_name_of_a_hosted_service_is_told_of_the_setting(name: str, pattern: str) -> None:
    assert f"--alias '{pattern}=small'" in advice(name, "small")
    assert Aliases([(pattern, "small")]).find(name)


@pytest.mark.parametrize(
    "name", ["llama3.2", "gpt-oss:20b", "gpt-j", "gptx", "o33", "orca", "claudette", "", "qwen3:8b"]
)
def test_other_names_are_not(name: str) -> None:
    assert advice(name, "small") == ""


# --- in the catalogue -------------------------------------------------------------------------------------------------


def catalog(*pairs: tuple[str, str]) -> Catalog:
    return Catalog(ScriptedUpstream(known=[QWEN, SMALL]), pairs)


async def test_an_alias_leads_to_its_model_under_the_model_s_own_name() -> None:
    known = catalog(("claude-*", "Qwen3:8B"))
    assert await known.resolve("claude-haiku-4-5") == QWEN


async def test_a_model_that_is_there_wins_over_an_alias_of_its_name() -> None:
    assert await catalog(("small", "qwen3:8b"), ("*", "qwen3:8b")).resolve("small") == SMALL


async def test_no_name_is_the_first_model_and_no_alias() -> None:
    assert await catalog(("*", "small")).resolve("") == QWEN


async def test_aliases_make_no_chain() -> None:
    with pytest.raises(ModelNotFound):
        await catalog(("a", "b"), ("b", "small")).resolve("a")


async def test_an_alias_costs_a_question_now_and_then_and_a_model_that_was_pulled_since_is_found(
    autojump_clock: trio.testing.MockClock,
) -> None:
    known = catalog(("claude-*", "small"))
    upstream = known.upstream
    assert isinstance(upstream, ScriptedUpstream)
    for _ in range(5):
        assert await known.resolve("claude-x") == SMALL
    assert upstream.questions == ["models", "describe"]
    pulled = scripted_model("claude-x")
    upstream.known.append(pulled)
    await trio.sleep(TRUST)
    assert await known.resolve("claude-x") == pulled


async def test_an_alias_of_a_model_that_is_not_there_says_both() -> None:
    with pytest.raises(
        ModelNotFound, match=r"'claude-x' not found, and neither is 'big', which --alias claude-\*=big "
    ) as no:
        await catalog(("claude-*", "big")).resolve("claude-x")
    assert "There are: qwen3:8b, small:latest" in no.value.message
    assert "To have another" not in no.value.message


async def test_a_name_of_a_hosted_service_without_an_alias_is_told_of_the_setting() -> None:
    with pytest.raises(
        ModelNotFound, match=r"There are: .*start llm-queue with --alias 'gpt-\*=qwen3:8b'\. The script"
    ):
        await catalog().resolve("gpt-4o")
    with pytest.raises(ModelNotFound) as no:
        await Catalog(ScriptedUpstream(known=[])).resolve("gpt-4o")
    assert "--alias" not in no.value.message


async def test_the_advice_names_the_engine_s_default_model_if_that_is_there() -> None:
    upstream = ScriptedUpstream(known=[QWEN, SMALL], default_model="small")
    with pytest.raises(ModelNotFound, match=r"'gpt-\*=small:latest'"):
        await Catalog(upstream).resolve("gpt-4o")


async def test_a_list_has_the_aliases_that_are_whole_names_of_models_that_are_there() -> None:
    known = catalog(("claude-local", "small"), ("claude-*", "small"), ("qwen3:8b", "small"), ("gone", "nowhere"))
    await known.refresh()
    assert [model.name for model in known.models()] == ["qwen3:8b", "small:latest", "claude-local"]
    assert known.models()[2].identity == SMALL.identity
