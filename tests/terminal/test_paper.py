"""What rows become on paper of any width, with and without colours, in any encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.terminal.paper import COMMAND, Column, Paper, Span, count, seconds, size, width_of
from tests.terminal.desks import Stream

TEXT = st.text(max_size=60)
PAPERS = st.builds(
    Paper,
    width=st.integers(40, 200),
    colours=st.just(False),
    unicode=st.booleans(),
    encoding=st.sampled_from(("utf-8", "ascii", "latin-1", "cp1252")),
)


@given(PAPERS, st.lists(TEXT, max_size=5))
def test_a_row_is_never_wider_than_the_paper_and_makes_no_terminal_do_anything(paper: Paper, texts: list[str]) -> None:
    line = paper.line([Span(text, "good") for text in texts])
    assert width_of(line) <= paper.width
    assert line.isprintable()
    line.encode(paper.encoding)


@given(PAPERS, st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=5))
def test_a_table_is_never_wider_than_the_paper_and_its_columns_stand_below_each_other(
    paper: Paper, cells: list[tuple[str, str, str]]
) -> None:
    columns = (Column("a", 5, grow=True), Column("b", 7, right=True), Column("c", 9, keep_end=True, grow=True))
    rows = paper.table(columns, cells, [""] * len(cells))
    assert len(rows) == len(cells) + 1
    for row in rows:
        assert width_of(paper.line(row)) <= paper.width


def test_what_is_cut_says_so_at_the_end_that_tells_least() -> None:
    paper = Paper(width=40)
    assert paper.fit("granite4.1:8b-instruct", 10) == "granite4.…"
    assert paper.fit("/home/ada/jobs/postings.py", 12, keep_end=True) == "…postings.py"
    assert Paper(unicode=False, encoding="ascii").fit("granite4.1:8b", 5) == "gran~"


def test_a_wide_character_takes_two_columns() -> None:
    assert width_of("日本") == 4
    assert Paper().fit("日本語", 5) == "日本…"


def test_a_name_cannot_colour_or_clear_a_terminal() -> None:
    assert Paper(colours=True).line(["a\x1b[2Jb\rc\nd"]) == "a?[2Jb?c?d"


def test_what_is_to_be_copied_is_never_cut() -> None:
    command = "x" * 200
    assert Paper(width=80).line([Span(command, COMMAND)]) == command


@pytest.mark.parametrize(
    ("terminal", "environ", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(terminal: bool, environ: dict[str, str], coloured: bool) -> None:
    paper = Paper.of(Stream(terminal=terminal), environ)
    assert paper.colours is coloured
    assert ("\x1b[" in paper.line([Span("good", "good")])) is coloured
    assert (paper.height is not None) is terminal


def test_an_encoding_without_our_signs_gets_plain_ones() -> None:
    paper = Paper.of(Stream(encoding="ascii"), {})
    assert paper.clean("▶ é") == "> ?"
    assert paper.bar(0.5, 4) == "##--"
    assert paper.sparks([0, 1, 2]).isascii()
    assert Paper().bar(2.0, 3) == "███"
    assert Paper().sparks([]) == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (0.04, "0.0 s"), (9.9, "9.9 s"), (42.4, "42 s"), (130, "2.2 min"), (1402, "23 min"), (7300, "2.0 h")],
)
def test_times_are_short(value: float | None, shown: str) -> None:
    assert seconds(value) == shown


def test_sizes_and_numbers_have_their_words() -> None:
    assert [size(None), size(512), size(2**20), size(5 * 2**30)] == ["", "512 B", "1 MiB", "5.0 GiB"]
    assert [count(1, "job"), count(1200, "job"), count(2, "body", "bodies")] == ["1 job", "1,200 jobs", "2 bodies"]
