"""How long an Ollama keeps a model: the longest time that anybody asked for."""

from __future__ import annotations

import math

import pytest

from llm_queue.upstream.lifetimes import FIRST_REQUEST, Lifetimes


def test_the_longest_holds_and_is_sent_once() -> None:
    lifetimes = Lifetimes(3600)
    assert lifetimes.of_load("m") == 3600
    lifetimes.sent("m", 3600)
    assert lifetimes.of_work("m") is None
    assert lifetimes.of_work("m", 60) is None, "it would shorten what holds"
    assert lifetimes.of_work("m", 7200) == 7200
    assert lifetimes.of_work("m", 7200) == 7200, "nobody has said yet that it arrived"
    lifetimes.sent("m", 7200)
    assert lifetimes.of_work("m", 7200) is None
    assert lifetimes.of_work("m", math.inf) == math.inf
    assert lifetimes.of_load("m") == math.inf, "also when it is loaded again"
    assert lifetimes.of_load("other") == 3600


def test_of_a_model_that_was_there_before_nothing_is_known() -> None:
    lifetimes = Lifetimes(3600)
    assert lifetimes.of_work("m") is None
    assert lifetimes.of_work("m", 60) == 3600


def test_a_usual_lifetime_of_zero_ends_with_each_answer_until_somebody_asks_for_more() -> None:
    lifetimes = Lifetimes(0)
    assert lifetimes.of_load("m") == FIRST_REQUEST
    assert lifetimes.of_work("m") == 0
    lifetimes.sent("m", 0)
    assert lifetimes.of_work("m", 600) == 600
    lifetimes.sent("m", 600)
    assert lifetimes.of_work("m") is None


def test_what_was_asked_is_forgotten_with_an_unload() -> None:
    lifetimes = Lifetimes(60)
    assert lifetimes.of_load("m", 600) == 600
    lifetimes.sent("m", None)
    lifetimes.forget("m")
    lifetimes.forget("m")
    assert lifetimes.of_load("m") == pytest.approx(60)
