"""Base64 from strangers."""

from __future__ import annotations

import base64

import pytest

from llm_queue.errors import BadRequest
from llm_queue.wire.base64_text import checked_image, decoded

WIDE = base64.encodebytes(bytes(range(256))).decode().replace("\n", "\r\n")


def test_lines_may_end_anywhere_and_are_joined() -> None:
    assert decoded(WIDE, "field", "file") == bytes(range(256))
    assert checked_image(WIDE, "field") == base64.b64encode(bytes(range(256))).decode()


@pytest.mark.parametrize("data", ["a", "%%%%", "YWJj=YWJj", "é"])
def test_what_is_no_base64_is_refused_by_its_field(data: str) -> None:
    with pytest.raises(BadRequest, match=r"^field: the file is not valid base64") as caught:
        decoded(data, "field", "file")
    assert caught.value.param == "field"


def test_an_empty_file_is_one_and_an_empty_image_is_none() -> None:
    assert decoded("", "field", "file") == b""
    with pytest.raises(BadRequest, match="the image is empty"):
        checked_image("\n", "field")
