"""Values of settings: read as people write them, or refused in words that say what to write."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_queue.launch import command, secrets
from llm_queue.settings import Knob, WrongSetting, knobs, load
from llm_queue.settings.values import ServerUrl

LIKELY = st.sampled_from(
    [
        *("0", "-1", "1", "nan", "inf", "1e400", "9" * 5000, "٣", "", " ", "\r", '"', "''", '"x"', "\x00", "\ud800"),
        *("127.0.0.1", "::1", "[::1]:1", "[", "http://", "http://[", "http://a:b@c:99999", "//x", "a b", "*", "*.lan"),
        *("x86_64-conda-linux-gnu", "https://*.example.org", "None", "auto", "on", "1h", "5", "4GiB", "/v1", "a@b"),
    ]
)


@pytest.mark.parametrize("knob", knobs(), ids=[knob.name for knob in knobs()])
@given(raw=st.one_of(LIKELY, st.text()))
@example(raw="x86_64-conda-linux-gnu")
def test_no_value_of_any_setting_is_more_than_a_line_of_words(knob: Knob, raw: str) -> None:
    for flags, environ in (({knob.name: raw}, {}), ({}, {knob.env: raw})):
        refusal = refused(flags, environ)
        assert "\n" not in refusal.replace(raw, "")
        assert not refusal or refusal.startswith(("--", knob.env, "HOST"))


def refused(flags: Mapping[str, str | None], environ: dict[str, str]) -> str:
    """What is said against these settings; empty if they can be had."""
    try:
        load(flags, environ)
    except WrongSetting as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("localhost", "http://localhost:11434"),
        ("127.0.0.1:9", "http://127.0.0.1:9"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://[::]:9", "http://[::1]:9"),
        ("http://gpu.lan", "http://gpu.lan"),
        ("http://gpu.lan:11434/v1", "http://gpu.lan:11434"),
        ("http://gpu.lan:11434/api/", "http://gpu.lan:11434"),
        ("https://gpu.lan/ollama", "https://gpu.lan/ollama"),
    ],
)
def test_ollamas_address_is_read_as_ollama_itself_reads_it(raw: str, url: str) -> None:
    assert load({"ollama_url": raw}, {}).ollama_url == url


@pytest.mark.parametrize("raw", ["http://", "ftp://x", "http://a b", "http://x?y=1", "http://x:99999", "http://[::1"])
def test_an_address_that_cannot_be_asked_is_refused_with_one_that_can(raw: str) -> None:
    with pytest.raises(WrongSetting, match="OLLAMA_URL takes an address such as http://localhost:11434"):
        load({}, {"OLLAMA_URL": raw})


@pytest.mark.parametrize(
    "raw", ['"http://gpu.lan:9"', "'http://gpu.lan:9'", "http://gpu.lan:9\r", "  http://gpu.lan:9 "]
)
def test_what_files_and_shells_leave_around_a_value_is_no_part_of_it(raw: str) -> None:
    assert load({}, {"OLLAMA_URL": raw}).ollama_url == "http://gpu.lan:9"


def test_a_password_in_an_address_is_sent_and_shown_nowhere() -> None:
    settings = load({}, {"LLM_QUEUE_UPSTREAM_URL": "http://me:p%40ss@gpu.lan:9/v1", "LLM_QUEUE_ENGINE": "openai"})
    url = settings.upstream_url
    assert url == "http://gpu.lan:9"
    assert url.authorization == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert "p%40ss" not in repr(settings)
    assert not any("p%40ss" in word or "p@ss" in word for word in command(settings))
    assert secrets(settings) == {"LLM_QUEUE_UPSTREAM_URL": "http://me:p%40ss@gpu.lan:9/v1"}


def test_a_wrong_address_with_a_password_is_refused_without_it() -> None:
    with pytest.raises(WrongSetting) as refused:
        load({"ollama_url": "ftp://me:secret@gpu.lan"}, {})
    assert "secret" not in str(refused.value)


def test_an_address_of_a_server_without_a_user_has_no_header() -> None:
    assert ServerUrl("http://x").authorization is None
    assert ServerUrl("http://x").raw == "http://x"


@pytest.mark.parametrize("raw", ["1h", "5m", "90s", "1h30m", "1.5h", "0", "-1", "3600", "24h0m0s"])
def test_a_time_is_one_that_ollama_reads(raw: str) -> None:
    assert load({"keep_alive": raw}, {}).keep_alive == raw


@pytest.mark.parametrize("raw", ["forever", "1 h", "1hour", "h", "1d"])
def test_a_time_that_ollama_does_not_read_is_refused_at_the_start(raw: str) -> None:
    with pytest.raises(WrongSetting, match="such as 1h, 5m or 90s"):
        load({"keep_alive": raw}, {})


@pytest.mark.parametrize("raw", ["https://*.example.org", "example.org", "https://example.org/app", "https://"])
def test_an_origin_that_no_browser_sends_is_refused(raw: str) -> None:
    with pytest.raises(WrongSetting, match="LLM_QUEUE_ORIGINS takes origins as browsers send them"):
        load({}, {"LLM_QUEUE_ORIGINS": f"https://good.example,{raw}"})


def test_origins_and_hosts_are_read_in_the_form_in_which_they_are_compared() -> None:
    settings = load({"origins": "HTTPS://Good.example/, *", "hosts": "LLM.lan:11500, [::1], box."}, {})
    assert settings.origins == ("https://good.example", "*")
    assert settings.hosts == ("llm.lan", "[::1]", "box")


@pytest.mark.parametrize("raw", ["*.lan", "http://llm.lan", "a/b"])
def test_a_host_name_that_never_matches_is_refused(raw: str) -> None:
    with pytest.raises(WrongSetting, match="LLM_QUEUE_HOSTS takes names such as"):
        load({}, {"LLM_QUEUE_HOSTS": raw})


def test_the_compiler_target_that_conda_puts_into_host_is_refused_with_the_way_out() -> None:
    with pytest.raises(WrongSetting, match="unset HOST, or give --host"):
        load({}, {"HOST": "x86_64-conda-linux-gnu"})


@pytest.mark.parametrize("pair", [("ollama_url", "gguf"), ("upstream_url", "gguf"), ("ollama_url", "upstream_url")])
def test_two_upstreams_are_refused_unless_one_is_chosen(pair: tuple[str, str]) -> None:
    flags = dict.fromkeys(pair, "http://x")
    with pytest.raises(WrongSetting, match="say which with --engine"):
        load(flags, {})
    assert load(flags | {"engine": "ollama"}, {}).engine == "ollama"
