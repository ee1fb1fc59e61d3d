"""The service that runs already: where it is by our own settings, and a client of it."""

from __future__ import annotations

from typing import Any

import httpx

from llm_queue.settings import Settings


def address(settings: Settings, port: int | None = None) -> str:
    """The URL of a service with these settings, at ``port`` or at the first of its own."""
    return f"http://{_host(settings.host)}:{settings.port[0] if port is None else port}"


def client(url: str, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client of the service at ``url``, with the first of our keys. Nothing is limited in time: the line limits.

    ``transport`` stands in for the network.
    """
    headers = {"User-Agent": "llm-queue"}
    if settings.keys:
        headers["Authorization"] = f"Bearer {settings.keys[0].secret}"
    other: dict[str, Any] = {} if transport is None else {"transport": transport}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=None, trust_env=False, **other)  # noqa: S113


def _host(host: str | None) -> str:
    address = {None: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host or "")  # noqa: S104 - asked, not bound
    return f"[{address}]" if ":" in address and not address.startswith("[") else address
