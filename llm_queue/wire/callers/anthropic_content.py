"""From Anthropic's blocks of content to text and images.

Text stays as it is. Where Anthropic has blocks, the models' templates have one text and a list of images: the texts of
one message are joined with a newline, and the images keep their order among themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire.base64_text import checked_image
from llm_queue.wire.callers import anthropic_shapes as shapes
from llm_queue.wire.strict_json import part

SEPARATOR: Final = "\n"

IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")


class Said(NamedTuple):
    """What some content says."""

    text: str = ""
    images: tuple[str, ...] = ()


def blocks(content: Sequence[msgspec.Raw], place: str) -> Iterator[tuple[str, msgspec.Raw, str]]:
    """The type of each block, the block, and its place. Raises :class:`~llm_queue.errors.BadRequest`."""
    for index, raw in enumerate(content):
        field = f"{place}[{index}]"
        yield part(raw, shapes.BLOCK, field).type, raw, field


def said_in(content: shapes.Content, place: str) -> Said:
    """Text and images of content that a person or a tool has written.

    Raises :class:`~llm_queue.errors.BadRequest` for a block that cannot be passed on.
    """
    if isinstance(content, str):
        return Said(content)
    return join([said_by(kind, raw, field) for kind, raw, field in blocks(content, place)])


def said_by(kind: str, raw: msgspec.Raw, field: str) -> Said:
    """Text and images of one block. Raises :class:`~llm_queue.errors.BadRequest`."""
    match kind:
        case "text":
            return Said(part(raw, shapes.TEXT, field).text)
        case "image":
            return Said(images=(_image(part(raw, shapes.IMAGE, field).source, f"{field}.source"),))
        case "document":
            return _document(part(raw, shapes.DOCUMENT, field), field)
        case "search_result":
            found = part(raw, shapes.SEARCH_RESULT, field)
            about = [Said(words) for words in (found.title, found.source) if words]
            return join([*about, said_in(found.content, f"{field}.content")])
        case "tool_reference":
            return Said(part(raw, shapes.TOOL_REFERENCE, field).tool_name)
        case _:
            raise BadRequest(f"{field}.type: a block of the type {kind[:60]!r} is not supported here.", param=field)


def join(said: Sequence[Said]) -> Said:
    """All of it as one: the texts with a newline between them, and the images."""
    texts = SEPARATOR.join(one.text for one in said if one.text)
    return Said(texts, tuple(image for one in said for image in one.images))


def _document(document: shapes.Document, field: str) -> Said:
    source, place = document.source, f"{field}.source"
    about = [Said(words) for words in (document.title, document.context) if words]
    match source.type:
        case "text" if source.data is not None:
            return join([*about, Said(source.data)])
        case "content" if source.content is not None:
            return join([*about, said_in(source.content, f"{place}.content")])
        case "text" | "content":
            missing = "data" if source.type == "text" else "content"
            raise BadRequest(f"{place}.{missing}: this field is required.", param=f"{place}.{missing}")
        case _:
            raise BadRequest(
                f"{place}: a document is read here only as plain text; send it with a source of the type text, "
                "not as PDF, file or URL.",
                param=place,
            )


def _image(source: shapes.Source, field: str) -> str:
    """The base64 of an image. Nothing is ever fetched: a server that follows its clients' URLs is their proxy."""
    if source.type != "base64" or source.data is None:
        raise BadRequest(
            f"{field}: images are not fetched, and no files are kept; send it as base64 (jpeg, png, gif or webp).",
            param=field,
        )
    if source.media_type is not None and source.media_type.lower() not in IMAGES:
        raise BadRequest(f"{field}.media_type: it is one of {', '.join(IMAGES)}.", param=f"{field}.media_type")
    return checked_image(source.data, f"{field}.data")
