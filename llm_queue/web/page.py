"""The live page: what runs, who is next, and why. Its files are part of the package and are served as they are.

They hold nothing of the line, so they want no key. The page asks ``/queue/events`` for the rest, with the key that its
reader has typed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

from quart import Response, request
from quart_trio import QuartTrio

from llm_queue.errors import NotFound

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""What the page may do: run and show its own files, and ask this service. A script in a program's name does nothing."""

_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page, as it is sent. ``tag`` is its ETag, without quotes."""

    body: bytes
    media_type: str
    tag: str


def _files() -> dict[str, PageFile]:
    """The files by name."""
    found = {}
    for entry in sorted(resources.files("llm_queue.web").joinpath("ui").iterdir(), key=lambda entry: entry.name):
        media_type = _MEDIA_TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:  # an editor may have left another
            body = entry.read_bytes()
            found[entry.name] = PageFile(body, media_type, hashlib.sha256(body).hexdigest()[:32])
    return found


FILES: Final = _files()
INDEX: Final = "index.html"
ADDRESS: Final = "/ui"
ADDRESSES: Final = (ADDRESS, *(f"{ADDRESS}/{name}" for name in FILES if name != INDEX))
"""The addresses of the page and its files."""


def wants_page(accept: str) -> bool:
    """True if a request with this ``Accept`` comes from a browser that is to show something to a person.

    Programs that look whether Ollama is there ask for anything at all, or say nothing.
    """
    return any(part.partition(";")[0].strip().lower() == "text/html" for part in accept.split(","))


def page_response(name: str = INDEX) -> Response:
    """The answer to the current request for the file ``name``: 304 without a body if the browser has it."""
    file = FILES[name]
    if request.if_none_match.contains_weak(file.tag):
        response = Response(b"", status=304)
        del response.headers["Content-Type"], response.headers["Content-Length"]  # of a body that is not sent
    else:
        response = Response(file.body, content_type=file.media_type)
    response.headers.update(page_headers(file))
    return response


def page_headers(file: PageFile) -> dict[str, str]:
    """The headers of a file of the page. A browser keeps it, but asks each time whether there is a new one."""
    return {
        "ETag": f'"{file.tag}"',
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def add_page_routes(app: QuartTrio) -> None:
    """Register the page and its files."""

    @app.get(ADDRESS)
    async def page() -> Response:
        """The live page."""
        return page_response()

    @app.get(f"{ADDRESS}/<name>")
    async def page_file(name: str) -> Response:
        """A file of the live page."""
        if name == INDEX or name not in FILES:
            raise NotFound("There is no such file of the page.")
        return page_response(name)
