"""The audit of the lock file: what it makes of what pip-audit says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import audit
from tests.audit import LOCK, Result

CLEAN = {"name": "trio", "version": "0.31.0", "vulns": []}
WEAK = {"name": "h11", "version": "0.14.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["0.16.0"]}]}
OPEN = {"name": "h2", "version": "4.0.0", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}
SKIPPED = {"name": "ours", "skip_reason": "not there"}


class PipAudit:
    """Writes what it is told to write, and says what it is told to say."""

    def __init__(self, report: str | None, said: str = "") -> None:
        self.report = report
        self.said = said
        self.words: list[str] = []

    def __call__(self, command: Sequence[str]) -> str:
        self.words = list(command)
        if self.report is not None:
            Path(command[command.index("--output") + 1]).write_text(self.report, encoding="utf-8")
        return self.said


def asked(*packages: dict[str, Any]) -> tuple[Result, str]:
    return audit.audit(LOCK, run=PipAudit(json.dumps({"dependencies": packages})))


def test_packages_without_a_weakness_are_counted() -> None:
    assert asked(CLEAN, CLEAN) == (Result.CLEAN, "None of 2 packages has a known weakness.")


def test_a_weakness_is_named_with_the_version_that_mends_it() -> None:
    result, text = asked(CLEAN, WEAK, OPEN)
    assert result is Result.WEAK
    assert "h11 0.14.0: PYSEC-1, mended in 0.16.0\nh2 4.0.0: PYSEC-2, not mended yet" in text


def test_what_was_skipped_is_not_clean() -> None:
    assert asked(CLEAN, SKIPPED) == (Result.NO_ANSWER, "Nothing could be learned of ours.")


@pytest.mark.parametrize("report", [None, "", "{"])
def test_no_report_is_no_answer_and_the_last_line_says_why(report: str | None) -> None:
    result, text = audit.audit(LOCK, run=PipAudit(report, "a traceback\nConnectionError: no route\n"))
    assert result is Result.NO_ANSWER
    assert text.endswith("ConnectionError: no route")


def test_the_lock_file_is_asked_about_as_it_is_with_nothing_resolved_or_installed() -> None:
    pip_audit = PipAudit(None)
    audit.audit(LOCK, ["--vulnerability-service", "osv"], run=pip_audit)
    assert LOCK.is_file()
    assert str(LOCK) in pip_audit.words
    assert {"--disable-pip", "--no-deps"} <= set(pip_audit.words)
    assert pip_audit.words[-2:] == ["--vulnerability-service", "osv"]


@pytest.mark.parametrize(("words", "code"), [([], Result.NO_ANSWER), (["--may-be-unknown"], Result.CLEAN)])
def test_no_answer_fails_unless_it_is_allowed(
    words: list[str], code: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "audit", lambda lock, more: (Result.NO_ANSWER, "no route"))
    assert audit.main(words) is code
    assert "no route" in capsys.readouterr().err


def test_a_weakness_fails_also_where_an_answer_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "audit", lambda lock, more: (Result.WEAK, "weak"))
    assert audit.main(["--may-be-unknown"]) is Result.WEAK
