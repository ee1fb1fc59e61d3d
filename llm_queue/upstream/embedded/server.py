"""llama.cpp's HTTP server in a process of ours: what it has beyond the dialect that all such servers share."""

from __future__ import annotations

from typing import Final

import msgspec
import trio

from llm_queue.errors import UpstreamBroke
from llm_queue.upstream.openai import OpenAIServer
from llm_queue.wire.upstreams.openai_request import LLAMA_CPP

ASK_AGAIN: Final = 0.05
"""Seconds between two questions whether it still works."""

ENGINE_AT_FAULT: Final = ("compute error", "invalid input batch", "empty grammar stack", "bad_alloc")
"""What the text of a status 500 holds if the engine failed. Every other one is an exception about the request, such as
a picture for a model without eyes, a tool without a name, or a conversation that the chat template does not take."""


class _Slot(msgspec.Struct):
    """``n_prompt_tokens`` are those in it, the answer's too; where nothing was computed, there is no such field."""

    is_processing: bool
    n_prompt_tokens: int = 0


class SlotWritten(msgspec.Struct):
    """How many tokens were written to a file, and how many bytes."""

    n_saved: int
    n_written: int


_SLOTS: Final = msgspec.json.Decoder(list[_Slot])
_WRITTEN: Final = msgspec.json.Decoder(SlotWritten)


class LlamaServer(OpenAIServer):
    """One model at one context size, at ``url`` behind the key ``api_key``. ``name`` is for messages."""

    def __init__(self, url: str, api_key: str | None = None, *, name: str) -> None:
        super().__init__(
            url,
            api_key,
            name=name,
            unreachable="It is started again.",
            sampling=LLAMA_CPP,
            caller_at_fault=caller_at_fault,
        )

    @property
    def closed_after(self) -> float:
        """Seconds that it took to close the connection of the last answer that was given up; infinity: it did not."""
        return self._api.closed_after

    async def idle(self) -> None:
        """Return when it works on nothing. If it is stuck, wait until cancelled, or for an error.

        That a connection was closed says less: its HTTP threads close it at once, while the one thread that computes
        goes on to the end of its batch, and without an end if that hangs. This question is answered by that thread.
        Raises :class:`~llm_queue.errors.UpstreamError`.
        """
        while True:
            if not any(slot.is_processing for slot in await self._slots()):
                return
            await trio.sleep(ASK_AGAIN)

    async def tokens_in_slot(self) -> int:
        """How many tokens were computed there since the process started; 0 while it works on something.

        Raises :class:`~llm_queue.errors.UpstreamError`.
        """
        slots = await self._slots()
        return 0 if any(slot.is_processing for slot in slots) else sum(slot.n_prompt_tokens for slot in slots)

    async def save_slot(self, file: str) -> SlotWritten:
        """Write the slot to a file of this name in the process's folder. Raises
        :class:`~llm_queue.errors.UpstreamError`; part of the file may be there then.
        """
        answer = await self._api.ask("POST", "/slots/0?action=save", msgspec.json.encode({"filename": file}))
        try:
            return _WRITTEN.decode(answer)
        except (msgspec.DecodeError, ValueError):
            raise UpstreamBroke(f"{self.name} does not say what it has written.") from None

    async def restore_slot(self, file: str) -> None:
        """Read the slot from that file. Raises :class:`~llm_queue.errors.UpstreamRefused` if it is no such file, or
        does not fit, and :class:`~llm_queue.errors.ConnectionLost` if it ends the process.
        """
        await self._api.ask("POST", "/slots/0?action=restore", msgspec.json.encode({"filename": file}))

    async def _slots(self) -> list[_Slot]:
        try:
            return _SLOTS.decode(await self._api.ask("GET", "/slots"))
        except (msgspec.DecodeError, ValueError):
            raise UpstreamBroke(f"{self.name} does not say what it works on.") from None


def caller_at_fault(status: int, text: str) -> int:
    """The status for a request that would fail again: llama.cpp's answer has status 500 for some of these too."""
    if status == 500 and not any(fault in text.lower() for fault in ENGINE_AT_FAULT):
        return 400
    return status if 400 <= status < 500 else 0
