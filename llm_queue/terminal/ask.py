"""``llm-queue ask "…"``: one question through the line. The answer is all that standard output has.

How long it waits is drawn on standard error while a person looks at that: the line is asked for our job, which is known
by the request id that we gave it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import trio

from llm_queue.log import is_terminal
from llm_queue.terminal.desk import Desk
from llm_queue.terminal.line import NoAnswer, error_text
from llm_queue.terminal.paper import Paper, Row, Span, seconds
from llm_queue.terminal.shapes import JobView

CLIENT: Final = "llm-queue ask"
"""What the line calls us: all questions that are asked so are one program."""

DRAW_EVERY: Final = 0.1
"""Seconds between two drawings of the wait."""

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at the line."""

QUIET_FOR: Final = 0.3
"""Seconds for which nothing is drawn: an answer that comes at once needs no bar."""

SOON: Final = 0.05
"""Seconds that are no time: what is left of an estimate once it is used up."""

MOST_LOOKED_AT: Final = 100
"""Jobs of the line among which ours is looked for: ours is new, and mostly in a lane that goes first."""

_SPINNER: Final = "|/-\\"
_BAR: Final = 20


class Broken(NoAnswer):
    """The answer broke off, or an error came in its place."""


async def ask(desk: Desk) -> int:
    """Ask, and write the answer as it comes. Returns 0 for a whole answer, 1 for one that broke off.

    Cancelled, the connection is closed, and the line drops the job. Raises
    :class:`~llm_queue.terminal.line.NoAnswer` if the service is not there, or refuses.
    """
    question = await _question(desk)
    if not question:
        desk.complain("ask takes a question: llm-queue ask 'Why is the sky blue?'")
        return 2
    wait = Wait(desk)
    answer = Answer(desk)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait.run)
            async with _asked(desk, question, wait.request_id) as pieces:
                async for piece in pieces:
                    wait.over(piece)
                    answer.write(piece)
            nursery.cancel_scope.cancel()
    finally:
        wait.erase()
        answer.end()
    if answer.finish is None:
        raise Broken("The answer broke off: the service has gone, or its upstream has. Its log says which.")
    if answer.finish == "length":
        desk.complain("the answer was cut off: it has as many tokens as its context or its limit allows")
    return 0


async def _question(desk: Desk) -> str:
    """The words, behind what is piped in: a file is read before what is asked about it."""
    words = " ".join(desk.asked.words)
    if desk.stdin is None or is_terminal(desk.stdin):
        return words
    piped = (await trio.to_thread.run_sync(desk.stdin.read, abandon_on_cancel=True)).strip()
    return f"{piped}\n\n{words}".strip()


