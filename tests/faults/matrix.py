"""The cells: every fault, at every try, in every form of answer, at every upstream; and what each must come to.

What must come is a rule, which follows from what the line promises: what a fault is to the line (:func:`meaning_of`),
and what the line does about that (:func:`expected`). What a cell came to is never copied into here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from llm_queue import errors
from llm_queue.errors import QueueError
from llm_queue.settings import Settings
from llm_queue.web.stream import QUIET

SETTINGS: Final = Settings(model="alpha")
"""The defaults, but for the name of the model."""


class Engine(enum.Enum):
    """The upstreams, by the names that the page has for them."""

    OLLAMA = "Ollama"
    OPENAI = "OpenAI-compatible server"
    EMBEDDED = "embedded engine"


class Try(enum.Enum):
    """Which try of the job is struck. Before the retry the first one was lost."""

    FIRST = "first"
    RETRY = "retry"


class Form(enum.Enum):
    """What the caller asked for, and where in it the fault strikes.

    A whole answer is struck after the first token of the upstream where that is possible: half an answer is at hand.
    """

    WHOLE = "whole answer"
    BEFORE = "stream, before the first token"
    AFTER = "stream, after the first token"


@dataclass(frozen=True)
class Fault:
    """``words`` say what the upstream does. ``begun``: it can happen when a token has come. ``load``: it strikes a load
    in the place of an attempt. ``status`` is the one that it answers with.
    """

    name: str
    words: str
    begun: bool = False
    load: bool = False
    status: int | None = None


FAULTS: Final = (
    Fault("refused", "nothing takes the connection, for longer than `--outage-wait`"),
    Fault("away", "nothing takes the connection, for 5 s"),
    Fault("hang", "the connection is neither taken nor refused"),
    Fault("silence", "takes the request, and is silent"),
    Fault("stall", "sends its headers, and is silent", begun=True),
    Fault("frozen", "stands still as a whole for 100 s, and does not even see a hang-up", begun=True),
    Fault("garbage", "sends what is not JSON", begun=True),
    Fault("error", "sends an error in the stream", begun=True),
    Fault("short", "ends its answer too early, in good form", begun=True),
    Fault("cut", "closes the connection in the middle of a chunk", begun=True),
    Fault("reset", "resets the connection", begun=True),
    Fault("404", "says 404", status=404),
    Fault("429", "says 429", status=429),
    Fault("500", "says 500", status=500),
    Fault("503", "says 503", status=503),
    Fault("killed", "is killed, and is back after 0.5 s", begun=True),
    Fault("others", "is killed, and is back with other models", begun=True),
    Fault("killed-load", "is killed while it loads", load=True),
    Fault("disk", "has no room on its disk to load", load=True),
)


@dataclass(frozen=True)
class Cell:
    fault: Fault
    engine: Engine
    attempt: Try
    form: Form

    def __str__(self) -> str:
        return f"{self.engine.name.lower()}-{self.fault.name}-{self.attempt.value}-{self.form.name.lower()}"

    @property
    def strikes_begun(self) -> bool:
        """True if it strikes when a token has come."""
        return self.form is Form.AFTER or (self.form is Form.WHOLE and self.fault.begun)

    @property
    def streamed(self) -> bool:
        return self.form is not Form.WHOLE

    @property
    def committed(self) -> bool:
        """True if the caller has a part of the answer by then, so that nothing can be repeated."""
        return self.form is Form.AFTER

    @property
    def blind(self) -> bool:
        """True if the upstream cannot see that it was left: it may find two requests when it looks again."""
        return self.fault.name == "frozen"


CELLS: Final = tuple(
    Cell(fault, engine, attempt, form) for engine in Engine for fault in FAULTS for attempt in Try for form in Form
)


def senseless(cell: Cell) -> str | None:
    """Why there can be no such cell; None if there is."""
    fault, engine = cell.fault, cell.engine
    if engine is Engine.OPENAI and fault.load:
        return "such a server loads what it likes when it likes: the line loads nothing there"
    if engine is Engine.EMBEDDED and fault.name == "hang":
        return "it listens on loopback for the line alone, whose few connections its system takes whatever it does"
    if engine is Engine.EMBEDDED and fault.name == "away":
        return "a process that takes no connections is replaced, so that does not last"
    if cell.committed and fault.load:
        return "a model is loaded before the first token"
    if cell.committed and fault.status is not None:
        return "a status comes before the first token"
    if cell.committed and fault.name == "silence":
        return "then it is not silent: that is the next row"
    if cell.committed and not fault.begun:
        return "a token has come over a connection that was made"
    return None


def played() -> list[Cell]:
    """The cells that there are."""
    return [cell for cell in CELLS if senseless(cell) is None]


# --- what must come ---------------------------------------------------------------------------------------------------


class Effect(enum.Enum):
    """What a fault is to the line."""

    LOST = "a try that is lost, and may be repeated once"
    FINAL = "an answer that a repeat would only hear again"
    PASSES = "no fault of the job and no try, and over soon"
    LASTS = "no fault of the job and no try, but it lasts until the line gives up"


@dataclass(frozen=True)
class Meaning:
    """``error`` is what the caller is told, if it is told of this; ``status`` where the error has none of its own.

    ``after`` is about how many seconds it takes to be known. ``no_try``: no attempt was begun by then. ``repeat`` is
    what a repeat meets, if it meets no good answer.
    """

    effect: Effect
    error: type[QueueError] = errors.UpstreamBroke
    status: int | None = None
    after: float = 0.0
    no_try: bool = False
    repeat: Meaning | None = None


_TIMED_OUT: Final = Meaning(Effect.LOST, errors.AttemptTimedOut, after=SETTINGS.attempt_timeout)


def meaning_of(fault: Fault, engine: Engine) -> Meaning:
    """What the line must take this fault of this upstream for."""
    ours = engine is Engine.EMBEDDED
    match fault.name:
        case "refused" | "hang" if not ours:
            return Meaning(Effect.LASTS, errors.UpstreamUnreachable, after=SETTINGS.outage_wait)
        case "refused" | "away" | "503":
            return Meaning(Effect.PASSES)
        case "frozen" if ours:  # it is killed, and would be so again
            return Meaning(Effect.FINAL, errors.EngineStuck, after=SETTINGS.attempt_timeout)
        case "silence" | "stall" | "frozen":
            return _TIMED_OUT
        case "404" | "429":
            return Meaning(Effect.FINAL, errors.UpstreamRefused, status=fault.status)
        case "others" if engine is Engine.OPENAI:  # such a server is asked, and says so itself
            return Meaning(Effect.LOST, repeat=Meaning(Effect.FINAL, errors.UpstreamRefused, status=404))
        case "others":
            return Meaning(Effect.LOST, repeat=Meaning(Effect.FINAL, errors.ModelNotFound, no_try=True))
        case "killed-load" if not ours:
            return Meaning(Effect.PASSES)
        case "killed-load" | "disk":  # ours is killed where memory is short, and would be again
            return Meaning(Effect.FINAL, errors.LoadFailed, no_try=True)
        case _:
            return Meaning(Effect.LOST)


@dataclass(frozen=True)
class Outcome:
    """What a caller gets: the status, the code of the error if there is one, the text, and after how many tries."""

    status: int
    code: str | None
    text: str
    tries: int


WHOLE: Final = "one two three"
HALF: Final = "half "
"""What the caller of a stream has when the fault strikes after the first token."""


def expected(cell: Cell) -> Outcome:
    """What must come of a cell, by what the line promises."""
    meaning = meaning_of(cell.fault, cell.engine)
    before = 0 if cell.attempt is Try.FIRST else 1
    if meaning.effect is Effect.LOST and cell.attempt is Try.FIRST and not cell.committed:
        if meaning.repeat is None:
            return Outcome(200, None, WHOLE, tries=2)
        return _failed(cell, meaning.repeat, before=1)
    if meaning.effect is Effect.PASSES:
        return Outcome(200, None, WHOLE, tries=before + 1)
    return _failed(cell, meaning, before)


def _failed(cell: Cell, meaning: Meaning, before: int) -> Outcome:
    status = meaning.status or meaning.error.status
    # Once something was sent, or nothing for so long that the headers had to leave, the error comes in the stream.
    in_stream = cell.committed or (cell.streamed and meaning.after > QUIET)
    no_try = meaning.no_try or meaning.effect is Effect.LASTS
    return Outcome(
        status=200 if in_stream else status,
        code=meaning.error.code,
        text=HALF if cell.committed else "",
        tries=before + (0 if no_try else 1),
    )
