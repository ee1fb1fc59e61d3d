"""API keys as settings have them: how they are written, and the file in which they may stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_queue import cli, launch
from llm_queue.settings import Settings, WrongSetting, load
from llm_queue.settings.keys import ApiKey, KeysFile, _check_who_may_read, api_key, keys_file

POSIX = os.name == "posix"


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("s3cret", ApiKey("s3cret")),
        ("c2VjcmV0==", ApiKey("c2VjcmV0==")),
        ("cron=s3cret", ApiKey("s3cret", "cron")),
        ("cron=c2VjcmV0==", ApiKey("c2VjcmV0==", "cron")),
        ("cron=s3cret lane=background", ApiKey("s3cret", "cron", "background")),
        ("cron=s3cret share=0.1", ApiKey("s3cret", "cron", share=0.1)),
        ("  cron=s3cret  share=10   lane=normal ", ApiKey("s3cret", "cron", "normal", 10.0)),
        ("s3cret lane=normal", ApiKey("s3cret", lane="normal")),
        ("lane=normal", ApiKey("normal", "lane")),  # the first word is the key, whatever it looks like
    ],
)
def test_a_key_is_one_word_and_what_it_may_follows(written: str, key: ApiKey) -> None:
    assert api_key(written) == key
    assert load({"api_keys": written}, {}).keys == (key,)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " , ,",
        "s3cret s3cret2",
        "cron=s3cret lane",
        "cron=s3cret lane=",
        "cron=s3cret lane=urgent",
        "cron=s3cret lane=Normal",
        "cron=s3cret lane=normal lane=normal",
        "cron=s3cret share=0",
        "cron=s3cret share=0.09",
        "cron=s3cret share=10.5",
        "cron=s3cret share=nan",
        "cron=s3cret share=-1",
        "cron=s3cret share=inf",
        "cron=s3cret share=s3cret",
        "cron=s3cret sahre=2",
        "cron=s3cret s3cret=2",
        "s3cret share=2",
    ],
)
def test_what_is_no_key_is_refused_without_a_word_of_it(written: str) -> None:
    with pytest.raises(WrongSetting) as caught:
        load({"api_keys": written}, {})
    assert str(caught.value).startswith("--api-keys takes ")
    assert "s3cret" not in str(caught.value)


def test_a_key_is_not_in_what_it_looks_like() -> None:
    assert "s3cret" not in repr(api_key("cron=s3cret"))
    assert "s3cret" not in repr(KeysFile("keys", [api_key("cron=s3cret")]))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    return path


def test_a_file_has_one_key_a_line_and_comments(file: Path) -> None:
    file.write_text(
        "# whose is whose\n\ncron=one lane=background share=0.5  # the night's work\r\ndesk=two\n   three\n"
    )
    settings = load({}, {"LLM_QUEUE_API_KEYS_FILE": str(file)})
    assert settings.keys == (ApiKey("one", "cron", "background", 0.5), ApiKey("two", "desk"), ApiKey("three"))
    assert settings.api_keys == ()


def test_keys_of_both_places_count(file: Path) -> None:
    file.write_text("desk=two")
    settings = load({"api_keys_file": str(file)}, {"LLM_QUEUE_API_KEYS": "cron=one"})
    assert [key.name for key in settings.keys] == ["cron", "desk"]


def test_keys_in_a_file_are_keys_enough_for_other_machines(file: Path) -> None:
    file.write_text("two")
    assert not load({"api_keys_file": str(file)}, {"HOST": "0.0.0.0"}).on_loopback


@pytest.mark.parametrize("content", ["", "\n\n", "# nothing\n   # here\n"])
def test_a_file_without_a_key_is_refused_rather_than_let_everybody_in(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(WrongSetting, match="would let everybody in"):
        load({"api_keys_file": str(file)}, {})


def test_a_wrong_line_is_named_by_its_number_and_not_shown(file: Path) -> None:
    file.write_text("ok\n# fine\ns3cret with=words\n")
    with pytest.raises(WrongSetting, match="--api-keys-file has a line 3 that cannot be read") as caught:
        load({"api_keys_file": str(file)}, {})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (2**20 + 1)])
def test_what_is_no_file_of_keys_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(WrongSetting, match="takes a file of keys"):
        load({"api_keys_file": str(file)}, {})


@pytest.mark.parametrize("path", ["/nowhere/at/all", "~nobody-has-this-name/keys", "."])
def test_a_file_that_cannot_be_read_ends_the_start(path: str) -> None:
    with pytest.raises(WrongSetting, match="can be read"):
        load({"api_keys_file": path}, {})


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o620, 0o660, 0o777])
def test_a_file_that_others_may_read_or_change_is_refused_with_what_to_do(mode: int) -> None:
    with pytest.raises(ValueError, match=f"mode {mode:o}: `chmod 600` it"):
        _check_who_may_read(mode, "posix")
    _check_who_may_read(mode, "nt")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640, 0o700])
def test_a_file_of_its_owner_and_for_a_group_to_read_is_taken(mode: int) -> None:
    _check_who_may_read(mode, "posix")


@pytest.mark.skipif(not POSIX, reason="a mode says nothing there")
def test_the_mode_of_the_very_file_is_looked_at(file: Path) -> None:
    file.write_text("two")
    file.chmod(0o644)
    with pytest.raises(ValueError, match="mode 644"):
        keys_file(str(file))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("a=same,b=same", "a key is there twice, once for b"),
        ("same,same", "a key is there twice"),
        ("a=one share=2,a=two", "a has two shares, 2 and 1"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(keys: str, why: str) -> None:
    with pytest.raises(WrongSetting, match=why) as caught:
        load({"api_keys": keys}, {})
    assert "same" not in str(caught.value)


def test_a_name_may_have_two_keys_while_one_replaces_the_other() -> None:
    assert len(load({"api_keys": "a=one share=2 lane=normal,a=two share=2"}, {}).keys) == 2


def test_another_process_of_ours_gets_the_path_on_its_command_line_and_no_key(file: Path) -> None:
    file.write_text("cron=s3cret share=2")
    settings = load({"api_keys_file": str(file), "api_keys": "desk=hidden lane=normal"}, {})
    command = launch.command(settings)
    assert f"--api-keys-file={file}" in command
    assert not any("s3cret" in word or "hidden" in word for word in command)
    assert launch.secrets(settings) == {"LLM_QUEUE_API_KEYS": "desk=hidden lane=normal"}
    flags = vars(cli.parser().parse_args(command[3:]))
    assert load(flags, launch.environment(settings, {})) == settings


def test_settings_that_are_made_by_hand_have_keys_too() -> None:
    assert Settings(api_keys=("ci=abc",)).keys == (ApiKey("abc", "ci"),)
