"""Agents of a terminal, without a terminal and without a sign-in, where they can reach nobody but the service."""

from __future__ import annotations

from tests.clients.features import Client, Features

SHELL = '!tool Bash {"command": "echo sunny in Paris", "description": "Say what the weather is."}'
EXEC = '!tool exec_command {"cmd": "echo sunny in Paris"}'
NO_STREAM = {"stream": "it prints messages when they are whole"}


class TestClaude(Features):
    clients = (
        Client(
            "Claude Code",
            "claude_command.py",
            address="",
            agent=True,
            calls=SHELL,
            unknown=r"unheard-of.*may not exist",
            structured='!tool StructuredOutput {"answer": 42}',
        ),
    )


class TestCodex(Features):
    clients = (
        Client("Codex", "codex_command.py", agent=True, calls=EXEC, without=NO_STREAM),
        # with --oss it looks for the exact name in what /api/tags lists, and pulls what is not there
        Client(
            "Codex: --oss",
            "codex_command.py",
            variant="oss",
            model="fake:latest",
            unknown=r"(?s)unheard-of.*ollama pull",
            agent=True,
            calls=EXEC,
            without=NO_STREAM,
        ),
    )
