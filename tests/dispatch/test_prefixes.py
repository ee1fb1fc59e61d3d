"""Where the beginning of a prompt changed: named as a range of characters, with no text kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_queue.dispatch.fingerprints import fingerprint
from llm_queue.dispatch.prefixes import CONVERSATIONS, PROMPTS, Prefixes, Seen
from llm_queue.wire.shapes import TextRequest

LONG = "".join(f"{number} " for number in range(1000))


def look(prefixes: Prefixes, prompt: str, *, client: str = "c", model: str = "m", session: str | None = "s") -> Seen:
    return prefixes.look(client, model, session, fingerprint(TextRequest(model, prompt)).marks)


def test_a_prompt_that_goes_on_has_not_changed() -> None:
    prefixes = Prefixes()
    assert look(prefixes, LONG) == Seen(new=True)
    assert look(prefixes, LONG) == Seen(new=False)
    assert look(prefixes, LONG * 2) == Seen(new=False)


def test_a_change_is_named_between_two_characters() -> None:
    prefixes = Prefixes()
    look(prefixes, LONG)
    assert look(prefixes, LONG[:79] + "!" + LONG[80:]) == Seen(new=False, changed_at=(64, 128))


@given(st.integers(16, len(LONG) - 1))
def test_the_range_holds_the_character_that_changed(at: int) -> None:
    prefixes = Prefixes()
    look(prefixes, LONG)
    seen = look(prefixes, LONG[:at] + "!" + LONG[at + 1 :])
    low, high = seen.changed_at or (len(LONG) // 2, len(LONG))  # the rest, of which there is no mark
    assert low <= at < high


def test_another_prompt_is_new_and_changes_nothing() -> None:
    prefixes = Prefixes()
    look(prefixes, LONG)
    assert look(prefixes, "A small call for a title, which begins otherwise.") == Seen(new=True)
    assert look(prefixes, LONG) == Seen(new=False)


def test_clients_models_and_sessions_are_not_compared() -> None:
    prefixes = Prefixes()
    look(prefixes, LONG)
    for other in ({"client": "d"}, {"model": "n"}, {"session": "t"}, {"session": None}):
        assert look(prefixes, LONG, **other) == Seen(new=True)


def test_a_prompt_too_short_for_a_mark_is_new_and_not_kept() -> None:
    prefixes = Prefixes()
    assert look(prefixes, "short") == look(prefixes, "short") == Seen(new=True)


def test_of_a_conversation_the_last_prompts_are_known() -> None:
    prefixes = Prefixes()
    prompts = [f"{number} " * 100 for number in range(PROMPTS + 1)]
    for prompt in prompts:
        look(prefixes, prompt)
    assert [look(prefixes, prompt).new for prompt in reversed(prompts)] == [False] * PROMPTS + [True]


def test_the_conversations_heard_of_last_are_known() -> None:
    prefixes = Prefixes()
    for number in range(CONVERSATIONS + 1):
        look(prefixes, LONG, session=str(number))
        assert not look(prefixes, LONG, session="0").new  # spoken to all the time
    assert look(prefixes, LONG, session="1").new
    assert not look(prefixes, LONG, session="0").new
    assert not look(prefixes, LONG, session=str(CONVERSATIONS)).new
