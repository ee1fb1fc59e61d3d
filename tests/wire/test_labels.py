"""Which part of a request begins its prompt, and stays the same from step to step."""

from __future__ import annotations

from llm_queue.wire.labels import fixed_beginning, what_follows
from llm_queue.wire.shapes import ChatRequest, EmbedRequest, LoadRequest, Message, TextRequest, ToolCall

TOOL = {"type": "function", "function": {"name": "look"}}
SAID = (Message("user", "Where?"), Message("assistant", "", tool_calls=(ToolCall("look", '{"at":1}', "c"),)))


def test_the_system_s_words_and_the_tools_are_fixed_and_what_was_said_follows() -> None:
    system = (Message("system", "Be brief."), Message("developer", "Be kind."))
    request = ChatRequest("m", (*system, *SAID, Message("system", "Late.")), tools=(TOOL,))
    assert list(fixed_beginning(request)) == [
        *("Be brief.", "Be kind."),
        '{"type":"function","function":{"name":"look"}}',
    ]
    follows = "".join(what_follows(request))
    assert follows == 'userWhere?assistantlook{"at":1}systemLate.'


def test_the_first_words_of_a_person_are_never_fixed() -> None:
    request = ChatRequest("m", (Message("user", "Be brief."),))
    assert list(fixed_beginning(request)) == []
    assert "Be brief." in list(what_follows(request))


def test_a_text_begins_with_its_system_and_template() -> None:
    request = TextRequest("m", "prompt", system="s", template="t")
    assert (list(fixed_beginning(request)), list(what_follows(request))) == (["s", "t"], ["prompt"])
    assert list(fixed_beginning(TextRequest("m", "prompt"))) == []


def test_vectors_and_loads_have_no_prompt_that_is_kept() -> None:
    for request in (EmbedRequest("m", ("a",)), LoadRequest("m")):
        assert [*fixed_beginning(request), *what_follows(request)] == []
