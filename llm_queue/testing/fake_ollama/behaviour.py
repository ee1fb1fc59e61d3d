"""How the fake Ollama behaves: in general, and by the words at the beginning of a message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

DIRECTIVES: Final = """\
  !say TEXT            answer with TEXT, verbatim, to the end of the message
  !tokens N            answer with N tokens
  !slow S              take S seconds for each token
  !first S             take S seconds to the first token
  !tool NAME [JSON]    call the tool NAME with these arguments, if tools were sent; once its result is
                       there, repeat that
  !hang                never answer
  !stall N             N tokens, then nothing
  !break N             N tokens, then a line with an error
  !short N             N tokens, then the end, without `done`
  !cut N               N tokens, then the connection is closed in the middle of a chunk
  !garble              a line that is not JSON
  !busy                503
  !error500 TEXT       500
  !refuse STATUS TEXT  that status

Several may follow each other; what comes after them is ordinary text. In a message that begins otherwise they may
begin a later line, and the last such line counts. `#once` at the end of the message: what goes wrong does so only the
first time that this very message comes.
"""

BUSY: Final = "server busy, please try again.  maximum pending requests exceeded"
BROKEN: Final = "an error was encountered while running the model: unexpected EOF"
ONCE: Final = "#once"


@dataclass
class Behaviour:
    """How the fake behaves where no directive says otherwise. Times are in seconds, contexts in tokens."""

    models: list[str] = field(default_factory=lambda: ["fake"])
    load_seconds: float = 0.2
    token_seconds: float = 0.005
    first_token_seconds: float = 0.0
    close_seconds: float = 0.0
    """From the caller's end of file to ours: the time in which the next request would overlap."""
    max_loaded: int = 1
    default_num_ctx: int = 4096
    trained: int = 131072
    keep_alive: float = 300.0
    capabilities: list[str] = field(default_factory=lambda: ["completion", "tools", "thinking"])
    remote: list[str] = field(default_factory=list)
    """Models that are listed and run elsewhere. Any name that ends in ``:cloud`` or ``-cloud`` does so unlisted."""
    signin_url: str | None = None
    """If set, those are refused with 401 and this address."""
    load_error: str | None = None
    """If set, loads end as 500 with this text."""
    remembered: int = 0
    """Requests and loads that its log has at least, the last ones; 0: all."""
    kept_prompts: int | None = None
    """Prompts that a runner keeps: what is found there is told and costs no time. None: nothing is told of it, as by an
    Ollama before 0.33.3."""
    prompt_token_seconds: float = 0.0
    """What each token of a prompt takes that is not found."""
    text: str = "The fake Ollama answers with a few words."


class Refusal(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass
class Play:
    """What one request is to do. Fields that are None are left to the server's behaviour. Times are in seconds."""

    text: str | None = None
    tokens: int | None = None
    token_seconds: float | None = None
    first_token_seconds: float | None = None
    tool: str | None = None
    arguments: dict[str, Any] = field(default_factory=lambda: {"place": "here"})
    """What the tool is called with."""
    refusal: Refusal | None = None
    ending: str | None = None
    """How it goes wrong: hang, stall, break, short, cut, garble; None is well."""
    tokens_before: int = 0
    """Tokens that come before it goes wrong."""
    once: bool = False
    """It goes wrong only the first time."""

    def mended(self) -> Play:
        """The same without what goes wrong."""
        return replace(self, refusal=None, ending=None, tokens_before=0, once=False)


def read_directives(message: str) -> Play:
    """What the message says. Raises :class:`Refusal` (400) for a directive whose argument makes no sense.

    Agents put words of their own before what their user says, so a directive may also begin a later line.
    """
    if not message.startswith("!"):
        later = list(_LATER.finditer(message))
        message = message[later[-1].start() :] if later else message
    once = message.rstrip().endswith(ONCE)
    rest = message.rstrip().removesuffix(ONCE).rstrip() if once else message
    play = Play(once=once)
    try:
        while rest.startswith("!"):
            word, _, rest = rest.partition(" ")
            rest = _DIRECTIVES[word.strip()](play, rest)
    except (KeyError, ValueError):
        raise Refusal(400, f"the fake does not understand {message[:100]!r}") from None
    return play


def _say(play: Play, rest: str) -> str:
    play.text = rest
    return ""


def _tokens(play: Play, rest: str) -> str:
    count, rest = _argument(rest)
    play.tokens = int(count)
    return rest


def _slow(play: Play, rest: str) -> str:
    seconds, rest = _argument(rest)
    play.token_seconds = float(seconds)
    return rest


def _first(play: Play, rest: str) -> str:
    seconds, rest = _argument(rest)
    play.first_token_seconds = float(seconds)
    return rest


def _tool(play: Play, rest: str) -> str:
    play.tool, rest = _argument(rest)
    if rest.startswith("{"):
        play.arguments, end = json.JSONDecoder().raw_decode(rest)
        rest = rest[end:].lstrip()
    return rest


def _refuse(play: Play, rest: str) -> str:
    status, text = _argument(rest)
    play.refusal = Refusal(int(status), text or "refused")
    return ""


def _error500(play: Play, rest: str) -> str:
    play.refusal = Refusal(500, rest or BROKEN)
    return ""


def _busy(play: Play, rest: str) -> str:
    play.refusal = Refusal(503, BUSY)
    return rest


def _at_once(ending: str) -> Callable[[Play, str], str]:
    def read(play: Play, rest: str) -> str:
        play.ending = ending
        return rest

    return read


def _after_tokens(ending: str) -> Callable[[Play, str], str]:
    def read(play: Play, rest: str) -> str:
        count, rest = _argument(rest)
        play.ending, play.tokens_before = ending, int(count)
        return rest

    return read


def _argument(rest: str) -> tuple[str, str]:
    argument, _, rest = rest.partition(" ")
    return argument.strip(), rest


_DIRECTIVES: Final[dict[str, Callable[[Play, str], str]]] = {
    "!say": _say,
    "!tokens": _tokens,
    "!slow": _slow,
    "!first": _first,
    "!tool": _tool,
    "!refuse": _refuse,
    "!error500": _error500,
    "!busy": _busy,
    "!hang": _at_once("hang"),
    "!garble": _at_once("garble"),
    "!stall": _after_tokens("stall"),
    "!break": _after_tokens("break"),
    "!short": _after_tokens("short"),
    "!cut": _after_tokens("cut"),
}

_LATER: Final = re.compile(rf"(?<=\n)(?:{'|'.join(_DIRECTIVES)})\b")