@asynccontextmanager
async def _asked(desk: Desk, question: str, request_id: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": question}], "stream": True}
    if desk.settings.model:
        body["model"] = desk.settings.model
    headers = {"X-LLM-Queue-Lane": desk.asked.lane, "X-LLM-Queue-Client": CLIENT, "X-Request-Id": request_id}
    try:
        async with desk.line.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            if response.is_error:
                said = error_text(await response.aread())
                raise NoAnswer(said or f"The service said {response.status_code}.")
            yield _pieces(response)
    except httpx.ConnectError as error:
        raise NoAnswer(f"No service answers at {desk.line.url}. Start it with: llm-queue serve.") from error
    except httpx.HTTPError as error:
        raise Broken(f"The connection to the service was lost ({type(error).__name__}).") from error


async def _pieces(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The choices of each event. What is wrong is raised at the end of the stream: httpx's generators end with it."""
    wrong: Broken | None = None
    async for line in response.aiter_lines():
        if wrong is not None or not line.startswith("data:") or line == "data: [DONE]":
            continue
        try:
            said = json.loads(line[5:])
        except ValueError:
            said = None
        if not isinstance(said, dict):
            wrong = Broken("The service sent what is no answer.")
        elif "error" in said:
            wrong = Broken(error_text(line[5:]) or "The service broke off its answer.")
        else:
            yield (said.get("choices") or [{}])[0]
    if wrong is not None:
        raise wrong


@dataclass
class Answer:
    """Writes the pieces of an answer; on a terminal without what that would obey."""

    desk: Desk
    finish: str | None = None
    _ends_line: bool = True

    def write(self, piece: dict[str, Any]) -> None:
        """One piece, at once. Raises ``BrokenPipeError`` when nobody reads any more."""
        self.finish = piece.get("finish_reason") or self.finish
        text = (piece.get("delta") or {}).get("content") or ""
        if text:
            self.desk.out.write(self._shown(text))
            self.desk.out.flush()
            self._ends_line = text.endswith("\n")

    def end(self) -> None:
        """The prompt of the shell stands in a line of its own."""
        if not self._ends_line:
            self._ends_line = True
            self.desk.out.write("\n")
            self.desk.out.flush()

    def _shown(self, text: str) -> str:
        if is_terminal(self.desk.out):
            text = "".join(one if one.isprintable() or one in "\n\t" else "?" for one in text)
        encoding = self.desk.out.encoding or "utf-8"
        return text.encode(encoding, "replace").decode(encoding)


@dataclass
class Wait:
    """Draws the wait until there is an answer, and nothing where nobody looks."""

    desk: Desk
    request_id: str = field(default_factory=lambda: f"ask-{secrets.token_hex(8)}")
    job: JobView | None = None
    _seen_at: float = 0.0
    _looked_at: dict[str, bool] = field(default_factory=dict)
    _over: bool = False
    _thinks: bool = False
    _drawn: bool = False

    async def run(self) -> None:
        """Look and draw, until cancelled or over."""
        paper = Paper.of(self.desk.err, self.desk.environ)
        if not is_terminal(self.desk.err) or self.desk.environ.get("TERM") == "dumb":
            return
        began = trio.current_time()
        await trio.sleep(QUIET_FOR)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look, began)
            turn = 0
            while not self._over:
                waited = trio.current_time() - began
                self._draw(paper.line(self.row(waited, _SPINNER[turn % len(_SPINNER)], paper)))
                turn += 1
                await trio.sleep(DRAW_EVERY)
            nursery.cancel_scope.cancel()

    def over(self, piece: dict[str, Any]) -> None:
        """A piece has come. Once it is one of the answer, the wait is over and gone from the screen."""
        delta = piece.get("delta") or {}
        self._thinks = bool(delta.get("reasoning") or delta.get("reasoning_content"))
        if delta.get("content") or piece.get("finish_reason"):
            self._over = True
            self.erase()

    def row(self, waited: float, sign: str, paper: Paper) -> Row:
        """What is drawn after ``waited`` seconds."""
        job = self.job
        if self._thinks:
            return [Span(sign, "accent"), f" it thinks, {seconds(waited)}"]
        if job is None:
            return [Span(sign, "accent"), f" asked, {seconds(waited)}"]
        if job.state == "loading":
            return [Span(sign, "accent"), f" {job.model} loads, {seconds(waited)}"]
        if job.place == 0:
            return [Span(sign, "accent"), f" {job.model} reads, {seconds(waited)}"]
        ahead = f"{job.place - 1} before you, " if job.place > 1 else "you are next, "
        if job.starts_in_s is None:
            return [Span(sign, "accent"), f" {ahead}{seconds(waited)}"]
        rest = max(0.0, job.starts_in_s - (waited - self._seen_at))
        if rest < SOON:
            return [Span(sign, "accent"), f" {ahead}any moment"]
        bar = paper.bar(waited / (waited + rest) if waited + rest else 1.0, _BAR)
        return [Span(sign, "accent"), " ", Span(bar, "accent"), f" {ahead}about {seconds(rest)} to go"]

    def erase(self) -> None:
        """Leave the line as it was."""
        if self._drawn:
            self._drawn = False
            self.desk.err.write("\r\x1b[2K")
            self.desk.err.flush()

    def _draw(self, text: str) -> None:
        self._drawn = True
        self.desk.err.write(f"\r\x1b[2K{text}")
        self.desk.err.flush()

    async def _look(self, began: float) -> None:
        while True:
            try:
                job = await self._ours(trio.current_time() - began)
                self.job, self._seen_at = job, trio.current_time() - began
            except NoAnswer:
                self.job = None
            await trio.sleep(LOOK_EVERY)

    async def _ours(self, waited: float) -> JobView | None:
        """Our job, if it is among the first: it cannot have waited for longer than we have."""
        jobs = (await self.desk.line.queue(MOST_LOOKED_AT)).jobs
        for job in jobs:
            if job.job not in self._looked_at and job.wait_s <= waited + LOOK_EVERY:
                report = await self.desk.line.report(job.job)
                self._looked_at[job.job] = report.request_id == self.request_id
        return next((job for job in jobs if self._looked_at.get(job.job)), None)
