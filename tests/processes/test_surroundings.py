"""What a process was given, asked of this very one."""

from __future__ import annotations

import os

import psutil
import pytest

from llm_queue.processes.surroundings import environment_of, total_memory


def test_the_environment_of_a_process_of_ours_can_be_read() -> None:
    environment = environment_of(os.getpid())
    assert environment is not None
    assert "PATH" in environment


def test_the_environment_of_another_users_process_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process_id: int) -> psutil.Process:
        raise psutil.AccessDenied(process_id)

    monkeypatch.setattr(psutil, "Process", refuse)
    assert environment_of(os.getpid()) is None


def test_a_machine_has_memory() -> None:
    assert total_memory() > 2**26
