"""Nothing that is sent makes what reads it fail by an error of its own."""

from __future__ import annotations

import pytest

from llm_queue.errors import BadRequest, UpstreamBroke
from tests.fuzz.parsers import Reader, body_of, fault_in, odd_bodies, readers
from tests.fuzz.targets import Target

READERS = readers()


@pytest.mark.parametrize(("target", "read"), READERS, ids=lambda one: getattr(one, "path", ""))
def test_no_odd_value_of_any_field_is_an_error_of_ours(target: Target, read: Reader) -> None:
    for body in odd_bodies(target):
        assert not fault_in(read, body), body[:300]


@pytest.mark.parametrize(("target", "read"), READERS, ids=lambda one: getattr(one, "path", ""))
def test_no_mutated_body_is_an_error_of_ours(target: Target, read: Reader) -> None:
    for number in range(300):
        body = body_of(target, 5, number)
        assert not fault_in(read, body), body[:300]


def test_what_is_the_fault_of_others_is_told_from_what_is_ours() -> None:
    def failing(error: Exception) -> Reader:
        def read(body: bytes) -> None:
            raise error

        return read

    assert fault_in(lambda body: None, b"") == ""
    assert fault_in(failing(BadRequest()), b"") == ""
    assert "UpstreamBroke" in fault_in(failing(UpstreamBroke()), b"")
    assert "ValueError('x') at " in fault_in(failing(ValueError("x")), b"")
