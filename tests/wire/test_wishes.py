"""What a caller wants of the line: which lane it means, and the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.errors import BadRequest
from llm_queue.wire.fields import Scalar
from llm_queue.wire.wishes import (
    LONGEST_SESSION,
    SESSION_HEADERS,
    Wishes,
    from_body,
    from_headers,
    tier_name,
)


def lane_name(header: str | None, priority: Scalar, tier: str | None) -> tuple[str | None, bool]:
    """The lane that these say, and whether it is unknown."""
    headers = {} if header is None else {"X-LLM-Queue-Lane": header}
    wishes = from_headers(headers, 65536).over(from_body(priority, tier))
    return wishes.lane, wishes.unknown_lane


@pytest.mark.parametrize(
    ("priority", "lane"),
    [
        (None, None),
        (True, "interactive"),
        (False, "normal"),
        ("interactive", "interactive"),
        ("normal", "normal"),
        ("background", "background"),
        (" Interactive ", "interactive"),
        (-1, "interactive"),
        (-(10**30), "interactive"),
        (0, "normal"),
        (1, "normal"),
        (100, "normal"),
        (-2.0, "interactive"),
        (2.0, "normal"),
    ],
)
def test_priority_by_switch_name_or_sign(priority: Scalar, lane: str | None) -> None:
    assert lane_name(None, priority, None) == (lane, False)


@pytest.mark.parametrize("priority", ["urgent", "", "-1", "[1]", 0.5, -0.5])
def test_an_unknown_priority_is_normal_and_counted(priority: Scalar) -> None:
    assert lane_name(None, priority, None) == ("normal", True)


@pytest.mark.parametrize(
    ("tier", "lane", "unknown"),
    [
        ("priority", "interactive", False),
        ("fast", "interactive", False),
        ("ultrafast", "interactive", False),
        ("flex", "background", False),
        ("auto", "normal", False),
        ("default", "normal", False),
        ("scale", "normal", False),
        ("gold", "normal", True),
    ],
)
def test_service_tier_in_the_words_of_openai(tier: str, lane: str, unknown: bool) -> None:
    assert lane_name(None, None, tier) == (lane, unknown)


def test_the_header_wins_over_priority_and_priority_over_service_tier() -> None:
    assert lane_name("background", True, "priority") == ("background", False)
    assert lane_name(None, "background", "priority") == ("background", False)
    assert lane_name(None, False, "flex") == ("normal", False)


def test_an_empty_header_says_nothing() -> None:
    assert lane_name("  ", True, None) == ("interactive", False)


def test_an_unknown_header_is_normal_and_counted() -> None:
    assert lane_name("urgent", True, None) == ("normal", True)


@given(
    st.none() | st.text(),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    st.none() | st.text(),
)
def test_nothing_that_a_caller_says_is_an_error(header: str | None, priority: Scalar, tier: str | None) -> None:
    lane, unknown = lane_name(header, priority, tier)
    assert lane in ("interactive", "normal", "background", None)
    assert lane == "normal" or not unknown


def test_the_answer_echoes_the_lane_as_a_tier() -> None:
    assert [tier_name(lane) for lane in ("interactive", "normal", "background")] == ["priority", "default", "flex"]
    assert all(
        lane_name(None, None, tier_name(lane)) == (lane, False) for lane in ("interactive", "normal", "background")
    )


def test_every_wish_has_a_header() -> None:
    headers = {
        "X-LLM-Queue-Lane": "background",
        "X-LLM-Queue-Num-Ctx": " 4096 ",
        "X-LLM-Queue-Max-Wait": "1.5",
        "X-LLM-Queue-Session": " a talk ",
        "X-LLM-Queue-Supersede": " line 7 ",
    }
    assert from_headers(headers, 8192) == Wishes("background", False, 4096, 1.5, "a talk", supersede="line 7")
    assert from_headers({}, 8192) == Wishes()


def test_the_session_is_the_first_header_that_names_one() -> None:
    names = [
        *("X-LLM-Queue-Session", "X-Claude-Code-Session-Id", "session-id", "session_id", "x-session-affinity"),
        *("X-Session-Id", "X-OpenWebUI-Chat-Id"),
    ]
    for number, name in enumerate(names):
        said = {later: f"said by {later}" for later in names[number:]} | dict.fromkeys(names[:number], " ")
        assert from_headers(said, 1).session == f"said by {name}"


@pytest.mark.parametrize(
    ("session", "agent"), [("X-Claude-Code-Session-Id", "X-Claude-Code-Agent-Id"), ("session-id", "thread-id")]
)
def test_the_agents_of_one_session_are_told_apart(session: str, agent: str) -> None:
    assert from_headers({session: "s", agent: "a"}, 1).session == "s a"
    assert from_headers({session: "s", agent: "b"}, 1).session == "s b"
    assert from_headers({session: "s", agent: " "}, 1).session == "s"
    assert from_headers({agent: "a"}, 1).session == "a"
    assert from_headers({session: "s", agent: "a", "X-LLM-Queue-Session": "own"}, 1).session == "own"


@given(st.dictionaries(st.sampled_from([name for row in SESSION_HEADERS for name in row]), st.text()))
def test_any_text_in_a_session_s_header_is_a_name_or_none(headers: dict[str, str]) -> None:
    session = from_headers(headers, 1).session
    assert session is None or 0 < len(session) <= 2 * LONGEST_SESSION + 1


def test_headers_win_over_the_body_one_by_one() -> None:
    body = Wishes("background", True, 1, 2.0, "body", ("a",))
    assert Wishes().over(body) == body
    headers = Wishes("normal", False, 3, 0.0, "header", ("b",), "key")
    assert headers.over(body) == Wishes("normal", False, 3, 0.0, "header", ("b", "a"), "key")
    assert body.over(headers).supersede == "key"


@pytest.mark.parametrize("size", ["0", "-1", "8193", "", "x", "1.5", "9" * 5000, "²", "1_000"])
def test_a_bad_context_size_names_its_header_and_the_limit(size: str) -> None:
    with pytest.raises(BadRequest, match=r"X-LLM-Queue-Num-Ctx takes .* to 8192") as refused:
        from_headers({"X-LLM-Queue-Num-Ctx": size}, 8192)
    assert refused.value.param == "X-LLM-Queue-Num-Ctx"


@pytest.mark.parametrize("wait", ["-1", "x", "", "nan", "inf", "1e999"])
def test_a_bad_wait_names_its_header(wait: str) -> None:
    with pytest.raises(BadRequest, match="takes seconds") as refused:
        from_headers({"X-LLM-Queue-Max-Wait": wait}, 8192)
    assert refused.value.param == "X-LLM-Queue-Max-Wait"


def test_a_key_to_supersede_by_is_bounded_and_an_empty_one_is_none() -> None:
    assert len(from_headers({"X-LLM-Queue-Supersede": "x" * 1000}, 1).supersede or "") == 200
    assert from_headers({"X-LLM-Queue-Supersede": "  "}, 1).supersede is None


def test_a_session_is_bounded_and_an_empty_one_is_none() -> None:
    assert len(from_headers({"X-LLM-Queue-Session": "x" * 1000}, 1).session or "") == 200
    assert from_headers({"X-LLM-Queue-Session": "  "}, 1).session is None
