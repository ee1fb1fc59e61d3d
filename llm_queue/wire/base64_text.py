"""Base64 from strangers."""

from __future__ import annotations

import binascii
from typing import Final

from llm_queue.errors import BadRequest

_LINE_ENDS: Final = str.maketrans("", "", "\r\n")


def without_line_ends(data: str) -> str:
    """The same base64 on one line: encoders for mail break it at 76 characters."""
    return data.translate(_LINE_ENDS)


def decoded(data: str, field: str, what: str) -> bytes:
    """The bytes of a ``what`` in base64, whose lines may end anywhere.

    Raises :class:`~llm_queue.errors.BadRequest` that blames ``field``, for what is not base64.
    """
    try:
        return binascii.a2b_base64(without_line_ends(data).encode(), strict_mode=True)
    except binascii.Error as error:
        raise BadRequest(f"{field}: the {what} is not valid base64: {error}.", param=field) from None


def checked_image(data: str, field: str) -> str:
    """An image in base64 on one line.

    Raises :class:`~llm_queue.errors.BadRequest` that blames ``field``, for what is not base64, and for an empty one.
    """
    if not decoded(data, field, "image"):
        raise BadRequest(f"{field}: the image is empty.", param=field)
    return without_line_ends(data)
