"""What is written to the terminal: the log, and words for people.

The log has one structured line per event: short for people on a terminal, as JSON with all its fields elsewhere. Never
a prompt or an answer. Nothing that a stream can be (closed, full, of another encoding) is an error here.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from structlog.typing import Processor

WIDEST_CLIENT: Final = 32
"""Characters of a client's name in a line for people; the end of a path tells one script from another."""


def say(text: str, stream: TextIO | None = None) -> None:
    """Write a line for people, to standard output or to ``stream``. Raises nothing, whatever the stream is."""
    stream = stream or sys.stdout
    if stream is None:  # as with pythonw, and for a process without descriptors
        return
    with suppress(OSError, ValueError):  # a full disk, a reader that is gone, a stream that was closed
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()


def complain(text: str) -> None:
    """Write a line for people to standard error."""
    if sys.stderr is not None:
        say(text, sys.stderr)


def is_terminal(stream: TextIO | None) -> bool:
    """True if a person is in front of it."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def drop_output() -> None:
    """Write nothing more: what Python still holds for a stream that broke would be an error at the process's end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def shorten(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A finished job in about a hundred characters: who asked for what, and what it took."""
    if "wait_s" not in event or "run_s" not in event:
        return event
    short = {name: event[name] for name in ("time", "level", "event", "exception") if name in event}
    client = str(event.get("client", ""))
    short["client"] = client if len(client) <= WIDEST_CLIENT else "…" + client[1 - WIDEST_CLIENT :]
    short |= {name: event[name] for name in ("lane", "model") if name in event}
    short |= {name: f"{event[f'{name}_s']:.1f}s" for name in ("wait", "load", "run") if event.get(f"{name}_s")}
    if event.get("completion_tokens") is not None:
        short["tokens"] = f"{event.get('prompt_tokens')}+{event['completion_tokens']}"
    if event.get("cached_tokens") is not None:
        short["cached"] = event["cached_tokens"]
    return short | {name: event[name] for name in ("finish", "error") if event.get(name) not in (None, "stop")}


def escape(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What callers and upstreams have named, without what a terminal would obey: such characters are written out."""
    for name, value in event.items():
        if name != "exception" and isinstance(value, str) and not value.isprintable():
            event[name] = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
    return event


def configure(log_format: str) -> None:
    """Send our events and those of the libraries to standard error: as ``text``, ``json``, or what fits (``auto``)."""
    import structlog  # most commands write no log

    text = log_format == "text" or (log_format == "auto" and is_terminal(sys.stderr))
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text, key="time"),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=is_terminal(sys.stderr),
            timestamp_key="time",
            pad_event_to=6,
            sort_keys=False,
            pad_level=False,
        )
        if text
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([shorten, escape] if text else []),
                renderer,
            ],
        )
    )
    logging.raiseExceptions = False  # a log that cannot be written is no reason to say more, and no error
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("llm_queue").setLevel(logging.INFO)
