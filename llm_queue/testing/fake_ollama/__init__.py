"""A fake Ollama over real sockets: its protocol and its rules, without its weight.

Run it as ``python -m llm_queue.testing.fake_ollama --port 0``, which prints ``listening on http://127.0.0.1:PORT``, or
call :func:`serve` in a test. What it keeps of the real one (0.33): a reload whenever the model or ``num_ctx`` differs
from what is resident, a default context when none is sent, ``keep_alive``, one engine that serves one request after the
other, loads and runs that die with their connection (end of file means gone), prompts that are cut to fit, and its
texts; ``tests/real`` holds it against the real one. A request is steered by its last user message, which may begin with
directives (:data:`~llm_queue.testing.fake_ollama.behaviour.DIRECTIVES`). ``GET /_fake/log`` tells what has happened.
"""

from __future__ import annotations

from llm_queue.testing.fake_ollama.behaviour import Behaviour
from llm_queue.testing.fake_ollama.server import FakeOllama, serve

__all__ = ["Behaviour", "FakeOllama", "serve"]
