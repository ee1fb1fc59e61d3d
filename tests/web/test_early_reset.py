"""A client that is gone before the service has looked at its connection."""

from __future__ import annotations

import socket
import struct

import pytest
import trio.testing
from structlog.testing import capture_logs

from tests.web.test_listener import hello, serving


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time jumps when nothing moves, but leaves the kernel a moment to carry bytes from socket to socket."""
    return trio.testing.MockClock(autojump_threshold=0.02)


async def test_a_connection_that_is_reset_before_it_is_served_is_no_error(clock: trio.testing.MockClock) -> None:
    async with serving(hello) as server:
        with capture_logs() as logs:
            with socket.create_connection(("127.0.0.1", server.port)) as early:  # no other task runs in between
                early.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert await server.is_well()
        assert logs == []
