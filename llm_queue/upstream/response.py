"""One HTTP/1.1 response as it arrives, read by httptools."""

from __future__ import annotations

from typing import Final

import httptools
import httpx

MAX_HEAD: Final = 64 * 2**10
"""Bytes of a response's head, with the interim responses before it."""


class ArrivingResponse:
    """What has arrived of the response to one request.

    ``begun`` is true once the head of the final response is there: ``status``, ``reason``, ``version`` (as ``1.1``) and
    ``headers`` are its own then. Interim responses are skipped. ``whole`` is true once all of it has arrived, and
    ``last`` if no other response may follow on the connection.
    """

    def __init__(self, method: str) -> None:
        """``method`` is that of the request: a response to ``HEAD`` has no body, whatever its head says."""
        self.begun = False
        self.whole = False
        self.last = False
        self.status = 0
        self.reason = b""
        self.version = ""
        self.headers: list[tuple[bytes, bytes]] = []
        self._bodiless = method == "HEAD"
        self._until_the_end = False
        self._body = bytearray()
        self._size = 0
        self._parser = httptools.HttpResponseParser(self)
        # Servers are as they are, and nobody else's answer is on this connection to be confused with.
        self._parser.set_dangerous_leniencies(
            lenient_chunked_length=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def feed(self, data: bytes | bytearray) -> None:
        """Read what has arrived. Raises :class:`httpx.RemoteProtocolError` for what is no HTTP."""
        self._size += 0 if self.begun else len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise httpx.RemoteProtocolError("it switches to another protocol, which nobody asked for") from None
        except httptools.HttpParserError as error:
            if not self.whole:
                raise httpx.RemoteProtocolError(str(error)) from error
            self.last = True  # what follows a whole response is none of ours
        if self._size > MAX_HEAD and not self.begun:
            raise httpx.RemoteProtocolError(f"the head of the answer is larger than {MAX_HEAD // 1024} KiB")

    def end(self) -> None:
        """Nothing more will arrive. Raises :class:`httpx.RemoteProtocolError` if the response is not whole."""
        if not self._size:
            raise httpx.RemoteProtocolError("the connection was closed without an answer")
        if not self.begun or not (self.whole or self._until_the_end):
            raise httpx.RemoteProtocolError("the connection was closed in the middle of the answer")
        self.whole = self.last = True

    def take(self) -> bytes:
        """What has arrived of the body and was not taken yet."""
        body, self._body = bytes(self._body), bytearray()
        return body

    # --- called by httptools ---

    def on_message_begin(self) -> None:
        self.last = self.last or self.whole

    def on_status(self, piece: bytes) -> None:
        if not self.begun:
            self.reason += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.begun:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.begun:
            return  # a trailer's end, or that of a response that nobody asked for
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers.clear()
            self.reason = b""
            return
        self.begun = True
        self.version = self._parser.get_http_version()
        names = {name.lower() for name, _ in self.headers}
        self._until_the_end = names.isdisjoint((b"content-length", b"transfer-encoding"))
        if self._bodiless:
            self.whole = self.last = True  # the parser waits for a body, and can be asked nothing more

    def on_body(self, body: bytes) -> None:
        if not self.whole:
            self._body += body

    def on_message_complete(self) -> None:
        if self.begun and not self.whole:
            self.whole = True
            self.last = not self._parser.should_keep_alive()
