"""The anthropic SDKs."""

from __future__ import annotations

from tests.clients.features import Client, Features


class TestMessages(Features):
    clients = (
        Client("anthropic, Python", "anthropic_sdk.py", "sdks", address=""),
        Client("anthropic, Node", "anthropic_sdk.mjs", address=""),
    )
