"""Several jobs of one request, one after the other, which look like one to whoever waits for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from llm_queue.dispatch.fingerprints import fingerprint
from llm_queue.dispatch.tickets import Submission, Ticket
from llm_queue.errors import QueueError
from llm_queue.wire.shapes import Answer, Completion, PartEnd, Piece, Request


def in_turn(submit: Callable[[Submission], Ticket], submission: Submission, more: Sequence[Request]) -> Ticket:
    """The ticket of ``submission``, or of a series that begins with it where there is ``more`` to come.

    ``submit`` takes one job into the line. Raises what it raises.
    """
    if not more:
        return submit(submission)
    model = submission.request.model
    rest = [
        replace(
            submission,
            request=msgspec.structs.replace(request, model=model),
            prompt_size=None,
            fingerprint=fingerprint(request),
            supersede="",
        )
        for request in more
    ]
    return Series(submit, submission, rest)


class Series(Ticket):
    """The ticket of the job that is at work or waits; the next one goes into the line when it has ended.

    So other programs have their turns in between, and nobody who leaves has more than one job to end. A job that fails,
    or that the line does not take, is the end of the series.
    """

    def __init__(self, submit: Callable[[Submission], Ticket], first: Submission, rest: Sequence[Submission]) -> None:
        """``submit`` takes one job into the line. Raises what it raises for the ``first``."""
        self._submit = submit
        self._rest = deque(rest)
        self._earlier: list[Answer] = []
        self._failure: QueueError | None = None
        self._ticket = ticket = submit(first)
        super().__init__(
            ticket.job, first, leave=lambda _, error: self.close(error), place=lambda _: self._ticket.place()
        )

    async def receive(self) -> list[Piece | Completion]:
        """The same as of any ticket, with a :class:`~llm_queue.wire.shapes.PartEnd` between two jobs."""
        if self._failure is not None:
            raise self._failure
        received = await self._ticket.receive()
        last = received[-1] if received else None
        if isinstance(last, Completion) and self._rest:
            received[-1] = PartEnd(completion=last)
            try:
                self._next()
            except QueueError as error:
                self._failure = error  # what has arrived goes out before it
        return received

    async def whole(self) -> Answer:
        """The last answer, with the earlier ones in it. Cancelled, it loses none of them, and can be asked again."""
        while self._rest:
            self._earlier.append(await self._ticket.whole())
            self._next()
        answer = await self._ticket.whole()
        completion = answer.completion
        if any(one.completion.truncated for one in self._earlier):
            completion = msgspec.structs.replace(completion, truncated=True)
        return msgspec.structs.replace(answer, completion=completion, earlier=tuple(self._earlier))

    def close(self, error: QueueError | None = None) -> None:
        """The caller is gone, or has all it wanted."""
        self._rest.clear()
        self._ticket.close(error)

    def _next(self) -> None:
        self._ticket = self._submit(self._rest.popleft())
        self.job, self.submission = self._ticket.job, self._ticket.submission
