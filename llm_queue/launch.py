"""How another process of ours is started with the settings that this one has."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from llm_queue.settings import Knob, Settings, knobs
from llm_queue.settings.values import ServerUrl


def command(settings: Settings) -> list[str]:
    """The command line of a service with these settings: this interpreter, and a flag for all that is no default.

    Secrets are not in it, since every user of the machine can read command lines: see :func:`secrets`.
    """
    flags = [f"{knob.flag}={_raw(value)}" for knob, value in _changed(settings) if not _is_secret(knob, value)]
    return [sys.executable, "-m", "llm_queue", *flags]


def secrets(settings: Settings) -> dict[str, str]:
    """The environment variables that the command line lacks."""
    return {knob.env: _raw(value) for knob, value in _changed(settings) if _is_secret(knob, value)}


def environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` for that command line: what it says of our settings counts no more, but for the secrets."""
    ours = {knob.env for knob in knobs()}
    return {name: value for name, value in environ.items() if name not in ours} | secrets(settings)


def _changed(settings: Settings) -> list[tuple[Knob, Any]]:
    values = [(knob, getattr(settings, knob.name)) for knob in knobs()]
    return [(knob, value) for knob, value in values if value != knob.default]


def _is_secret(knob: Knob, value: Any) -> bool:
    """True for keys, and for an address that has a password in it."""
    return knob.secret or (isinstance(value, ServerUrl) and value.authorization is not None)


def _raw(value: Any) -> str:
    """What the setting's parser reads as this value."""
    if isinstance(value, ServerUrl):
        return value.raw
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
