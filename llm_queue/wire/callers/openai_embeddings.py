"""OpenAI's embeddings: a vector for each text, as numbers or as base64."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct, field

from llm_queue.errors import QueueError, UpstreamBroke, UpstreamRefused
from llm_queue.wire.callers.dialect import Operation, Parsed, Progress, RequestLimits, Served
from llm_queue.wire.callers.openai import OPENAI, error_json
from llm_queue.wire.callers.openai_answers import event_of
from llm_queue.wire.callers.openai_parameters import decode, line_wishes, texts_of
from llm_queue.wire.fields import Count, Name
from llm_queue.wire.shapes import Answer, Completion, EmbedRequest, Piece


class EmbeddingBody(Struct, kw_only=True):
    """The request body."""

    input: str | list[Any]
    model: Name | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    num_ctx: Count | None = None
    num_ctx_camel: Count | None = field(name="numCtx", default=None)
    # Of any type: what they say to the line is never an error.
    priority: Raw = field(default_factory=Raw)
    service_tier: Raw = field(default_factory=Raw)


class EmbeddingReply(Struct, frozen=True):
    """The form of the answer: ``count`` vectors of ``dimensions`` numbers (None: as many as the model has).

    ``base64``: each vector is a text, not a list.
    """

    count: int
    base64: bool = False
    dimensions: int | None = None


_BODY: Final = msgspec.json.Decoder(EmbeddingBody)


def parse_embedding(body: bytes, limits: RequestLimits) -> Parsed[EmbeddingReply]:
    """Read and check a request body.

    Raises :class:`~llm_queue.errors.BadRequest`, with the field that is wrong as its ``param``.
    """
    asked = decode(body, _BODY, limits)
    inputs = tuple(texts_of(asked.input, "input", limits.max_messages))
    return Parsed(
        EmbedRequest(asked.model or "", inputs, asked.dimensions),
        EmbeddingReply(len(inputs), asked.encoding_format == "base64", asked.dimensions),
        wishes=line_wishes(asked, limits),
    )


class EmbeddingEncoder:
    """Implements :class:`~llm_queue.wire.callers.dialect.Encoder`: one body, for nobody streams vectors."""

    def __init__(self, reply: EmbeddingReply, served: Served) -> None:
        self._reply = reply
        self._served = served

    def whole(self, answer: Answer) -> bytes:
        """The answer as one body.

        Raises :class:`~llm_queue.errors.UpstreamBroke` if it has not a vector per text, and
        :class:`~llm_queue.errors.UpstreamRefused` if these are of another length than was asked for.
        """
        vectors, dimensions = answer.vectors, self._reply.dimensions
        if len(vectors) != self._reply.count:
            raise UpstreamBroke(f"The upstream sent {len(vectors)} vectors for {self._reply.count} texts.")
        if dimensions is not None and any(len(vector) != dimensions for vector in vectors):
            raise UpstreamRefused(
                f"dimensions: the upstream answers with {len(vectors[0])} numbers all the same; leave the field out.",
                param="dimensions",
            )
        tokens = answer.completion.prompt_tokens or 0
        body = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _packed(vector) if self._reply.base64 else vector}
                for index, vector in enumerate(vectors)
            ],
            "model": self._served.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return msgspec.json.encode(body) + b"\n"

    def begin(self) -> bytes:
        return b""

    def pieces(self, _pieces: Sequence[Piece]) -> bytes:
        return b""

    def waiting(self, _progress: Progress) -> bytes:
        return b""

    def end(self, _completion: Completion) -> bytes:
        return b""

    def error(self, error: QueueError) -> bytes:
        return event_of(error_json(error))


EMBEDDINGS: Final = Operation(OPENAI, parse_embedding, EmbeddingEncoder, body=EmbeddingBody)


def _packed(vector: tuple[float, ...]) -> str:
    """The numbers as 32-bit floats, the lowest byte first, in base64."""
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except OverflowError:
        raise UpstreamBroke("The upstream sent a vector with a number that 32 bits cannot hold.") from None
