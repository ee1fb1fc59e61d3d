"""Who may call: Host, Origin, keys. The decisions are pure; :class:`Gate` applies them in front of the whole app.

Loopback is no trust boundary: every web page in a browser of this machine can send requests here. So the gate stands
before routing, covers what has no route too, and nothing reaches the app that it did not let through.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from llm_queue.core.jobs import Lane
from llm_queue.errors import BadRequest, Forbidden, LoopDetected, QueueError, Unauthorized
from llm_queue.instance import HEADER, VIA, Instance
from llm_queue.settings import Settings
from llm_queue.settings.keys import ApiKey
from llm_queue.web.headers import error_headers
from llm_queue.web.hosts import cannot_be_rebound, is_this_machine, name_in, names_of
from llm_queue.web.page import ADDRESSES, wants_page
from llm_queue.web.visit import ANYONE, App, Permit, Receive, Scope, Send, Visit, begin_visit
from llm_queue.wire.callers.anthropic import VERSION_HEADER
from llm_queue.wire.callers.routes import dialect_of

Headers = Sequence[tuple[bytes, bytes]]

_APP_SCHEMES: Final = frozenset(
    ("chrome-extension", "moz-extension", "safari-web-extension", "app", "vscode-webview", "tauri")
)
_SINGLE: Final = (b"origin", b"authorization", b"x-api-key", b"content-length", b"transfer-encoding", b"content-type")
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TOKENS: Final = re.compile(rb"%b(?:[ \t]*,[ \t]*%b)*" % (_TOKEN, _TOKEN))
_SANE_ID: Final = re.compile(rb"[!-~]{1,128}")

_INSTANCE: Final = HEADER.lower().encode()

OPEN: Final = frozenset(("/health", *ADDRESSES))
"""Paths that want no key: all that there are, but ``/`` for a browser. The live page holds nothing of the line."""

_METHODS: Final = b"GET, HEAD, POST, DELETE, OPTIONS"
_ASKED_HEADERS: Final = (
    b"authorization, content-type, x-request-id, x-llm-queue-client, x-llm-queue-lane, x-llm-queue-max-wait, "
    b"x-llm-queue-num-ctx, x-llm-queue-session, x-llm-queue-supersede, x-claude-code-session-id, "
    b"x-claude-code-agent-id, session-id, session_id, thread-id, x-session-affinity, x-session-id, "
    b"x-openwebui-chat-id, x-api-key, anthropic-version, anthropic-beta, anthropic-dangerous-direct-browser-access, "
    b"x-stainless-arch, x-stainless-lang, x-stainless-os, x-stainless-package-version, x-stainless-retry-count, "
    b"x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout"
)
_EXPOSED_HEADERS: Final = (
    b"Retry-After, Request-Id, X-Request-Id, X-Should-Retry, X-LLM-Queue-Job, X-LLM-Queue-Lane, X-LLM-Queue-Wait-Ms, "
    b"X-LLM-Queue-Load-Ms, X-LLM-Queue-Attempts, X-LLM-Queue-Max-Attempts, X-LLM-Queue-Num-Ctx, X-LLM-Queue-Dropped, "
    b"X-LLM-Queue-Estimate, X-LLM-Queue-Fit-Context, X-LLM-Queue-Truncated"
)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The settings as the gate reads them. Every method decides by its arguments alone."""

    hosts: frozenset[str]
    origins: frozenset[str]
    keys: tuple[tuple[bytes, Permit], ...] = field(repr=False)
    """Digests of the keys, and what each of them allows."""

    @classmethod
    def of(cls, settings: Settings, machine: str = "") -> AccessRules:
        """The rules that these settings make, on a machine that calls itself ``machine``."""
        hosts = (settings.host or "localhost", *settings.hosts)
        names = frozenset(key.name for key in settings.keys if key.name)
        return cls(
            hosts=frozenset(host.lower().strip("[]").rstrip(".") for host in hosts) | names_of(machine),
            origins=frozenset(origin.lower().rstrip("/") for origin in settings.origins),
            keys=tuple((_digest(key.secret.encode()), _permit(key, names)) for key in settings.keys),
        )

    def check_form(self, path: str, query: bytes, headers: Headers) -> None:
        """Refuse what proxies and servers may read in two ways. Raises ``BadRequest``."""
        names = [name.lower() for name, _ in headers]
        for name in _SINGLE:
            if names.count(name) > 1:
                raise BadRequest(f"The header {name.decode()} is there twice.")
        if b"content-length" in names and b"transfer-encoding" in names:
            raise BadRequest("Send content-length or transfer-encoding, not both.")
        if not path.startswith("/"):
            raise BadRequest("The request target must be a path.")
        if not query.isascii():
            raise BadRequest("The query string must be ASCII.")

    def check_host(self, host: str | None) -> None:
        """Refuse a name that a web site may have had rebound to our address. Raises ``Forbidden``."""
        if host is None or not self.knows_host(host):
            raise Forbidden(
                f"Host {_shown(host)} is not a name of this service. If it should be, add it to LLM_QUEUE_HOSTS."
            )

    def knows_host(self, host: str) -> bool:
        """True for what cannot be rebound, the names of this machine and service, and names from the settings."""
        name = name_in(host.lower())
        return name is not None and (cannot_be_rebound(name) or name in self.hosts)

    def check_origin(self, origin: str | None, host: str) -> None:
        """Refuse web pages of other sites, before anything of theirs is queued."""
        if origin is None or "*" in self.origins:
            return
        origin = origin.lower()
        scheme, _, place = origin.partition("://")
        if origin != "null" and (
            origin in self.origins
            or (place and scheme in _APP_SCHEMES)
            or (scheme in ("http", "https") and is_this_machine(name_in(place) or ""))
            or origin == f"http://{host.lower()}"
        ):
            return
        raise Forbidden(
            f"Origin {_shown(origin)} may not use this service. If it should, add it to LLM_QUEUE_ORIGINS"
            + (" ('*' for all: null is every sandboxed frame)." if origin == "null" else " ('*' for all).")
        )

    def permit(self, authorization: str | None, api_key: str | None = None) -> Permit:
        """What the key that was sent allows; without keys, everything. Raises ``Unauthorized``.

        It is in ``Authorization``, or in ``x-api-key``, where Anthropic's clients have it. The digests of all keys are
        compared with those of both, each in constant time, so that the time taken tells nothing, not even a length.
        """
        if not self.keys:
            return ANYONE
        scheme, _, token = (authorization or "").strip().partition(" ")
        bearer = _digest(token.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b"")
        other = _digest((api_key or "").strip().encode("latin-1", "replace"))
        found = [
            permit for key, permit in self.keys if hmac.compare_digest(key, bearer) | hmac.compare_digest(key, other)
        ]
        if not found:
            raise Unauthorized
        return found[0]

    def cors_headers(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """What lets a page read our answers; on errors too. Credentials are never allowed."""
        headers = [(b"vary", b"Origin")]
        if origin is not None:
            headers.append((b"access-control-allow-origin", origin))
            headers.append((b"access-control-expose-headers", _EXPOSED_HEADERS))
        return headers


def is_open(path: str, accept: bytes = b"") -> bool:
    """True for what wants no key: an :data:`OPEN` path, or ``/`` if ``accept`` is a browser's that gets the page."""
    return path in OPEN or (path == "/" and wants_page(accept.decode("latin-1")))


def preflight_headers(headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """What a browser wants to know before it sends the request itself. It may remember that for two hours."""
    asked = headers.get(b"access-control-request-headers", b"").strip()
    answer = [
        (b"allow", _METHODS),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", asked if _TOKENS.fullmatch(asked) else _ASKED_HEADERS),
        (b"access-control-max-age", b"7200"),
    ]
    if headers.get(b"access-control-request-private-network") == b"true":
        answer.append((b"access-control-allow-private-network", b"true"))
    return answer


class Gate:
    """ASGI middleware around everything: lets through, refuses, and puts the request's id and CORS on every answer."""

    def __init__(
        self,
        app: App,
        rules: AccessRules,
        refused: Callable[[QueueError, Scope], None],
        instance: Instance | None = None,
    ) -> None:
        """``refused`` is told of every refusal and of the ASGI scope of the request, to count and log it.

        ``instance`` is who we are; a request that it sent is refused.
        """
        self._instance = instance or Instance()
        self._app = app
        self._rules = rules
        self._refused = refused

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            return self._http(scope, receive, send)
        if scope["type"] == "websocket":
            return send({"type": "websocket.close", "code": 1008})
        return self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): bytes(value) for name, value in scope["headers"]}
        request_id = headers.get(b"x-request-id", b"")
        if not _SANE_ID.fullmatch(request_id):
            request_id = b"req_" + secrets.token_hex(12).encode()
        origin = headers.get(b"origin")
        dialect = dialect_of(scope["path"], headers.get(VERSION_HEADER.encode()))
        senders = b", ".join(value for name, value in scope["headers"] if name.lower() == _INSTANCE).decode("latin-1")

        async def send_marked(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                # Refusals carry these headers too, also for pages of other sites. A page that reads its 403 learns that
                # this service is here, which the time to connect would tell it as well, and which setting its owner
                # would have to change. Nothing else is behind a refusal: it is made up here, from what the page has
                # sent.
                extra = [(b"x-request-id", request_id), *self._rules.cors_headers(origin)]
                if dialect.request_id_header:
                    extra.append((dialect.request_id_header.encode(), request_id))
                if senders:
                    extra.append((b"via", f"1.1 {VIA}".encode()))
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        visit = begin_visit(scope, Visit(request_id.decode("ascii")))
        try:
            if self._instance.sent(senders):  # first: a refusal for the Host or the key would explain nothing
                raise LoopDetected
            host = self._check_form_and_host(scope)
            if scope["method"] == "OPTIONS":
                # Any origin's preflight passes: the request that follows has the same Origin, and is refused for it
                # below, in words that the page can read. A failed preflight would say nothing at all.
                await _respond(send_marked, 204, preflight_headers(headers), b"")
                return
            self._rules.check_origin(_text(origin), host)
            if not is_open(scope["path"], headers.get(b"accept", b"")):
                keys = (_text(headers.get(name)) for name in (b"authorization", b"x-api-key"))
                visit.permit = self._rules.permit(*keys)
        except QueueError as error:
            if not isinstance(error, LoopDetected):  # no caller's: whoever sent it is about to say the same
                self._refused(error, scope)
            answer = [(b"content-type", dialect.error_type.encode()), *error_headers(error)]
            if isinstance(error, BadRequest):  # nobody knows for sure where the next request begins
                answer.append((b"connection", b"close"))
            await _respond(send_marked, error.http_status, answer, dialect.error_body(error, request_id.decode()))
            return
        del headers  # a request may wait for hours, and thousands do
        if not senders:
            await self._app(scope, receive, send_marked)
            return
        with self._instance.serving(senders):
            await self._app(scope, receive, send_marked)

    def _check_form_and_host(self, scope: Scope) -> str:
        hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
        host = _text(hosts[0]) if len(hosts) == 1 else None
        self._rules.check_host(host)
        self._rules.check_form(scope["path"], scope.get("query_string", b""), list(scope["headers"]))
        return host or ""


async def _respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    if status != 204:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _permit(key: ApiKey, names: frozenset[str]) -> Permit:
    return Permit(key.name, Lane[key.lane.upper()], key.share, names)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _shown(value: str | None) -> str:
    return "(none)" if not value else repr(value[:100])
