"""Labels tell conversations apart and say nothing of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.dispatch import fingerprints
from llm_queue.dispatch.fingerprints import FIRST_MARK, MARK, MOST_MARKS, Fingerprint, fingerprint, label_of
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import ChatRequest, LoadRequest, Message
from tests.harness import line

TOOL = {"type": "function", "function": {"name": "look"}}


def chat(system: str = "Be brief.", *said: str, tools: tuple[dict[str, Any], ...] = ()) -> ChatRequest:
    begun = (Message("system", system),) if system else ()
    return ChatRequest("m", begun + tuple(Message("user", text) for text in said), tools=tools)


def label(request: ChatRequest, session: str | None = None) -> str:
    return label_of(session, fingerprint(request).fixed)


def test_a_label_is_the_same_at_each_step_of_a_conversation() -> None:
    assert label(chat("Be brief.", "a")) == label(chat("Be brief.", "b", "c", "d"))
    assert label(chat("Be brief.", "a"), "s") == label(chat("Be brief.", "b"), "s")


def test_session_system_and_tools_each_make_another_label() -> None:
    labels = [
        label(chat()),
        label(chat(), "s"),
        label(chat(), "t"),
        label(chat("Be kind.")),
        label(chat(tools=(TOOL,))),
        label(chat(""), "s"),
    ]
    assert len({*labels, ""}) == len(labels) + 1


def test_without_session_system_and_tools_there_is_no_label() -> None:
    assert label(chat("", "a person's words")) == ""
    assert label_of(None, fingerprint(LoadRequest("m")).fixed) == ""


def test_where_one_text_ends_and_the_next_begins_counts() -> None:
    one = ChatRequest("m", (Message("system", "ab"), Message("system", "c")))
    other = ChatRequest("m", (Message("system", "a"), Message("system", "bc")))
    assert label(one) != label(other)


def test_the_same_words_have_another_label_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    here = label(chat(), "s"), label(chat()), label(chat(""), "s")
    monkeypatch.setattr(fingerprints, "_SALT", bytes(32))
    elsewhere = label(chat(), "s"), label(chat()), label(chat(""), "s")
    assert not set(here) & set(elsewhere)
    assert len({len(one) for one in here + elsewhere}) == 1


texts = st.text(st.characters(exclude_categories=()), max_size=400)  # halves of pairs, too


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_two_prompts_share_the_marks_of_the_characters_that_they_share(one: list[str], other: list[str]) -> None:
    """With one text each, so that the ends of texts do not count."""
    first, second = fingerprint(chat("".join(one))).marks, fingerprint(chat("".join(other))).marks
    long, short = "".join(one), "".join(other)
    same = next((at for at in range(min(len(long), len(short))) if long[at] != short[at]), min(len(long), len(short)))
    for at in range(min(len(first), len(second)) // MARK):
        cut = slice(at * MARK, (at + 1) * MARK)
        assert (first[cut] == second[cut]) == (same >= FIRST_MARK << at)


@pytest.mark.parametrize(("size", "marks"), [(0, 0), (15, 0), (16, 1), (31, 1), (32, 2), (2**20, 17)])
def test_marks_are_at_characters_that_double(size: int, marks: int) -> None:
    assert len(fingerprint(chat("x" * size)).marks) == marks * MARK
    assert marks <= MOST_MARKS


async def test_a_job_has_the_label_of_its_conversation(autojump_clock: object) -> None:
    async with line() as held:
        held_model: Model = held.upstream.known[0]
        tickets = [
            held.submit("hello", session=session, model=held_model, fingerprint=known)
            for session, known in (("s", None), ("t", None), ("t", Fingerprint(b"fixed", b"")), (None, None))
        ]
        labels = [ticket.job.label for ticket in tickets]
        assert labels == [label_of("s", b""), label_of("t", b""), label_of("t", b"fixed"), ""]
        for ticket in tickets:
            await ticket.whole()
