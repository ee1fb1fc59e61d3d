"""OpenAI's older completions: a text to go on with, or several, of which each is a job of its own.

The model gets the text as Ollama gives it one: within its template. An engine in OpenAI's dialect gets it as it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from llm_queue.errors import BadRequest, QueueError
from llm_queue.wire.callers.dialect import Operation, Parsed, Progress, RequestLimits, Served
from llm_queue.wire.callers.openai import OPENAI, error_json
from llm_queue.wire.callers.openai_answers import DONE, FINGERPRINT, comment, event_of, usage_of
from llm_queue.wire.callers.openai_parameters import (
    One,
    TextBody,
    decode,
    max_tokens_of,
    sampling_of,
    text_wishes,
    texts_of,
)
from llm_queue.wire.shapes import Answer, Completion, Delta, JsonObject, PartEnd, Piece, TextRequest


class CompletionBody(TextBody, kw_only=True):
    """The request body."""

    prompt: str | list[Any]
    suffix: str | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: One | None = None


class CompletionReply(msgspec.Struct, frozen=True):
    """The form of the answer. ``include_usage``: a stream ends with the counts."""

    include_usage: bool = False


_BODY: Final = msgspec.json.Decoder(CompletionBody)


def parse_completion(body: bytes, limits: RequestLimits) -> Parsed[CompletionReply]:
    """Read and check a request body.

    Raises :class:`~llm_queue.errors.BadRequest`, with the field that is wrong as its ``param``.
    """
    asked = decode(body, _BODY, limits)
    if asked.echo:
        raise BadRequest("echo: the prompt is not repeated here; leave it out, or send false.", param="echo")
    first, *rest = _prompts(asked.prompt, limits.max_messages)
    request = TextRequest(
        model=asked.model or "",
        prompt=first,
        suffix=asked.suffix,
        sampling=sampling_of(asked, asked.options),
        max_tokens=max_tokens_of(asked.max_tokens, asked.options.num_predict if asked.options else None),
        logprobs=asked.logprobs is not None,
        top_logprobs=asked.logprobs or None,
    )
    return Parsed(
        request,
        CompletionReply(include_usage=bool(asked.stream_options and asked.stream_options.include_usage)),
        stream=bool(asked.stream),
        wishes=text_wishes(asked, limits),
        more=tuple(msgspec.structs.replace(request, prompt=prompt) for prompt in rest),
    )


def _prompts(given: str | list[Any], most: int) -> list[str]:
    """The texts to go on with, one at least."""
    prompts = texts_of(given, "prompt", most)
    for at, prompt in enumerate(prompts):
        if not prompt:
            field = "prompt" if isinstance(given, str) else f"prompt[{at}]"
            raise BadRequest(f"{field}: there is nothing to go on with; send a text.", param=field)
    return prompts


class CompletionEncoder:
    """Implements :class:`~llm_queue.wire.callers.dialect.Encoder`."""

    def __init__(self, reply: CompletionReply, served: Served, *, answer_id: str | None = None) -> None:
        self.id = answer_id or f"cmpl-{secrets.token_hex(12)}"
        self._reply = reply
        self._served = served
        self._index = 0
        self._offset = 0
        self._ended: list[Completion] = []

    def whole(self, answer: Answer) -> bytes:
        """The answer as one body."""
        choices = []
        for one in (*answer.earlier, answer):
            choices.append(self._choice(one.message, _reason(one.completion)))
            self._next(one.completion)
        return msgspec.json.encode(self._envelope(choices, usage=usage_of(*self._ended))) + b"\n"

    def begin(self) -> bytes:
        """Nothing: this dialect has no first event."""
        return b""

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """One event for each piece that has something in it, and for the end of each text but the last."""
        events = bytearray()
        for piece in pieces:
            if isinstance(piece, PartEnd):
                events += self._event([self._choice(piece, _reason(piece.completion))])
                self._next(piece.completion)
            elif isinstance(piece, Delta) and (piece.content or piece.thinking or piece.logprobs):
                events += self._event([self._choice(piece, None)])
        return bytes(events)

    def waiting(self, progress: Progress) -> bytes:
        """A comment."""
        return comment(progress)

    def end(self, completion: Completion) -> bytes:
        """The last events: why it ended, what it used if the caller wants to know, and the mark that this is all."""
        finish = self._event([self._choice(Delta(), _reason(completion))])
        self._next(completion)
        usage = self._event([], usage=usage_of(*self._ended)) if self._reply.include_usage else b""
        return finish + usage + DONE

    def error(self, error: QueueError) -> bytes:
        """The last event of a stream that did not come to its end."""
        return event_of(error_json(error))

    def _next(self, completion: Completion) -> None:
        self._ended.append(completion)
        self._index += 1
        self._offset = 0

    def _choice(self, said: Delta, reason: str | None) -> JsonObject:
        choice: JsonObject = {"index": self._index, "text": said.content, "logprobs": None, "finish_reason": reason}
        if said.thinking:
            choice["reasoning"] = said.thinking
        if said.logprobs:
            choice["logprobs"] = self._logprobs(said.logprobs)
        return choice

    def _logprobs(self, items: Sequence[JsonObject]) -> JsonObject:
        """Four lists as long as there are tokens; the offsets are characters of the whole text."""
        tokens = [item["token"] for item in items]
        numbers = [item["logprob"] for item in items]
        among = [{other["token"]: other["logprob"] for other in item["top_logprobs"]} for item in items]
        for others, token, number in zip(among, tokens, numbers, strict=True):
            if others:
                others.setdefault(token, number)
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": numbers,
            "top_logprobs": among if any(among) else None,
            "text_offset": offsets,
        }

    def _event(self, choices: list[JsonObject], **more: Any) -> bytes:
        return event_of(msgspec.json.encode(self._envelope(choices, **more)))

    def _envelope(self, choices: list[JsonObject], **more: Any) -> JsonObject:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self._served.created,
            "model": self._served.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        } | more


COMPLETIONS: Final = Operation(OPENAI, parse_completion, CompletionEncoder, body=CompletionBody)


def _reason(completion: Completion) -> str:
    """Nothing is called here; a reason that OpenAI has no word for goes as it came."""
    match completion.finish_reason:
        case "tool_calls":
            return "stop"
        case "stop" | "length" | "content_filter" as reason:
            return reason
        case other:
            return completion.finish_text or other
