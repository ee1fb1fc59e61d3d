from __future__ import annotations

import pytest

from tests.peers import exemptions
from tests.peers.ollama import pattern_of
from tests.peers.outcomes import Bar, Comparison, Exempt, Outcome, outcomes_of_go, outcomes_of_junit, table

PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED


def test_the_output_of_gos_tests_is_read_with_the_parts_of_each_case() -> None:
    output = """\
=== RUN   TestAPI
time=2026-11-28T03:35:12Z level=INFO msg="--- no result"
--- FAIL: TestAPI (3.35s)
    --- PASS: TestAPI/api-generate/llama3.2:1b (2.16s)
        --- SKIP: TestAPI/api-generate/llama3.2:1b/stream (0.00s)
FAIL
"""
    assert outcomes_of_go(output) == {
        "TestAPI": FAILED,
        "TestAPI/api-generate/llama3.2:1b": PASSED,
        "TestAPI/api-generate/llama3.2:1b/stream": SKIPPED,
    }


def test_a_junit_report_is_read_with_the_names_by_which_pytest_runs_a_case() -> None:
    report = """\
<testsuites><testsuite>
<testcase classname="unit.test_chat" name="test_a[1-b]"/>
<testcase classname="unit.test_chat" name="test_b"><failure message="no"/></testcase>
<testcase classname="unit.test_chat" name="test_c"><error message="no"/></testcase>
<testcase classname="unit.test_chat" name="test_d"><skipped/></testcase>
</testsuite></testsuites>"""
    assert outcomes_of_junit(report) == {
        "unit/test_chat.py::test_a[1-b]": PASSED,
        "unit/test_chat.py::test_b": FAILED,
        "unit/test_chat.py::test_c": FAILED,
        "unit/test_chat.py::test_d": SKIPPED,
    }


@pytest.mark.parametrize("through", [FAILED, SKIPPED, None])
def test_a_case_that_passes_directly_alone_is_lost(through: Outcome | None) -> None:
    found = {} if through is None else {"a": through}
    comparison = Comparison({"a": PASSED, "b": PASSED}, found | {"b": PASSED}, (), ())
    assert comparison.lost == ["a"]
    assert comparison.faults() == ["passes directly, and fails through the line: a"]
    assert comparison.count() == (2, 1)


def test_a_case_that_fails_directly_owes_nothing() -> None:
    assert Comparison({"a": FAILED, "b": SKIPPED}, {"a": FAILED, "b": PASSED}, (), ()).faults() == []


def test_a_case_with_parts_is_lost_by_its_part() -> None:
    direct = {"a": PASSED, "a/1": PASSED, "a/2": PASSED, "ab": PASSED}
    assert Comparison(direct, {"a/1": PASSED}, (), ()).lost == ["a/2", "ab"]


def test_an_exempt_case_may_fail_through_the_line() -> None:
    comparison = Comparison({"a[1]": PASSED, "a1": PASSED}, {"a1": PASSED}, [Exempt("a[1]", "for a reason")], ())
    assert comparison.faults() == []
    assert comparison.excused == {"a[1]": "for a reason"}


def test_an_exemption_that_is_not_needed_is_a_fault() -> None:
    exempt = [Exempt("a*", "for a reason"), Exempt("c", "for another")]
    assert Comparison({"a": PASSED, "ab": PASSED}, {"ab": PASSED}, exempt, ()).faults() == [
        "is in the list of exemptions, and passes: ab",
        "is in the list of exemptions, and there is no such case: c",
    ]


def test_a_suite_that_has_hardly_run_is_a_fault() -> None:
    direct = {"a::1": PASSED, "a::2": PASSED, "b::1": PASSED}
    assert Comparison(direct, direct, (), [Bar("a", 2, 2)]).faults() == []
    assert Comparison(direct, {"b::1": PASSED}, [Exempt("a::*", "all")], [Bar("a", 3, 1)]).faults() == [
        "a: 2 cases pass directly, and 3 should",
        "a: 0 cases pass through the line, and 1 should",
    ]


def test_each_exemption_has_a_reason_and_no_two_are_the_same() -> None:
    for listed in (exemptions.OLLAMA, exemptions.LLAMA_CPP):
        assert all(exempt.reason for exempt in listed)
        assert len({exempt.pattern for exempt in listed}) == len(listed)


def test_one_case_of_gos_tests_is_named_level_by_level() -> None:
    assert pattern_of("TestAPI/chat/llama3.2:1b") == r"^TestAPI$/^chat$/^llama3\.2:1b$"


def test_a_table_has_straight_columns() -> None:
    assert table([("part", "direct"), ("all", 3)]) == "part  direct\nall        3"
