"""The metrics' address: what is asked for decides the format, and the gate stands before it."""

from __future__ import annotations

from typing import Any

import pytest

from llm_queue.settings import Settings
from llm_queue.web.app import create_app, create_quart
from tests.web.conftest import FakeLine


class Numbers:
    def __init__(self) -> None:
        self.accepted: list[str] = []

    def page(self, accept: str) -> tuple[str, bytes]:
        self.accepted.append(accept)
        return "text/plain; version=0.0.4; charset=utf-8", b"llm_queue_up 1.0\n"


async def test_the_page_is_what_the_metrics_say_for_what_the_caller_accepts(line: FakeLine) -> None:
    numbers = Numbers()
    client = create_quart(Settings(), line, numbers).test_client()
    response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Vary"] == "Accept"
    assert await response.get_data() == b"llm_queue_up 1.0\n"
    await client.get("/metrics")
    assert numbers.accepted[0] == "application/openmetrics-text"
    assert len(numbers.accepted) == 2


async def test_where_none_are_kept_there_is_nothing(line: FakeLine) -> None:
    response = await create_quart(Settings(), line).test_client().get("/metrics")
    assert response.status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"host", b"evil.example"), (b"authorization", b"Bearer k")], 403),
        ([(b"host", b"localhost"), (b"origin", b"https://evil.example"), (b"authorization", b"Bearer k")], 403),
        ([(b"host", b"localhost")], 401),
    ],
)
async def test_who_may_not_call_learns_no_number(
    headers: list[tuple[bytes, bytes]], status: int, line: FakeLine
) -> None:
    numbers, sent = Numbers(), list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": headers}
    await create_app(Settings(api_keys=("k",)), line, metrics=numbers)(scope, lambda: None, send)
    assert sent[0]["status"] == status
    assert numbers.accepted == []
