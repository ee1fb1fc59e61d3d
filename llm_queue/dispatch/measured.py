"""What an answer says of the work that it took: of its prompt, and of how it ended."""

from __future__ import annotations

import math

import msgspec

from llm_queue.core.jobs import Job
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.dispatch.fingerprints import fingerprint
from llm_queue.dispatch.moments import PromptComputed
from llm_queue.dispatch.prefixes import Prefixes
from llm_queue.dispatch.status import model_name
from llm_queue.dispatch.tickets import Submission
from llm_queue.wire.shapes import Completion, Delta, Piece


def timed(completion: Completion, first: float | None) -> Completion:
    """The same end with ``first`` as the time of its prompt, where the upstream has not told one.

    ``first`` are the seconds until the upstream gave a sign of the answer (None: it gave none before its end). With one
    request in flight that is the time of the prompt, and of a load if the upstream loads models by itself.
    """
    if completion.prompt_seconds is not None or completion.prompt_tokens is None:
        return completion
    return msgspec.structs.replace(completion, prompt_seconds=first)


def prompt_work(completion: Completion, *, attempt: int = 1) -> PromptWork | None:
    """What the prompt took; None where the upstream does not say all of it, or says what cannot be.

    A second attempt says nothing either: the first may have left a part of the prompt behind.
    """
    tokens, cached, seconds = completion.prompt_tokens, completion.cached_tokens, completion.prompt_seconds
    if attempt > 1 or not tokens or cached is None or seconds is None:
        return None
    if not (0 <= cached <= tokens and 0 <= seconds < math.inf):
        return None
    return PromptWork(tokens, cached, seconds)


def calls_in(piece: Piece) -> bool:
    """True if there is a call of a tool in it."""
    return isinstance(piece, Delta) and bool(piece.tool_calls)


def ending_of(completion: Completion, *, called: bool) -> Ending | None:
    """How the answer ended, as its program sees it; None for a load or an unload, which is no answer.

    Whether tools were ``called`` is told by the pieces: upstreams say ``stop`` after a call, too.
    """
    if completion.finish_reason in ("load", "unload"):
        return None
    if called:
        return Ending.TOOLS
    return Ending.LENGTH if completion.finish_reason == "length" else Ending.STOP


def prompt_computed(job: Job, submission: Submission, prompt: PromptWork, prefixes: Prefixes) -> PromptComputed:
    """The moment at which it is known what the prompt of a job took; ``prefixes`` learns of it."""
    name = model_name(submission)
    marks = (submission.fingerprint or fingerprint(submission.request)).marks
    seen = prefixes.look(job.client, name, submission.session, marks)
    return PromptComputed(
        job=job.id,
        client=job.client,
        model=name,
        tokens=prompt.tokens,
        cached=prompt.cached,
        seconds=prompt.seconds,
        cold=prompt.cold,
        new=seen.new,
        changed_at=seen.changed_at,
    )
