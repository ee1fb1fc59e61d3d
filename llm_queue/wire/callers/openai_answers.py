"""What the answers of OpenAI's operations have in common: counts, events, and word to a caller that waits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from llm_queue.wire.callers.dialect import Progress
from llm_queue.wire.shapes import Completion, JsonObject

FINGERPRINT: Final = "fp_llm_queue"
DONE: Final = b"data: [DONE]\n\n"


def usage_of(*ends: Completion) -> JsonObject:
    """The counts of an answer, or of several together.

    What was not counted is 0, for the fields must be there. A detail that is not known of all of them is left out.
    """
    prompt = sum(end.prompt_tokens or 0 for end in ends)
    answer = sum(end.completion_tokens or 0 for end in ends)
    usage: JsonObject = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    if (cached := _sum(end.cached_tokens for end in ends)) is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if (thought := _sum(end.reasoning_tokens for end in ends)) is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return usage


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def comment(progress: Progress) -> bytes:
    """Word of where a job stands: clients skip it, and people who use curl read it."""
    if progress.phase not in ("queued", "paused"):
        return f": {progress.phase}\n\n".encode()
    about = f", about {progress.seconds:.0f} s" if progress.seconds is not None else ""
    return f": {progress.phase}, {progress.ahead} ahead{about}\n\n".encode()


def event_of(body: bytes) -> bytes:
    """One event of a stream."""
    return b"data: " + body + b"\n\n"
