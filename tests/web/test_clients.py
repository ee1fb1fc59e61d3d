"""Who is asking: one client for each program, from its first request on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from werkzeug.datastructures import Headers

from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import LineFull
from llm_queue.processes.owners import Address
from llm_queue.web import clients
from llm_queue.web.clients import MAX_NAME, PATIENCE, Clients, is_same_machine
from llm_queue.web.facts import ConnectionFacts, keep_facts
from llm_queue.web.visit import ANYONE, Permit
from tests.web.conftest import Caller, FakeLine

SDK = Headers({"User-Agent": "OpenAI/Python 1.2.3"})
SERVER = ("127.0.0.1", 11500)


def scope_of(port: int = 5000, host: str = "127.0.0.1", server: Address | None = SERVER) -> dict[str, Any]:
    """A request on a new connection."""
    state: dict[str, Any] = {}
    keep_facts(state, ConnectionFacts())
    return {"client": (host, port), "server": server, "state": state}


def next_request(scope: dict[str, Any]) -> dict[str, Any]:
    """Another request on the same connection: the server copies the connection's state for it."""
    return scope | {"state": scope["state"].copy()}


class System:
    """Knows the program of each port, or fails as told to."""

    def __init__(self, programs: dict[int, str] | None = None) -> None:
        self.programs = programs or {}
        self.error: Exception | None = None
        self.delay = 0.0
        self.asked: list[Address] = []

    async def find(self, near: Address, far: Address) -> str | None:
        assert far[1] == SERVER[1]
        self.asked.append(near)
        await trio.sleep(self.delay)
        if self.error:
            raise self.error
        return self.programs.get(near[1])


async def test_two_scripts_with_one_sdk_are_two_clients_from_their_first_request_on() -> None:
    system = System({5000: "/home/me/one.py", 5001: "/home/me/two.py", 5002: "/home/me/one.py"})
    known = Clients(system.find)
    names = [await known.name(SDK, ANYONE, scope_of(port)) for port in (5000, 5001, 5002)]
    assert names == ["/home/me/one.py", "/home/me/two.py", "/home/me/one.py"]


async def test_the_system_is_asked_once_per_connection() -> None:
    system = System({5000: "/home/me/one.py"})
    known = Clients(system.find)
    scope = scope_of()
    for _ in range(3):
        assert await known.name(SDK, ANYONE, next_request(scope)) == "/home/me/one.py"
    assert system.asked == [("127.0.0.1", 5000)]


async def test_a_port_that_comes_again_is_another_connection() -> None:
    system = System({5000: "/home/me/one.py"})
    known = Clients(system.find)
    assert await known.name(SDK, ANYONE, scope_of()) == "/home/me/one.py"
    system.programs[5000] = "/home/me/two.py"
    assert await known.name(SDK, ANYONE, scope_of()) == "/home/me/two.py"


async def test_a_connection_keeps_the_answer_that_it_got_even_if_it_was_none() -> None:
    system = System()
    known = Clients(system.find)
    scope = scope_of()
    assert await known.name(SDK, ANYONE, next_request(scope)) == "OpenAI/Python"
    system.programs[5000] = "/home/me/one.py"
    assert await known.name(SDK, ANYONE, next_request(scope)) == "OpenAI/Python"
    assert len(system.asked) == 1


async def test_the_system_is_not_asked_while_the_headers_say_it() -> None:
    system = System({5000: "/home/me/one.py"})
    known = Clients(system.find)
    scope = scope_of()
    for header in ("X-LLM-Queue-Client", "X-OpenWebUI-User-Id", "Origin"):
        assert await known.name(Headers({header: "app://x"}), ANYONE, next_request(scope)) == "app://x"
    assert await known.name(SDK, Permit("ci"), next_request(scope)) == "ci"
    assert system.asked == []
    assert await known.name(SDK, ANYONE, next_request(scope)) == "/home/me/one.py"
    assert await known.name(Headers({"Origin": "app://x"}), ANYONE, next_request(scope)) == "app://x"


@pytest.mark.parametrize(
    "scope",
    [
        scope_of(host="192.168.1.7"),
        scope_of(host="172.17.0.2", server=("172.17.0.1", 11500)),  # a container, through docker's bridge
        scope_of(host="a socket's path"),
        scope_of(server=None),
        scope_of() | {"client": None},
        {},
    ],
)
async def test_a_peer_that_is_not_on_this_machine_is_not_looked_up(scope: dict[str, Any]) -> None:
    system = System({5000: "/home/me/one.py"})
    assert await Clients(system.find).name(SDK, ANYONE, scope) == "OpenAI/Python"
    assert system.asked == []


