"""The catalogue: what it remembers, and how few questions it asks."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from llm_queue.errors import (
    ConnectionLost,
    ModelNotFound,
    QueueError,
    UpstreamBroke,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.testing import ScriptedUpstream
from llm_queue.testing.scripted import scripted_model
from llm_queue.upstream.catalog import Catalog, canonical
from llm_queue.upstream.protocol import Model

GRANITE = scripted_model("granite:8b")


class SlowUpstream(ScriptedUpstream):
    """Takes a second for each question."""

    async def models(self) -> list[Model]:
        models = await super().models()
        await trio.sleep(1)
        return models

    async def describe(self, model: Model) -> Model:
        described = await super().describe(model)
        await trio.sleep(1)
        return described


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("granite", "granite:latest"),
        ("Granite:8B", "granite:8b"),
        ("library/granite:8b", "granite:8b"),
        ("hf.co/Some/Model", "hf.co/some/model:latest"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
    ],
)
def test_names_are_compared_as_ollama_compares_them(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


async def test_a_model_that_runs_elsewhere_costs_no_question_and_needs_no_list() -> None:
    upstream = ScriptedUpstream(known=[GRANITE])
    upstream.down = True
    found = await Catalog(upstream).resolve("large:cloud")
    assert (found.name, found.remote) == ("large:cloud", True)
    assert upstream.questions == []


async def test_what_is_listed_or_described_as_running_elsewhere_does_so() -> None:
    listed = msgspec.structs.replace(GRANITE, name="mine", identity="listed", remote=True)

    class Described(ScriptedUpstream):
        async def describe(self, model: Model) -> Model:
            return msgspec.structs.replace(await super().describe(model), remote=model.name == "shown")

    catalog = Catalog(Described(known=[GRANITE, listed, scripted_model("shown")]))
    names = ("granite:8b", "mine", "shown")
    assert [(await catalog.resolve(name)).remote for name in names] == [False, True, True]
    assert [model.remote for model in map(catalog.lookup, names) if model] == [False, True, True]


async def test_a_known_name_costs_no_question() -> None:
    upstream = ScriptedUpstream(known=[GRANITE, scripted_model("other")])
    catalog = Catalog(upstream)
    assert catalog.lookup("granite:8b") is None
    model = await catalog.resolve("Granite:8b")
    assert model == GRANITE
    assert upstream.questions == ["models", "describe"]
    assert await catalog.resolve("granite:8b") == catalog.lookup("granite:8b") == GRANITE
    assert len(upstream.questions) == 2
    assert [known.name for known in catalog.models()] == ["granite:8b", "other"]


async def test_two_names_of_the_same_weights_are_described_once() -> None:
    alias = msgspec.structs.replace(GRANITE, name="mine")
    upstream = ScriptedUpstream(known=[GRANITE, alias])
    catalog = Catalog(upstream)
    assert (await catalog.resolve("granite:8b")).name == "granite:8b"
    assert await catalog.resolve("mine") == alias
    assert upstream.questions == ["models", "describe"]


async def test_an_unknown_name_is_not_found_and_says_what_is_there() -> None:
    upstream = ScriptedUpstream(known=[scripted_model(f"m{number}") for number in range(25)])
    with pytest.raises(ModelNotFound, match=r"model 'nope' not found. There are: m0, .*m19 and 5 more") as raised:
        await Catalog(upstream).resolve("nope")
    assert raised.value.param == "model"


async def test_a_model_that_was_pulled_since_is_found() -> None:
    upstream = ScriptedUpstream(known=[])
    catalog = Catalog(upstream)
    with pytest.raises(ModelNotFound, match="no models yet"):
        await catalog.resolve("granite:8b")
    upstream.known.append(GRANITE)
    assert await catalog.resolve("granite:8b") == GRANITE


async def test_a_model_is_missing_when_its_name_is_not_listed_any_more() -> None:
    upstream = ScriptedUpstream(known=[GRANITE, scripted_model("other")])
    catalog = Catalog(upstream, [("gpt-4", "granite:8b")])
    await catalog.refresh()
    assert await catalog.missing(GRANITE, "gpt-4") is None
    upstream.known = [scripted_model("other")]
    gone = await catalog.missing(GRANITE, "gpt-4")
    assert gone is not None
    assert gone.message.startswith("model 'gpt-4' not found, and neither is 'granite:8b'")
    assert catalog.lookup("granite:8b") is None


async def test_a_model_that_was_deleted_before_it_was_described_is_not_found() -> None:
    upstream = ScriptedUpstream(known=[GRANITE])
    catalog = Catalog(upstream)
    await catalog.refresh()
    upstream.known.clear()
    with pytest.raises(ModelNotFound):
        await catalog.resolve("granite:8b")
    assert catalog.models() == []


async def test_new_weights_under_an_old_name_are_described_anew() -> None:
    upstream = ScriptedUpstream(known=[GRANITE])
    catalog = Catalog(upstream)
    await catalog.resolve("granite:8b")
    newer = msgspec.structs.replace(GRANITE, identity="newer", trained=4096)
    upstream.known[:] = [newer]
    await catalog.refresh()
    assert catalog.lookup("granite:8b") is None
    assert await catalog.resolve("granite:8b") == newer


async def test_misses_at_the_same_time_share_one_question(autojump_clock: trio.testing.MockClock) -> None:
    upstream = SlowUpstream(known=[GRANITE])
    catalog = Catalog(upstream)
    found: list[Model] = []

    async def resolve() -> None:
        found.append(await catalog.resolve("granite:8b"))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(resolve)
    assert found == [GRANITE] * 50
    assert upstream.questions == ["models", "describe"]
    assert trio.current_time() == pytest.approx(2)


@pytest.mark.parametrize("after", [0.5, 1.5])
async def test_one_who_leaves_while_asking_does_not_break_the_others(
    after: float, autojump_clock: trio.testing.MockClock
) -> None:
    upstream = SlowUpstream(known=[GRANITE])
    catalog = Catalog(upstream)
    found: list[Model] = []

    async def leave() -> None:
        with trio.move_on_after(after):
            found.append(await catalog.resolve("granite:8b"))

    async def stay() -> None:
        await trio.sleep(0.1)  # so that the one who leaves is the one who asks
        found.append(await catalog.resolve("granite:8b"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        for _ in range(3):
            nursery.start_soon(stay)
    assert found == [GRANITE] * 3
    assert len(upstream.questions) == 3  # the one that was given up is asked again


async def test_an_outage_is_told_to_all_who_ask(autojump_clock: trio.testing.MockClock) -> None:
    class Dying(SlowUpstream):
        async def models(self) -> list[Model]:
            self.questions.append("models")
            await trio.sleep(1)
            raise UpstreamUnreachable

    upstream = Dying(known=[GRANITE])
    catalog = Catalog(upstream)
    errors: list[QueueError] = []

    async def resolve() -> None:
        try:
            await catalog.resolve("granite:8b")
        except UpstreamUnreachable as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(resolve)
    assert len({id(error) for error in errors}) == 3
    assert upstream.questions == ["models"]


class Reticent(ScriptedUpstream):
    """Has a ``secret`` that it cannot describe, and one that is ``gone`` since it was listed."""

    async def describe(self, model: Model) -> Model:
        described = await super().describe(model)
        if model.name == "secret":
            raise UpstreamBroke
        if model.name == "gone":
            raise UpstreamRefused(status=404)
        return described


async def test_all_models_are_described_once_and_those_that_cannot_be_are_asked_about_once() -> None:
    upstream = Reticent(known=[scripted_model(name) for name in ("a", "secret", "gone", "b")])
    catalog = Catalog(upstream)
    await catalog.describe_all()
    assert upstream.questions == []
    await catalog.refresh()
    await catalog.describe_all()
    assert upstream.questions == ["models", *["describe"] * 4]
    await catalog.describe_all()
    assert len(upstream.questions) == 5
    assert [model.name for model in catalog.models() if catalog.lookup(model.name)] == ["a", "b"]
    assert [model.name for model in catalog.models()] == ["a", "secret", "b"]
    upstream.known.append(scripted_model("c"))
    await catalog.refresh()
    await catalog.describe_all()
    assert upstream.questions.count("describe") == 5
    assert catalog.lookup("c")


async def test_new_weights_of_what_could_not_be_described_are_asked_about() -> None:
    upstream = Reticent(known=[scripted_model("secret")])
    catalog = Catalog(upstream)
    await catalog.refresh()
    await catalog.describe_all()
    upstream.known[:] = [msgspec.structs.replace(upstream.known[0], identity="newer")]
    await catalog.refresh()
    await catalog.describe_all()
    assert upstream.questions.count("describe") == 2


@pytest.mark.parametrize("failure", [UpstreamUnreachable(), UpstreamBusy(), ConnectionLost()])
async def test_an_outage_says_nothing_of_the_models(failure: QueueError) -> None:
    class Away(ScriptedUpstream):
        async def describe(self, model: Model) -> Model:
            if self.questions.count("describe") == 0:
                self.questions.append("describe")
                raise failure
            return await super().describe(model)

    upstream = Away(known=[scripted_model("a"), scripted_model("b")])
    catalog = Catalog(upstream)
    await catalog.refresh()
    await catalog.describe_all()
    assert upstream.questions == ["models", "describe"]
    await catalog.describe_all()
    assert catalog.lookup("a")
    assert catalog.lookup("b")


async def test_describing_all_ends_in_time_and_goes_on_the_next_time(autojump_clock: trio.testing.MockClock) -> None:
    catalog = Catalog(SlowUpstream(known=[scripted_model(f"m{number}") for number in range(3)]))
    await catalog.refresh()
    began = trio.current_time()
    await catalog.describe_all()
    assert trio.current_time() - began == pytest.approx(2)
    assert [bool(catalog.lookup(model.name)) for model in catalog.models()] == [True, False, False]
    await catalog.describe_all()
    assert catalog.lookup("m1")


async def test_what_is_known_stays_known_through_an_outage() -> None:
    upstream = ScriptedUpstream(known=[GRANITE])
    catalog = Catalog(upstream)
    await catalog.resolve("granite:8b")
    upstream.down = True
    assert await catalog.resolve("granite:8b") == GRANITE
    with pytest.raises(UpstreamUnreachable):
        await catalog.refresh()
    assert catalog.lookup("granite:8b") == GRANITE
