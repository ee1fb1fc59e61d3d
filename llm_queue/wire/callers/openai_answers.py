"""What the answers of OpenAI's operations have in common: counts, events, and word to a caller that waits."""

from __future__ import annotations

from typing import Final

from llm_queue.wire.callers.dialect import Progress
from llm_queue.wire.shapes import Completion, JsonObject

FINGERPRINT: Final = "fp_llm_queue"
DONE: Final = b"data: [DONE]\n\n"


def usage_of(completion: Completion) -> JsonObject:
    """The counts of an answer. What was not counted is 0, as the fields must be there; a detail is left out."""
    prompt, answer = completion.prompt_tokens or 0, completion.completion_tokens or 0
    usage: JsonObject = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    if completion.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": completion.cached_tokens}
    if completion.reasoning_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": completion.reasoning_tokens}
    return usage


def comment(progress: Progress) -> bytes:
    """Word of where a job stands: clients skip it, and people who use curl read it."""
    if progress.phase != "queued":
        return f": {progress.phase}\n\n".encode()
    about = f", about {progress.seconds:.0f} s" if progress.seconds is not None else ""
    return f": queued, {progress.ahead} ahead{about}\n\n".encode()


def event_of(body: bytes) -> bytes:
    """One event of a stream."""
    return b"data: " + body + b"\n\n"