@pytest.mark.parametrize(
    ("near", "far", "same"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.8.8.8", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("192.168.1.5", "192.168.1.5", True),
        ("::ffff:192.168.1.6", "::ffff:192.168.1.5", False),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        ("", "", False),
    ],
)
def test_an_address_of_ours_is_on_this_machine(near: str, far: str, same: bool) -> None:
    assert is_same_machine(near, far) is same


async def test_a_slow_system_costs_a_moment_once_per_connection(autojump_clock: MockClock) -> None:
    system = System({5000: "/home/me/one.py"})
    system.delay = 60
    known = Clients(system.find)
    scope = scope_of()
    for _ in range(2):
        assert await known.name(SDK, ANYONE, next_request(scope)) == "OpenAI/Python"
    assert trio.current_time() == pytest.approx(PATIENCE)


@pytest.mark.parametrize("error", [PermissionError(), RuntimeError("odd"), NotImplementedError()])
async def test_a_system_that_refuses_is_no_error(error: Exception) -> None:
    system = System({5000: "/home/me/one.py"})
    system.error = error
    assert await Clients(system.find).name(SDK, ANYONE, scope_of()) == "OpenAI/Python"


async def test_a_caller_that_leaves_during_the_search_ends_it(autojump_clock: MockClock) -> None:
    system = System({5000: "/home/me/one.py"})
    system.delay = PATIENCE / 2
    known = Clients(system.find)
    scope = scope_of()
    with trio.move_on_after(PATIENCE / 4) as left:
        await known.name(SDK, ANYONE, next_request(scope))
    assert left.cancelled_caught
    assert await known.name(SDK, ANYONE, next_request(scope)) == "/home/me/one.py"


async def test_names_are_printable_and_bounded_and_a_long_path_keeps_its_end() -> None:
    folder = "/home/me/" + "deep/" * 50
    system = System({5000: folder + "one.py", 5001: folder + "two.py", 5002: "/x/\x1b[31mred\udcff\n.py", 5003: "\n"})
    known = Clients(system.find)
    one, two, red, none = [await known.name(SDK, ANYONE, scope_of(port)) for port in range(5000, 5004)]
    assert (len(one), one[0], one[-6:], two[-6:]) == (MAX_NAME, "…", "one.py", "two.py")
    assert red == "/x/[31mred.py"
    assert none == "OpenAI/Python"


REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nUser-Agent: OpenAI/Python 1\r\n"
    b'Content-Length: 45\r\n\r\n{"messages":[{"role":"user","content":"hi"}]}'
)


async def test_all_requests_of_one_program_have_one_name_on_the_wire(
    line: FakeLine,
    serving: Callable[[], AbstractAsyncContextManager[Caller]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = System()

    async def find(near: Address, far: Address) -> str | None:
        system.asked.append(near)
        return "/home/me/one.py"

    monkeypatch.setattr(clients, "Owners", lambda: type("Known", (), {"program": staticmethod(find)}))
    submitted = trio.Semaphore(0)

    def script(ticket: Ticket) -> None:
        submitted.release()
        ticket.settle(LineFull("full"))

    line.script = script
    async with serving() as caller:
        for _ in range(2):
            stream = await caller.connect(REQUEST)
            async with stream:
                await stream.receive_some()
                await stream.send_all(REQUEST)
                await submitted.acquire()
                await submitted.acquire()
    assert [ticket.job.client for ticket in line.tickets] == ["/home/me/one.py"] * 4
    assert len(system.asked) == 2


async def test_a_refusal_is_counted_for_the_client_that_was_found(
    line: FakeLine,
    serving: Callable[[], AbstractAsyncContextManager[Caller]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def find(near: Address, far: Address) -> str | None:
        return "/home/me/one.py"

    monkeypatch.setattr(clients, "Owners", lambda: type("Known", (), {"program": staticmethod(find)}))
    line.error = LineFull("full")
    async with serving() as caller, await caller.connect(REQUEST) as stream:
        assert b"429" in await stream.receive_some()
    assert line.refused == [("line_full", "/home/me/one.py")]
