"""Contexts that fit: how large a context a job needs for its prompt and its answer.

A caller that cannot ask for a context, as most agents, would have its prompt cut without a word. So the prompt is
estimated, and the context raised for it; what cannot fit at all is refused before it costs anything.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from llm_queue.core.contexts import ContextSizes
from llm_queue.dispatch.lengths import PromptLengths
from llm_queue.dispatch.tickets import Submission
from llm_queue.errors import PromptTooLong
from llm_queue.upstream.protocol import Model
from llm_queue.wire.prompts import PromptSize, prompt_size
from llm_queue.wire.shapes import ChatRequest, Request, TextRequest

ROOM: Final = 1024
"""Tokens that are kept free for an answer: some 700 words. One that needs more shifts the context or ends there, as it
did before.
"""

LARGE_ROOM: Final = 1 / 4
"""Share of a long prompt that is kept free for an answer whose caller allows that many tokens. Agents allow tens of
thousands with every request, and use some hundreds: to make room for all of them would double every context.
"""


class Fit(NamedTuple):
    """The context that a job wants, in tokens; ``raised`` if its prompt would not have fitted without."""

    wanted_ctx: int
    raised: bool = False


class ContextFit:
    """Decides the context of each job, from the size of its prompt and what models have counted so far."""

    def __init__(self, contexts: ContextSizes, *, raises: bool) -> None:
        """``raises`` False: each job has the context that it asks for, and nothing is refused."""
        self._contexts = contexts
        self._raises = raises
        self._lengths = PromptLengths()

    def estimate(self, model: Model | None, request: Request) -> int:
        """About how many tokens the prompt has."""
        return self._lengths.estimate(model.identity if model else None, prompt_size(request))

    def fit(self, submission: Submission) -> Fit:
        """The context for a job that is being accepted.

        Raises :class:`~llm_queue.errors.PromptTooLong` for a prompt that surely does not fit into the largest context
        that its model can have here. One that only seems so is left to the upstream, which counts.
        """
        model, request = submission.model, submission.request
        if model is not None and model.remote:
            return Fit(0)
        trained = model.trained if model else None
        asked = self._contexts.wanted_ctx(submission.num_ctx, trained)
        if not self._fits(request):
            return Fit(asked)
        identity, size = model.identity if model else None, _size(submission)
        most = self._contexts.most(identity, trained)
        estimate = self._lengths.estimate(identity, size)
        if self._lengths.at_least(identity, size) > most:
            raise PromptTooLong(
                f"The prompt has about {estimate} tokens, and the context that this model can have here has {most}. "
                "Send less, or raise --num-ctx-ceiling if the model was trained for more.",
                tokens=estimate,
                maximum=most,
            )
        fitting = self._contexts.fitting(estimate + _room(request, estimate), most)
        return Fit(fitting, raised=True) if fitting > self._current(identity, asked) else Fit(asked)

    def again(self, model: Model, request: Request, num_ctx: int, refusal: PromptTooLong) -> int | None:
        """The context in tokens with which the upstream may take what it refused as too long at ``num_ctx``.

        None if there is no larger one.
        """
        if not self._fits(request):
            return None
        tokens = refusal.tokens or max(num_ctx, self.estimate(model, request))
        most = self._contexts.most(model.identity, model.trained)
        larger = self._contexts.fitting(max(tokens + _room(request, tokens), num_ctx + 1), most)
        return larger if larger > max(num_ctx, refusal.tokens) else None

    def explained(self, model: Model, refusal: PromptTooLong) -> PromptTooLong:
        """The upstream's refusal, with what its caller can do. As it is where the upstream named no numbers, or has no
        context to choose.
        """
        most = self._contexts.most(model.identity, model.trained)
        if not (most and refusal.tokens and refusal.maximum):
            return refusal
        numbers = f"The prompt has {refusal.tokens} tokens, and its context {refusal.maximum}."
        if refusal.tokens < most:
            return refusal.saying(f"{numbers} Ask for a larger one, up to {most}: numCtx, or X-LLM-Queue-Num-Ctx.")
        explained = refusal.saying(
            f"{numbers} {most} is the most here: send less, or raise --num-ctx-ceiling if the model allows more."
        )
        explained.maximum = most
        return explained

    def learn(self, model: Model, submission: Submission, tokens: int | None) -> None:
        """A model has counted the ``tokens`` of a whole prompt (None: unknown), to answer it or to refuse it."""
        if tokens and _reads_all(submission.request):
            self._lengths.learn(model.identity, _size(submission), tokens)

    def _fits(self, request: Request) -> bool:
        """False for a prompt that may be cut, since its caller says so, and for inputs to embed: those that are too
        long are cut or refused as the caller says, and one of them costs no more than itself.
        """
        return self._raises and isinstance(request, ChatRequest | TextRequest) and request.truncate is not True

    def _current(self, model: str | None, asked: int) -> int:
        return asked if model is None else self._contexts.key(model, asked).num_ctx


def _size(submission: Submission) -> PromptSize:
    return submission.prompt_size or prompt_size(submission.request)


def _room(request: Request, tokens: int) -> int:
    """Tokens that are kept free for the answer to a prompt of this many ``tokens``."""
    allowed = request.max_tokens if isinstance(request, ChatRequest | TextRequest) else None
    return ROOM if allowed is None else min(allowed, max(ROOM, int(tokens * LARGE_ROOM)))


def _reads_all(request: Request) -> bool:
    """False where the count is not that of all that was sent: inputs to embed are counted together, and templates leave
    out earlier thoughts.
    """
    if isinstance(request, ChatRequest):
        return not any(message.thinking for message in request.messages)
    return isinstance(request, TextRequest)
