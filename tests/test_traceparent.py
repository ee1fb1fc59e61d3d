"""Where a request stands in a trace: what strangers may say of it, and what is passed on."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.traceparent import MOST_STATE, TraceContext, sending, sent_headers

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PLACE = TraceContext(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f" 00-{TRACE}-{SPAN}-00 ", 0),
        (f"00-{TRACE}-{SPAN}-ff", 3),
        (f"01-{TRACE}-{SPAN}-03", 3),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", 1),
    ],
)
def test_what_the_standard_allows_is_understood(header: str, flags: int) -> None:
    assert TraceContext.read([header]) == TraceContext(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        [f"00-{TRACE}-{SPAN}-01"] * 2,
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-01-more"],
        [f"00-{TRACE}-{SPAN}-01-"],
        [f"01-{TRACE}-{SPAN}-01more"],
        [f"00-{TRACE.upper()}-{SPAN}-01"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE[1:]}-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN}-0g"],
        [f"00-{TRACE}-{SPAN[:-1]}\u0665-01"],
        [f"00-{TRACE}-{SPAN}-01\nx: y"],
    ],
)
def test_anything_else_is_no_place(headers: list[str]) -> None:
    assert TraceContext.read(headers) is None


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ([], ""),
        (["a=1,b@c=2"], "a=1,b@c=2"),
        (["a=1 , ", ",b=2"], "a=1,b=2"),
        (["A=1"], ""),
        (["a"], ""),
        (["a=1\nx: y"], ""),
        (["a=" + "x" * 250, "b=" + "x" * 250, "c=" + "x" * 250], ""),
        ([",".join(f"a{number}=1" for number in range(33))], ""),
    ],
)
def test_what_others_have_noted_is_passed_on_if_it_is_sane(states: list[str], state: str) -> None:
    place = TraceContext.read([f"00-{TRACE}-{SPAN}-01"], states)
    assert place is not None
    assert place.state == state
    assert ("tracestate" in place.headers) == bool(state)


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_whatever_strangers_send_what_is_passed_on_is_understood_again(parents: list[str], states: list[str]) -> None:
    for given_parents in (parents, [f"00-{TRACE}-{SPAN}-01"]):
        place = TraceContext.read(given_parents, states)
        if place is not None:
            said = place.headers
            assert TraceContext.read([said["traceparent"]], [said.get("tracestate", "")]) == place
            assert all(value.isascii() and value.isprintable() for value in said.values())
            assert len(said.get("tracestate", "")) <= MOST_STATE


async def test_a_task_says_where_it_stands_and_no_other_does() -> None:
    heard: list[dict[str, str]] = []

    async def ask() -> None:
        heard.append(sent_headers())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with sending(PLACE):
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask)
            with sending(None):
                heard.append(sent_headers())
        heard.append(sent_headers())
    assert [bool(said) for said in heard] == [False, False, False, True]
    assert heard[-1] == {"traceparent": f"00-{TRACE}-{SPAN}-01"}
