"""The parts of a message of the Responses dialect: texts, images and files.

Nothing is ever fetched, and nothing was ever stored: a part that is only a name of something that lies elsewhere cannot
be read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.base64_text import checked_image, decoded
from llm_queue.wire.callers import responses_shapes as shapes

T = TypeVar("T")

PART_SEPARATOR: Final = "\n"
"""Between the parts of one message, as vLLM and llama-server join them."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_IMAGE: Final = re.compile(r"data:(?:image/(?:jpeg|jpg|png|webp))?;base64,", re.IGNORECASE)
_DATA_URL: Final = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)

_KIND: Final = msgspec.json.Decoder(shapes.Kind)
_TEXT: Final = msgspec.json.Decoder(shapes.TextPart)
_REFUSAL: Final = msgspec.json.Decoder(shapes.RefusalPart)
_IMAGE_PART: Final = msgspec.json.Decoder(shapes.ImagePart)
_FILE: Final = msgspec.json.Decoder(shapes.FilePart)


class Reader:
    """Reads pieces of one request, and remembers what of it could not be used."""

    def __init__(self, max_depth: int) -> None:
        self._max_depth = max_depth
        self.skipped: list[str] = []
        """Names of what was left out, for :attr:`~llm_queue.wire.wishes.Wishes.dropped`."""

    def kind(self, raw: Raw, place: str) -> str | None:
        """The type of an item or a part."""
        return self.read(raw, _KIND, place).type

    def read(self, raw: Raw, decoder: msgspec.json.Decoder[T], place: str) -> T:
        """The piece at ``place``. Raises :class:`~llm_queue.errors.BadRequest` with the field that is wrong."""
        return strict_json.part(raw, decoder, place)

    def check_text(self, text: str, place: str) -> None:
        """Refuse a JSON text within the request that is too large to be read by an upstream."""
        strict_json.check_bounds(text.encode(), self._max_depth, within=place)

    def skip(self, where: str, kind: str | None) -> None:
        """Leave out a ``kind`` of thing. It is named in a header, so it must look like a name."""
        self.skipped.append(f"{where}.{kind}" if kind and _NAME.fullmatch(kind) else where)

    def content(self, content: str | Iterable[Raw], place: str) -> tuple[str, tuple[str, ...]]:
        """The text and the images of what the caller says.

        Raises :class:`~llm_queue.errors.BadRequest` for a part that cannot be read: it was meant to be.
        """
        return self._join(content, place, replayed=False)

    def replayed(self, content: str | Iterable[Raw], place: str) -> tuple[str, tuple[str, ...]]:
        """The same of what the caller only repeats: its history. What cannot be read is skipped."""
        return self._join(content, place, replayed=True)

    def _join(self, content: str | Iterable[Raw], place: str, *, replayed: bool) -> tuple[str, tuple[str, ...]]:
        if isinstance(content, str):
            return content, ()
        texts: list[str] = []
        images: list[str] = []
        for index, raw in enumerate(content):
            kind = None
            try:
                kind = self.kind(raw, f"{place}[{index}]")
                text, image = self._part(kind, raw, f"{place}[{index}]")
            except BadRequest:
                if not replayed:
                    raise
                self.skip("input", kind)
            else:
                texts += text
                images += image
        return PART_SEPARATOR.join(texts), tuple(images)

    def _part(self, kind: str | None, raw: Raw, place: str) -> tuple[list[str], list[str]]:
        """The texts and the images of one part."""
        match kind:
            case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
                return [self.read(raw, _TEXT, place).text], []
            case "refusal":
                return [self.read(raw, _REFUSAL, place).refusal], []
            case "input_image" | "image_url":
                return [], [_image(self.read(raw, _IMAGE_PART, place), place)]
            case "input_file":
                return [_file(self.read(raw, _FILE, place), place)], []
            case _:
                field = f"{place}.type"
                raise BadRequest(f"{field}: send input_text, input_image or input_file.", param=field)


def _image(part: shapes.ImagePart, place: str) -> str:
    """The base64 of an image. Nothing is ever fetched: a server that follows its clients' URLs is their proxy."""
    field = f"{place}.image_url"
    given = part.image_url.url if isinstance(part.image_url, shapes.ImageUrl) else part.image_url
    prefix = _IMAGE.match(given or "")
    if given is None or prefix is None:
        raise BadRequest(
            f"{field}: images are neither stored nor fetched here; send a base64 data: URL, "
            "data:image/png;base64,… (jpeg, png or webp).",
            param=field,
        )
    return checked_image(given[prefix.end() :], field)


def _file(part: shapes.FilePart, place: str) -> str:
    """A file's text, below its name. Of other files nobody here can make text."""
    field = f"{place}.file_data"
    if part.file_data is None:
        raise BadRequest(f"{field}: files are neither stored nor fetched here; send the file itself.", param=field)
    prefix = _DATA_URL.match(part.file_data)
    if prefix is None and part.file_data[:5].lower() == "data:":
        raise BadRequest(f"{field}: send its base64, alone or as data:text/plain;base64,…", param=field)
    try:
        text = decoded(part.file_data[prefix.end() if prefix else 0 :], field, "file").decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{field}: only text files (UTF-8) are read here; send the text of it.", param=field) from None
    return f"{part.filename}{PART_SEPARATOR}{text}" if part.filename else text
