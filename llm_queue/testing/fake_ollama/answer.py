"""How the fake Ollama words the answer to a chat."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import Final

import trio

from llm_queue.testing.fake_ollama.behaviour import BROKEN, Behaviour, Play, Refusal
from llm_queue.testing.fake_ollama.exchange import Exchange, JsonObject
from llm_queue.testing.fake_ollama.fitting import fitting_tokens
from llm_queue.testing.fake_ollama.runners import Work
from llm_queue.testing.prompt_cache import PromptCache

CREATED: Final = "2026-01-01T00:00:00Z"
"""The time stamp on everything: what the fake says is the same every time."""


def line_of(model: str, message: JsonObject, *, generate: bool = False) -> JsonObject:
    """One line of an answer that is not done: of a chat, or of a generate, whose parts stand in the line itself."""
    said = {"message": {"role": "assistant"} | message}
    if generate:
        said = {"response": message["content"]} | {part: message[part] for part in ("thinking",) if part in message}
    return {"model": model, "created_at": CREATED} | said | {"done": False}


def vectors_of(inputs: list[str], dimensions: int | None = None) -> list[list[float]]:
    """A vector for each text, the same for the same text; cut to ``dimensions``, and of length 1 even then."""
    wholes = [[1.0 + sum(text.encode()) % 97, 1.0 + len(text), 2.0, -1.0] for text in inputs]
    vectors = [whole[:dimensions] for whole in wholes]
    return [[number / math.hypot(*vector) for number in vector] for vector in vectors]


def plain_vector(text: str) -> list[float]:
    """What the older embeddings have: not scaled to length 1."""
    return [float(len(text)), 1.0]


class ChatAnswer:
    """The answer to one chat, or to one generate: lines as they come, or all of them in one object."""

    def __init__(self, exchange: Exchange, model: str, *, streamed: bool, generate: bool = False) -> None:
        self._exchange = exchange
        self._line = partial(line_of, model, generate=generate)
        self._streamed = streamed
        self._generate = generate
        self._begun = False
        self._said: JsonObject = {"content": ""}

    async def say(self, message: JsonObject) -> None:
        """A piece of the message."""
        if self._streamed:
            await self._send(self._line(message))
        else:
            self._gather(message)

    async def done(self, message: JsonObject, reason: str, counts: JsonObject) -> None:
        """The true end, with the last of the message."""
        end: JsonObject = {"done": True, "done_reason": reason} | counts
        if self._generate:
            end["context"] = [1, 2, 3]
        if self._streamed:
            await self._send(self._line(message) | end)
            await self._exchange.end()
        else:
            self._gather(message)
            await self._exchange.whole(200, self._line(self._said) | end)

    async def end(self) -> None:
        """The end without ``done``."""
        if self._streamed:
            await self._begin()
            await self._exchange.end()
        else:
            await self._exchange.whole(200, self._line(self._said))

    async def error(self, text: str) -> None:
        """An error: as a line once something was sent, as a status before that."""
        if not self._begun:
            await self._exchange.whole(500, {"error": text})
        else:
            await self._send({"error": text})
            await self._exchange.end()

    async def garble(self) -> None:
        """Something else than JSON."""
        await self._begin()
        await self._exchange.body(b"<html>this is not JSON</html>\n")
        await self._exchange.end()

    async def cut(self) -> None:
        """The connection's end, in the middle of a chunk."""
        await self._begin()
        await self._exchange.cut()

    def _gather(self, message: JsonObject) -> None:
        for part in ("content", "thinking"):
            if part in message:
                self._said[part] = self._said.get(part, "") + message[part]
        if "tool_calls" in message:
            self._said["tool_calls"] = message["tool_calls"]

    async def _send(self, line: JsonObject) -> None:
        await self._begin()
        await self._exchange.body(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._exchange.head(200, "application/x-ndjson")


async def answer_chat(
    answer: ChatAnswer,
    ask: JsonObject,
    play: Play,
    behaviour: Behaviour,
    work: Work,
    load_seconds: float,
    prompts: PromptCache | None = None,
) -> None:
    """Play one chat to its end, or for ever. ``prompts`` has those that the runner keeps (None: nobody knows)."""
    first = behaviour.first_token_seconds if play.first_token_seconds is None else play.first_token_seconds
    pause = behaviour.token_seconds if play.token_seconds is None else play.token_seconds
    prompt_tokens = _prompt_tokens(ask, work.num_ctx)
    cached = None if prompts is None else max(0, min(prompts.take(_prompt_words(ask)), prompt_tokens - 1))
    first += behaviour.prompt_token_seconds * (prompt_tokens - (cached or 0))
    tokens = _tokens_of(ask, play, behaviour.text)
    limit = (ask.get("options") or {}).get("num_predict", -1)
    reason = "length" if 0 <= limit < len(tokens) else "stop"
    said = tokens[:limit] if reason == "length" else tokens

    if play.ending == "hang":
        await trio.sleep_forever()
    await trio.sleep(first)
    if play.ending == "garble":
        work.outcome = "broken"
        await answer.garble()
        return
    if ask.get("think"):
        await answer.say({"content": "", "thinking": "Let me think."})
    for token in said[: play.tokens_before] if play.ending else said:
        await trio.sleep(pause)
        work.tokens += 1
        await answer.say({"content": token})
    if play.ending in ("break", "cut", "short"):
        work.outcome = "broken"
    match play.ending:
        case "stall":
            await trio.sleep_forever()
        case "break":
            await answer.error(BROKEN)
        case "cut":
            await answer.cut()
        case "short":
            await answer.end()
        case _:
            message: JsonObject = {"content": ""}
            if _calls(ask, play):
                function = {"index": 0, "name": play.tool, "arguments": play.arguments}
                message["tool_calls"] = [{"id": "call_fake", "function": function}]
            counts = {
                "total_duration": _nanoseconds(trio.current_time() - work.start),
                "load_duration": _nanoseconds(load_seconds),
                "prompt_eval_count": prompt_tokens,
                "prompt_eval_duration": _nanoseconds(first),
                "eval_count": len(said),
                "eval_duration": _nanoseconds(pause * len(said)),
            }
            counts = {name: count for name, count in counts.items() if count}
            if cached is not None:  # 0 is said, too
                counts["prompt_eval_cached_count"] = cached
            await answer.done(message, reason, counts)


def _prompt_tokens(ask: JsonObject, num_ctx: int) -> int:
    """The prompt's tokens, of which the fake counts one per word, after what is too long was cut without a word.

    As Ollama does: old messages go first, but for those of the system. If the last one alone is too long, its beginning
    stays, and half of what else would fit. With ``truncate`` false nothing is cut: :class:`Refusal`, in the words of
    llama-server, wrapped as Ollama wraps them.
    """
    said = [(one.get("role"), len(str(one.get("content") or "").split())) for one in ask["messages"]]
    total = sum(words for _, words in said)
    if ask.get("truncate") is False and total > num_ctx:
        text = f"request ({total} tokens) exceeds the available context size ({num_ctx} tokens), try increasing it"
        error = {"code": 400, "message": text, "type": "exceed_context_size_error"}
        raise Refusal(400, json.dumps({"error": error | {"n_prompt_tokens": total, "n_ctx": num_ctx}}))
    for first in range(len(said)):
        total = sum(words for role, words in said[:first] if role == "system") + sum(words for _, words in said[first:])
        if total <= num_ctx:
            break
    return total if total < num_ctx else num_ctx - max((num_ctx - _KEPT) // 2, 1)


def _prompt_words(ask: JsonObject) -> list[str]:
    """The prompt as its runner keeps it. Tools stand at its beginning, as templates have it, but count for nothing."""
    words = [word for one in ask["messages"] for word in str(one.get("content") or "").split()]
    return [json.dumps(ask.get("tools")) + word for word in words[:1]] + words[1:]


_KEPT: Final = 4
"""Ollama's default ``num_keep``."""


def _calls(ask: JsonObject, play: Play) -> bool:
    """True if the answer is a call: a tool is wanted, and no result has come since."""
    return play.tool is not None and bool(ask.get("tools")) and _result_of(ask) is None


def _result_of(ask: JsonObject) -> str | None:
    """What the tool said that was called last, if that was after the last user message."""
    last = ask["messages"][-1]
    return str(last.get("content") or "") if last.get("role") == "tool" else None


def _tokens_of(ask: JsonObject, play: Play, text: str) -> list[str]:
    if _calls(ask, play):
        return []
    result = _result_of(ask)
    if play.tool is not None and result is not None:
        return _words(f"The tool said: {result}")
    if ask.get("format") and play.text is None:
        return ['{"', "answer", '": ', "42", "}"] if ask["format"] == "json" else fitting_tokens(ask["format"])
    if play.tokens is not None:
        return [f"token{number} " for number in range(play.tokens)]
    return _words(text if play.text is None else play.text)


def _words(text: str) -> list[str]:
    """A text in pieces of one word, with all its space."""
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", text)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
