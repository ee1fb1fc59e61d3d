"""What a request and its answer are inside llm-queue, whatever dialect came in or goes out.

A dialect is a pair of translators to and from these shapes. Text is never changed on the way: what a field holds is
what the caller or the model wrote. In every shape, None means "not said" or "not known"; 0 and "" are values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

JsonObject = dict[str, Any]


# --- requests ---------------------------------------------------------------------------------------------------------


class Sampling(msgspec.Struct, frozen=True):
    """How the next token is picked. A field that the caller did not give is None: the model's own default stands."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None

    def given(self) -> JsonObject:
        """The fields that the caller gave, by name."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


class ToolCall(msgspec.Struct, frozen=True):
    """A function that the model wants called. ``arguments`` is JSON text, exactly as it came: it may be cut short."""

    name: str
    arguments: str = "{}"
    id: str | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """Which tools the model may call: none, any it likes, at least one, or the one function called ``name``."""

    mode: Literal["none", "auto", "required", "function"]
    name: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One turn of the conversation. ``images`` are base64 without a ``data:`` prefix."""

    role: str
    content: str = ""
    images: tuple[str, ...] = ()
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    tool_name: str | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """A conversation to go on with. The context size is not in it: the line chooses that.

    ``max_tokens`` is the most tokens the answer may have, 1 or more; None is no limit. ``format`` is ``"json"`` for any
    JSON, or a JSON schema; ``grammar`` is one of llama.cpp's. ``tools`` are in OpenAI's form. ``think`` is a switch or
    an effort; with ``think_if_able`` a model that cannot think answers without, and nobody is told off for having
    asked. ``truncate`` True lets a prompt be cut that is too long; False and None make it an error where the upstream
    can. ``keep_alive`` is for how many seconds the model is to stay loaded after this (infinity: for ever); whoever
    asks for less than another gets the other's.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    format: Literal["json"] | JsonObject | None = None
    tools: tuple[JsonObject, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    think: bool | str | None = None
    think_if_able: bool = False
    logprobs: bool = False
    top_logprobs: int | None = None
    truncate: bool | None = None
    grammar: str | None = None
    keep_alive: float | None = None


class TextRequest(msgspec.Struct, frozen=True):
    """A text to go on with.

    ``suffix`` is what must follow the answer. Ollama's own fields: ``raw`` leaves the model's template out; ``system``
    and ``template`` stand in for the model's; ``context`` is what an earlier answer returned. ``templated``: the caller
    relies on the model's template around the text, so an upstream whose texts have none is asked for a chat. The others
    are as in :class:`ChatRequest`.
    """

    model: str
    prompt: str
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    raw: bool = False
    templated: bool = False
    images: tuple[str, ...] = ()
    context: tuple[int, ...] = ()
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    format: Literal["json"] | JsonObject | None = None
    think: bool | str | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    truncate: bool | None = None
    keep_alive: float | None = None


class EmbedRequest(msgspec.Struct, frozen=True):
    """Texts to turn into one vector each, of ``dimensions`` numbers (None: as many as the model has).

    ``truncate`` False makes a text that is too long an error. ``normalized`` False asks for vectors as the model makes
    them, not scaled to length 1, where the upstream has those. ``keep_alive`` is as in :class:`ChatRequest`.
    """

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    truncate: bool | None = None
    normalized: bool = True
    keep_alive: float | None = None


class LoadRequest(msgspec.Struct, frozen=True):
    """Nothing to compute: the model is to be loaded, and to stay for ``keep_alive`` seconds as in :class:`ChatRequest`.

    With ``unload`` it is to go instead; the line asks that of an upstream only while nobody else wants the model. The
    answer has no pieces, and ends as ``load`` or ``unload``.
    """

    model: str
    keep_alive: float | None = None
    unload: bool = False


Request = ChatRequest | TextRequest | EmbedRequest | LoadRequest


def has_images(request: Request) -> bool:
    """True if there is a picture anywhere in it."""
    if isinstance(request, ChatRequest):
        return any(message.images for message in request.messages)
    return isinstance(request, TextRequest) and bool(request.images)


def must_call(request: ChatRequest) -> tuple[JsonObject, ...]:
    """The tools of which the model must call one; none if it may answer as it likes."""
    match request.tool_choice:
        case ToolChoice(mode="required"):
            return request.tools
        case ToolChoice(mode="function", name=name):
            return tuple(tool for tool in request.tools if tool["function"]["name"] == name)
        case _:
            return ()


# --- answers ----------------------------------------------------------------------------------------------------------

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "load", "unload", "other"]
"""Why an answer ended. ``load`` and ``unload`` end an empty request of Ollama's; ``other`` is none of these."""


