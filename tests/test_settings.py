"""Flags over the environment over the defaults, and a wrong value is one line that says where it came from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import pytest

from llm_queue import launch
from llm_queue.settings import Knob, Settings, WrongSetting, knobs, load

KNOBS = {knob.name: knob for knob in knobs()}

WRONG = {
    "port": ["", "http", "-1", "65536", "1.5", "0x10", ",", "11500;11434", "11500,x", "11500,65536"],
    "allow_open": ["maybe", "2", ""],
    "ollama_url": ["", "ftp://localhost", "http://", "http://localhost:port"],
    "num_ctx": ["0", "-1", "8k", "1e3"],
    "engine_memory": [
        "",
        "0",
        "-1",
        "nan",
        "1e10",
        "4 apples",
        "GiB",
        "4 G i B",
        "63MiB",
        "2000TiB",
        "٤GiB",
        "9" * 5000,
    ],
    "engine_cache": ["-1", "off", "2000TiB"],
    "keep_prompts": ["0", "-1", "1023KiB", "2000TiB", "off"],
    "alias": ["x", "=x", "x=", "a=b=c", "a=b*", "a=b c", "a=b,c"],
    "max_attempts": ["0", "11", "two"],
    "attempt_timeout": ["0", "-1", "nan", "inf", "soon"],
    "max_wait": ["-1", "nan", "never"],
    "max_depth": ["3", "501"],
    "hold": ["perhaps"],
    "log_format": ["xml", "JSON", ""],
}


def refusal(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> str:
    with pytest.raises(WrongSetting) as caught:
        load(flags, environ)
    return str(caught.value)


# --- which value counts ---


def test_with_nothing_given_the_defaults_stand() -> None:
    assert load({}, {}) == Settings()


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    assert load({}, {}).max_waiting == 2000
    assert load({}, {"LLM_QUEUE_MAX_WAITING": "7"}).max_waiting == 7
    assert load({"max_waiting": "8"}, {"LLM_QUEUE_MAX_WAITING": "7"}).max_waiting == 8


def test_a_flag_that_is_not_given_is_none_and_counts_for_nothing() -> None:
    assert load({"max_waiting": None}, {"LLM_QUEUE_MAX_WAITING": "7"}).max_waiting == 7


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_counts_as_unset(empty: str) -> None:
    assert load({}, {"PORT": empty, "OLLAMA_MODEL": empty}) == Settings()


def test_a_flag_makes_a_wrong_variable_irrelevant() -> None:
    assert load({"port": "0"}, {"PORT": "http"}).port == (0,)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = (1,)  # type: ignore[misc]  # that it cannot is the point


# --- names ---


@pytest.mark.parametrize(
    ("variable", "raw", "field", "value"),
    [
        ("OLLAMA_URL", "http://10.0.0.7:11434", "ollama_url", "http://10.0.0.7:11434"),
        ("OLLAMA_MODEL", "llama3.2:3b", "model", "llama3.2:3b"),
        ("OLLAMA_NUM_CTX", "4096", "num_ctx", 4096),
        ("LLM_MAX_ATTEMPTS", "3", "max_attempts", 3),
        ("LLM_TIMEOUT_MS", "90000", "attempt_timeout", 90.0),
        ("PORT", "8080", "port", (8080,)),
        ("HOST", "::1", "host", "::1"),
    ],
)
def test_the_ancestors_variables_keep_their_meaning(variable: str, raw: str, field: str, value: object) -> None:
    assert getattr(load({}, {variable: raw}), field) == value


def test_every_other_name_follows_from_the_field() -> None:
    assert (KNOBS["max_waiting"].flag, KNOBS["max_waiting"].env) == ("--max-waiting", "LLM_QUEUE_MAX_WAITING")
    ancestors = {"OLLAMA_URL", "OLLAMA_MODEL", "OLLAMA_NUM_CTX", "LLM_MAX_ATTEMPTS", "LLM_TIMEOUT_MS", "PORT", "HOST"}
    assert ancestors <= {knob.env for knob in KNOBS.values()}
    for knob in KNOBS.values():
        assert knob.env in ancestors or knob.env == "LLM_QUEUE_" + knob.name.upper()
        assert knob.flag == "--" + knob.name.replace("_", "-")


def test_no_two_settings_share_a_flag_or_a_variable() -> None:
    assert len({knob.flag for knob in KNOBS.values()}) == len({knob.env for knob in KNOBS.values()}) == len(KNOBS)


@pytest.mark.parametrize("knob", KNOBS.values(), ids=lambda knob: knob.name)
def test_every_default_is_a_value_that_could_have_been_given(knob: Knob) -> None:
    if knob.default in (None, "", ()):
        return
    assert knob.parse(launch._raw(knob.default)) == knob.default
    assert knob.help


# --- units and shapes ---


def test_the_ancestors_timeout_is_in_milliseconds_and_its_flag_in_seconds() -> None:
    assert load({}, {"LLM_TIMEOUT_MS": "1500"}).attempt_timeout == 1.5
    assert load({"attempt_timeout": "1.5"}, {"LLM_TIMEOUT_MS": "90000"}).attempt_timeout == 1.5


@pytest.mark.parametrize("raw", ["0", "-1", "nan", "90s", "1e999"])
def test_a_wrong_timeout_in_milliseconds_is_blamed_in_milliseconds(raw: str) -> None:
    text = refusal({}, {"LLM_TIMEOUT_MS": raw})
    assert text.startswith("LLM_TIMEOUT_MS ")
    assert "milliseconds" in text


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("localhost:11434", "http://localhost:11434"),
        ("http://localhost:11434/", "http://localhost:11434"),
        (" https://ollama.example/base/ ", "https://ollama.example/base"),
        ("[::1]:11434", "http://[::1]:11434"),
    ],
)
def test_an_address_may_be_written_in_short(raw: str, url: str) -> None:
    assert load({"ollama_url": raw}, {}).ollama_url == url


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        ("4GiB", 4 * 2**30),
        ("4G", 4 * 2**30),
        (" 4 gib ", 4 * 2**30),
        ("4GB", 4 * 10**9),
        ("1.5g", 3 * 2**29),
        ("900m", 900 * 2**20),
        ("100000k", 100_000 * 2**10),
        ("1TiB", 2**40),
        ("4294967296", 2**32),
        ("4294967296 bytes", 2**32),
        ("4294967296B", 2**32),
    ],
)
def test_a_size_is_read_as_people_write_it(raw: str, size: int) -> None:
    assert load({"engine_memory": raw}, {}).engine_memory == size
    assert load({}, {"LLM_QUEUE_ENGINE_MEMORY": str(size)}).engine_memory == size


@pytest.mark.parametrize(("raw", "seconds"), [("none", None), ("NONE", None), ("0", 0.0), ("2.5", 2.5)])
def test_a_max_wait_may_be_none(raw: str, seconds: float | None) -> None:
    assert load({"max_wait": raw}, {}).max_wait == seconds


@pytest.mark.parametrize("raw", ["on", "1", "TRUE", " yes "])
def test_a_switch_has_the_usual_words(raw: str) -> None:
    assert load({"allow_open": raw}, {}).allow_open is True
    assert load({"hold": "off"}, {}).hold is False


@pytest.mark.parametrize("raw", ["11500,11434", " 11500 , 11434,", "11500,11434,11500"])
def test_several_ports_are_comma_separated_and_each_counts_once(raw: str) -> None:
    assert load({"port": raw}, {}).port == load({}, {"PORT": raw}).port == (11500, 11434)


def test_a_list_is_comma_separated() -> None:
    assert load({"origins": "https://a.example, https://b.example,"}, {}).origins == (
        "https://a.example",
        "https://b.example",
    )


def test_aliases_are_pairs_of_a_name_and_a_model() -> None:
    settings = load({}, {"LLM_QUEUE_ALIAS": "claude-*=qwen3:8b, *=small"})
    assert settings.alias == ("claude-*=qwen3:8b", "*=small")
    assert settings.aliases == (("claude-*", "qwen3:8b"), ("*", "small"))
    assert load({"alias": "a = b"}, {"LLM_QUEUE_ALIAS": "x=y"}).aliases == (("a", "b"),)


# --- what cannot be ---


@pytest.mark.parametrize(("name", "raw"), [(name, raw) for name, raws in WRONG.items() for raw in raws])
def test_a_wrong_flag_is_one_line_that_names_it_and_what_it_takes(name: str, raw: str) -> None:
    text = refusal({name: raw}, {})
    assert text.startswith(f"{KNOBS[name].flag} takes ")
    assert repr(raw) in text
    assert "\n" not in text


@pytest.mark.parametrize(("name", "raw"), [(name, raw) for name, raws in WRONG.items() for raw in raws if raw])
def test_a_wrong_variable_is_one_line_that_names_it(name: str, raw: str) -> None:
    text = refusal({}, {KNOBS[name].env: raw})
    assert text.startswith(f"{KNOBS[name].env} takes ")
    assert "\n" not in text


@pytest.mark.parametrize("knob", KNOBS.values(), ids=lambda knob: knob.name)
def test_no_number_is_beyond_all_bounds(knob: Knob) -> None:
    if isinstance(knob.default, (int, float)) and not isinstance(knob.default, bool):
        for raw in ("nan", "inf", "-inf", "1e999", "-1", "9" * 5000):
            with pytest.raises(ValueError, match="takes"):
                knob.parse(raw)


def test_the_floor_may_not_be_above_the_ceiling() -> None:
    text = refusal({"num_ctx": "5000", "num_ctx_ceiling": "4000"}, {})
    assert "--num-ctx" in text
    assert "--num-ctx-ceiling 4000" in text


@pytest.mark.parametrize("host", [None, "localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"])
def test_loopback_needs_no_key(host: str | None) -> None:
    assert load({"host": host}, {}).on_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "box.local", "localhost.evil.example"])
def test_other_machines_need_a_key_or_a_word_that_they_do_not(host: str) -> None:
    text = refusal({}, {"HOST": host})
    assert host in text
    assert "LLM_QUEUE_API_KEYS" in text
    assert "LLM_QUEUE_ALLOW_OPEN=1" in text
    assert not load({}, {"HOST": host, "LLM_QUEUE_API_KEYS": "secret"}).on_loopback
    assert not load({}, {"HOST": host, "LLM_QUEUE_ALLOW_OPEN": "1"}).on_loopback


def test_a_key_is_never_shown() -> None:
    for flags, environ in (
        ({"api_keys": "s3cret", "port": "x"}, {}),
        ({"port": "x"}, {"LLM_QUEUE_API_KEYS": "s3cret"}),
        ({"num_ctx": "70000"}, {"LLM_QUEUE_API_KEYS": "cron=s3cret"}),
    ):
        assert "s3cret" not in refusal(flags, environ)
    assert load({"api_keys": "cron=s3cret, other"}, {}).api_keys == ("cron=s3cret", "other")


def test_a_key_is_not_in_what_settings_look_like() -> None:
    assert "s3cret" not in repr(load({"api_keys": "cron=s3cret"}, {}))


def test_seconds_that_are_given_are_finite() -> None:
    assert all(math.isfinite(value) for value in vars(Settings()).values() if isinstance(value, float))
