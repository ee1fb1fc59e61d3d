"""What every upstream promises, as checks that can be run against any.

An upstream of your own is right for the line if it passes all :data:`CHECKS`. Each is an async function that takes a
:class:`Subject` and raises ``AssertionError`` with what is not as :mod:`llm_queue.upstream.protocol` promises::

    @pytest.mark.parametrize("check", CHECKS)
    async def test_my_upstream_keeps_its_promises(check):
        async with my_subject() as subject:
            await check(subject)

Use a fresh subject for each check.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from llm_queue.errors import LoadFailed, UpstreamBusy, UpstreamError, UpstreamRefused, UpstreamUnreachable
from llm_queue.upstream.protocol import Model, Upstream
from llm_queue.wire.shapes import (
    ChatRequest,
    Completion,
    Delta,
    EmbedRequest,
    JsonObject,
    LoadRequest,
    Message,
    Piece,
    TextRequest,
    ToolChoice,
    Vectors,
    fold,
)

PATIENCE: Final = 10.0
"""Seconds after which a call that should have returned counts as stuck."""


@dataclass(frozen=True)
class Subject:
    """An upstream with at least one model, and questions by which the checks make it behave.

    ``answers`` is answered in one piece or more, and ends. ``hangs`` is answered with at least one piece and has no
    end. ``refused`` is said 4xx to, ``busy`` 503. ``broken`` is answered with an answer that breaks off before its end.
    ``unloadable`` returns a model whose load fails. ``stop`` makes the upstream unreachable. ``texts`` and ``embeds``
    say which other requests it serves. ``calls`` is a question that is answered with a call if one must be made: of
    :data:`LOOK`, with arguments that fit its schema. What is None or False cannot be had, and is not checked.
    ``num_ctx`` is a context size in tokens that its models take (0: it has none to choose). ``in_flight`` says how many
    requests it works on at this moment, as seen from its own side.
    """

    upstream: Upstream
    answers: str = "hello"
    hangs: str | None = None
    refused: str | None = None
    broken: str | None = None
    stop: Callable[[], Awaitable[None]] | None = None
    num_ctx: int = 8192
    in_flight: Callable[[], int] | None = None
    busy: str | None = None
    unloadable: Callable[[], Awaitable[Model]] | None = None
    texts: bool = False
    embeds: bool = False
    calls: str | None = None


LOOK: Final[JsonObject] = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks at something.",
        "parameters": {
            "type": "object",
            "properties": {"at": {"$ref": "#/$defs/Thing"}, "times": {"type": "integer"}},
            "required": ["at", "times"],
            "$defs": {"Thing": {"type": "string", "enum": ["sky", "sea"]}},
            "additionalProperties": False,
        },
    },
}
"""The tool of which a call can be forced."""

WAIT: Final[JsonObject] = {"type": "function", "function": {"name": "wait", "parameters": {"type": "object"}}}
"""Another."""

Check = Callable[[Subject], Awaitable[None]]


async def _loaded(subject: Subject) -> Model:
    model = await subject.upstream.describe((await subject.upstream.models())[0])
    await subject.upstream.load(model, subject.num_ctx)
    return model


async def _ask(subject: Subject, model: Model, question: str) -> tuple[list[Piece], Completion]:
    pieces: list[Piece] = []
    request = ChatRequest(model.name, (Message("user", question),))
    assert subject.upstream.check(request) == (), "a plain chat loses nothing"
    with trio.fail_after(PATIENCE):
        completion = await subject.upstream.run(model, subject.num_ctx, request, pieces.append)
    return pieces, completion


async def _failure(call: Callable[[], Awaitable[object]]) -> UpstreamError | None:
    """What the call raises of our own errors; None if it returns."""
    try:
        with trio.fail_after(PATIENCE):
            await call()
    except UpstreamError as error:
        return error
    return None


async def names_and_identities_are_its_own(subject: Subject) -> None:
    """Each model has a name and an identity, and describing it changes neither."""
    models = await subject.upstream.models()
    assert models, "it has no model to check"
    assert len({model.name for model in models}) == len(models)
    for model in models:
        described = await subject.upstream.describe(model)
        assert (described.name, described.identity) == (model.name, model.identity)


async def a_load_makes_resident(subject: Subject) -> None:
    """After a load, the model is among those that are reported as loaded."""
    model = await _loaded(subject)
    assert model.identity in {key.model for key in await subject.upstream.resident()}


async def a_question_loads_nothing(subject: Subject) -> None:
    """Asking what there is changes nothing of what is loaded."""
    before = await subject.upstream.resident()
    await subject.upstream.probe()
    for model in await subject.upstream.models():
        await subject.upstream.describe(model)
    assert await subject.upstream.resident() == before


async def a_load_that_fails_says_why(subject: Subject) -> None:
    """It is :class:`~llm_queue.errors.LoadFailed`, and the model is not resident."""
    if subject.unloadable is None:
        return
    model = await subject.unloadable()
    error = await _failure(lambda: subject.upstream.load(model, subject.num_ctx))
    assert isinstance(error, LoadFailed), f"it did not fail to load, but {error!r}"
    assert error.message
    assert model.identity not in {key.model for key in await subject.upstream.resident()}


async def an_answer_comes_in_pieces_and_has_an_end(subject: Subject) -> None:
    """All text is emitted before the run returns, and its end says why it ended."""
    model = await _loaded(subject)
    for _ in range(2):
        pieces, completion = await _ask(subject, model, subject.answers)
        assert "".join(piece.content for piece in pieces if isinstance(piece, Delta)), "there was no text"
        assert completion.finish_reason == "stop"
        assert (completion.prompt_tokens or 0) >= 0


async def a_cancelled_run_leaves_nothing_running(subject: Subject) -> None:
    """A run that is cancelled in the middle of its answer has ended at the upstream when it comes back."""
    if subject.hangs is None:
        return
    model = await _loaded(subject)
    began = trio.Event()
    request = ChatRequest(model.name, (Message("user", subject.hangs),))

    async def run(scope: trio.CancelScope) -> None:
        with scope:
            await subject.upstream.run(model, subject.num_ctx, request, lambda _: began.set())

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(run, scope)
        with trio.fail_after(PATIENCE):
            await began.wait()
        scope.cancel()
    if subject.in_flight is not None:
        assert subject.in_flight() == 0, "it still works for a caller that has left"
    await _ask(subject, await _loaded(subject), subject.answers)


async def an_emit_that_raises_ends_the_run(subject: Subject) -> None:
    """An exception of ``emit`` comes through, and the upstream takes the next request."""
    model = await _loaded(subject)

    def emit(piece: Piece) -> None:
        raise LookupError(repr(piece))

    request = ChatRequest(model.name, (Message("user", subject.answers),))
    try:
        with trio.fail_after(PATIENCE):
            await subject.upstream.run(model, subject.num_ctx, request, emit)
    except LookupError:
        pass
    else:
        raise AssertionError("the exception was swallowed")
    await _ask(subject, await _loaded(subject), subject.answers)


async def a_question_is_answered_while_a_run_goes_on(subject: Subject) -> None:
    """What is loaded can be asked, and a probe answered, without waiting for model work."""
    if subject.hangs is None:
        return
    model = await _loaded(subject)
    began = trio.Event()
    request = ChatRequest(model.name, (Message("user", subject.hangs),))

    async def run() -> None:
        await subject.upstream.run(model, subject.num_ctx, request, lambda _: began.set())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.fail_after(PATIENCE):
            await began.wait()
            await subject.upstream.probe()
            assert model.identity in {key.model for key in await subject.upstream.resident()}
        nursery.cancel_scope.cancel()


async def a_refusal_has_the_status_of_the_upstream(subject: Subject) -> None:
    """4xx is :class:`~llm_queue.errors.UpstreamRefused` with that status."""
    if subject.refused is None:
        return
    model = await _loaded(subject)
    error = await _failure(lambda: _ask(subject, model, subject.refused or ""))
    assert isinstance(error, UpstreamRefused), f"it was not refused, but {error!r}"
    assert 400 <= error.http_status < 500
    await _ask(subject, model, subject.answers)


async def a_busy_upstream_says_so(subject: Subject) -> None:
    """503 is :class:`~llm_queue.errors.UpstreamBusy`, which the line waits out."""
    if subject.busy is None:
        return
    model = await _loaded(subject)
    error = await _failure(lambda: _ask(subject, model, subject.busy or ""))
    assert isinstance(error, UpstreamBusy), f"it was not busy, but {error!r}"
    await _ask(subject, model, subject.answers)


async def a_text_is_answered_as_a_chat_is(subject: Subject) -> None:
    """A text to go on with is answered in pieces, and has an end."""
    if not subject.texts:
        return
    model, pieces = await _loaded(subject), list[Piece]()
    request = TextRequest(model.name, subject.answers)
    with trio.fail_after(PATIENCE):
        completion = await subject.upstream.run(model, subject.num_ctx, request, pieces.append)
    assert "".join(piece.content for piece in pieces if isinstance(piece, Delta)), "there was no text"
    assert completion.finish_reason == "stop"


async def a_call_that_must_be_made_is_made(subject: Subject) -> None:
    """One that is chosen by its name among several is called, and so is the only one where any will do."""
    if subject.calls is None:
        return
    model = await _loaded(subject)
    for tools, choice in (((WAIT, LOOK), ToolChoice("function", "look")), ((LOOK,), ToolChoice("required"))):
        pieces = list[Piece]()
        request = ChatRequest(model.name, (Message("user", subject.calls),), tools=tools, tool_choice=choice)
        assert subject.upstream.check(request) == (), "a call that can be had loses nothing"
        with trio.fail_after(PATIENCE):
            completion = await subject.upstream.run(model, subject.num_ctx, request, pieces.append)
        said = fold(pieces, completion).message
        assert [call.name for call in said.tool_calls] == ["look"], f"it did not call, but said {said!r}"
        arguments = json.loads(said.tool_calls[0].arguments)
        assert arguments.keys() == {"at", "times"}, f"{arguments!r} does not fit the schema"
        assert arguments["at"] in ("sky", "sea")
        assert type(arguments["times"]) is int
        assert completion.finish_reason == "tool_calls"


async def texts_to_embed_are_answered_with_a_vector_each(subject: Subject) -> None:
    """One :class:`~llm_queue.wire.shapes.Vectors` has as many vectors as there were texts, all of one length."""
    if not subject.embeds:
        return
    model, pieces = await _loaded(subject), list[Piece]()
    request = EmbedRequest(model.name, ("one", "two", "three"))
    with trio.fail_after(PATIENCE):
        await subject.upstream.run(model, subject.num_ctx, request, pieces.append)
    [piece] = pieces
    assert isinstance(piece, Vectors), "that is no vector"
    assert len(piece.vectors) == len(request.inputs)
    assert len({len(vector) for vector in piece.vectors}) == 1


async def a_load_that_is_asked_for_has_no_pieces(subject: Subject) -> None:
    """A request to load ends as such, emits nothing, and leaves the model resident."""
    model, pieces = await _loaded(subject), list[Piece]()
    request = LoadRequest(model.name, 600.0)
    subject.upstream.check(request)
    with trio.fail_after(PATIENCE):
        completion = await subject.upstream.run(model, subject.num_ctx, request, pieces.append)
    assert (completion.finish_reason, completion.unloaded, pieces) == ("load", False, [])
    assert model.identity in {key.model for key in await subject.upstream.resident()}
    await _ask(subject, model, subject.answers)


async def an_unload_says_whether_the_model_went(subject: Subject) -> None:
    """A request to unload ends as such, and says so if the model is not resident any more; then it can be loaded."""
    model, pieces = await _loaded(subject), list[Piece]()
    request = LoadRequest(model.name, unload=True)
    with trio.fail_after(PATIENCE):
        completion = await subject.upstream.run(model, subject.num_ctx, request, pieces.append)
    assert (completion.finish_reason, pieces) == ("unload", [])
    assert completion.unloaded == (model.identity not in {key.model for key in await subject.upstream.resident()})
    await _ask(subject, await _loaded(subject), subject.answers)


async def an_answer_that_breaks_off_is_never_whole(subject: Subject) -> None:
    """An answer without its end is :class:`~llm_queue.errors.UpstreamBroke`, or another of our errors."""
    if subject.broken is None:
        return
    model = await _loaded(subject)
    error = await _failure(lambda: _ask(subject, model, subject.broken or ""))
    assert error is not None, "half an answer passed for a whole one"
    assert not isinstance(error, UpstreamRefused | UpstreamUnreachable), f"{error!r} says nothing of a broken answer"
    await _ask(subject, await _loaded(subject), subject.answers)


async def an_upstream_that_is_away_is_unreachable(subject: Subject) -> None:
    """Without a connection every call raises :class:`~llm_queue.errors.UpstreamUnreachable`, with words for people."""
    if subject.stop is None:
        return
    model = await _loaded(subject)
    await subject.stop()
    request = ChatRequest(model.name, (Message("user", subject.answers),))
    for call in (
        subject.upstream.probe,
        subject.upstream.models,
        lambda: subject.upstream.run(model, subject.num_ctx, request, lambda _: None),
    ):
        error = await _failure(call)
        assert isinstance(error, UpstreamUnreachable), f"it is away, and not unreachable, but {error!r}"
        assert error.message


CHECKS: Final[tuple[Check, ...]] = (
    names_and_identities_are_its_own,
    a_question_loads_nothing,
    a_load_makes_resident,
    a_load_that_fails_says_why,
    an_answer_comes_in_pieces_and_has_an_end,
    a_cancelled_run_leaves_nothing_running,
    an_emit_that_raises_ends_the_run,
    a_question_is_answered_while_a_run_goes_on,
    a_refusal_has_the_status_of_the_upstream,
    a_busy_upstream_says_so,
    a_text_is_answered_as_a_chat_is,
    a_call_that_must_be_made_is_made,
    texts_to_embed_are_answered_with_a_vector_each,
    a_load_that_is_asked_for_has_no_pieces,
    an_unload_says_whether_the_model_went,
    an_answer_that_breaks_off_is_never_whole,
    an_upstream_that_is_away_is_unreachable,
)
"""All of them."""