class Delta(msgspec.Struct, frozen=True):
    """A piece of an answer, as it came: any of its parts may be empty. ``logprobs`` are in OpenAI's form, with
    all of its fields: ``token``, ``logprob``, ``bytes`` (or None) and ``top_logprobs``, which have the first three.
    """

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[JsonObject, ...] = ()

    @property
    def size(self) -> int:
        """About how many bytes it takes to keep, for the bound on what a slow reader may leave unread."""
        calls = sum(200 + len(call.arguments) for call in self.tool_calls)
        return 200 + len(self.content) + len(self.thinking) + calls + 200 * len(self.logprobs)


class Vectors(msgspec.Struct, frozen=True):
    """The answer to an :class:`EmbedRequest`: one vector for each input, in their order."""

    vectors: tuple[tuple[float, ...], ...]

    @property
    def size(self) -> int:
        """About how many bytes it takes to keep."""
        return sum(200 + 32 * len(vector) for vector in self.vectors)


Piece = Delta | Vectors

ALIVE: Final = Delta()
"""What an upstream emits for a piece that it holds back, because it comes whole later: no part of the answer, but a
sign that the model goes on. It is this very object.
"""


class Completion(msgspec.Struct, frozen=True):
    """The true end of an answer: the upstream said that it is done, why, and what it counted and timed.

    ``finish_text`` is the reason in the upstream's own word. ``prompt_tokens`` is the whole prompt, of which
    ``cached_tokens`` were computed before. ``load_seconds`` went into making the model resident (about 0
    when it was), ``prompt_seconds`` into reading the prompt, ``answer_seconds`` into writing the answer. ``truncated``:
    the upstream has probably cut the prompt to fit its context. ``unloaded``: it has unloaded the model after this
    answer. ``context`` is Ollama's, for the next :class:`TextRequest`. ``reasoning_tokens`` are those of the
    ``completion_tokens`` that were thoughts, where the upstream counts them apart. ``total_seconds`` is what all of it
    took by the upstream's own account.
    """

    finish_reason: FinishReason
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    load_seconds: float | None = None
    cached_tokens: int | None = None
    prompt_seconds: float | None = None
    answer_seconds: float | None = None
    finish_text: str = ""
    truncated: bool = False
    unloaded: bool = False
    context: tuple[int, ...] = ()
    reasoning_tokens: int | None = None
    total_seconds: float | None = None


class PartEnd(Delta, frozen=True, kw_only=True):
    """The end of one answer of several to one request: what comes after it belongs to the next."""

    completion: Completion


class Answer(msgspec.Struct, frozen=True):
    """A whole answer: all its pieces folded into one message or one list of vectors, and its end.

    ``earlier`` are the answers before this one, where one request has several.
    """

    message: Delta
    completion: Completion
    vectors: tuple[tuple[float, ...], ...] = ()
    earlier: tuple[Answer, ...] = ()


def fold(pieces: Sequence[Piece], completion: Completion) -> Answer:
    """Join a stream into one answer, verbatim."""
    deltas = [piece for piece in pieces if isinstance(piece, Delta)]
    return Answer(
        Delta(
            content="".join(delta.content for delta in deltas),
            thinking="".join(delta.thinking for delta in deltas),
            tool_calls=tuple(call for delta in deltas for call in delta.tool_calls),
            logprobs=tuple(item for delta in deltas for item in delta.logprobs),
        ),
        completion,
        tuple(vector for piece in pieces if isinstance(piece, Vectors) for vector in piece.vectors),
    )
