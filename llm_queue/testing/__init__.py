"""Upstreams that do as they are told, for tests: ours and those of programs that call llm-queue.

:class:`ScriptedUpstream` lives in memory and on any clock; :mod:`llm_queue.testing.fake_ollama` is a process that
speaks Ollama's protocol over real sockets.
"""

from __future__ import annotations

from llm_queue.testing.scripted import LoadRecord, RunRecord, ScriptedUpstream, prompt_of, scripted_model
from llm_queue.testing.scripts import Break, Busy, Garble, Hang, Refuse, Say, Script, Stall

__all__ = [
    "Break",
    "Busy",
    "Garble",
    "Hang",
    "LoadRecord",
    "Refuse",
    "RunRecord",
    "Say",
    "Script",
    "ScriptedUpstream",
    "Stall",
    "prompt_of",
    "scripted_model",
]
