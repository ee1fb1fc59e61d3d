"""Who is asking: the program behind a request, by what it sends. The unit of fair share."""

from __future__ import annotations

import re
from typing import Final

from werkzeug.datastructures import Headers

MAX_NAME: Final = 100
"""Characters of a client's name that are kept: enough for an extension's origin, bounded in logs and metrics."""

UNKNOWN: Final = "unknown"

_VERSION: Final = re.compile(r"/v?[0-9].*")


def client_of(headers: Headers, key_name: str | None) -> str:
    """The first of: its own word, its key's name, Open WebUI's user, the page or extension, the program's product.

    Never a field of the body: prompts are written by anybody.
    """
    names = (
        headers.get("X-LLM-Queue-Client"),
        key_name,
        headers.get("X-OpenWebUI-User-Id"),
        headers.get("Origin"),
    )
    return next((name for name in map(_clean, names) if name), product_of(headers))


def product_of(headers: Headers) -> str:
    """What the program calls itself: ``OpenAI/Python 1.2.3`` is OpenAI/Python, and ``curl/8.5.0`` is curl."""
    words = headers.get("User-Agent", "").split(maxsplit=1)
    return (_clean(_VERSION.sub("", words[0])) if words else "") or UNKNOWN


def _clean(name: str | None) -> str:
    return "".join(character for character in (name or "")[:MAX_NAME] if character.isprintable()).strip()
