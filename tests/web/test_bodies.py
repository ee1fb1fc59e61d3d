"""Compressed bodies: what comes out is what went in, within limits, or an error that says what to send."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.errors import BadRequest, BodyTooLarge, LineFull, UnsupportedEncoding
from llm_queue.settings import Settings
from llm_queue.web import bodies
from llm_queue.web.app import create_quart
from llm_queue.web.bodies import FED, PIECE, decoded, known_encoding

LIMIT = 4 * PIECE


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, tuple[str, Any]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "gzip in two members": ("gzip", lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:])),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", bare_deflate),
}


def ignore(size: int) -> None:
    """A line with room for everything."""


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("data", [b"", b"{}", b"hello " * 1000, bytes(3 * PIECE)], ids=len)
async def test_a_body_is_decoded_as_it_was(coding: str, data: bytes) -> None:
    encoding, pack = CODINGS[coding]
    sizes: list[int] = []
    assert await decoded(pack(data), encoding, LIMIT, sizes.append) == data
    assert sum(sizes) == len(data)
    assert max(sizes) <= PIECE


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_small_body_that_becomes_a_huge_one_is_refused_before_it_is_huge(coding: str) -> None:
    encoding, pack = CODINGS[coding]
    sizes: list[int] = []
    with pytest.raises(BodyTooLarge, match="--max-body"):
        await decoded(pack(bytes(100 * LIMIT)), encoding, LIMIT, sizes.append)
    assert sum(sizes) <= LIMIT + PIECE


async def test_what_is_decoded_counts_as_arriving() -> None:
    def full(size: int) -> None:
        raise LineFull

    with pytest.raises(LineFull):
        await decoded(gzip.compress(b"hello"), "gzip", LIMIT, full)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_body_that_is_cut_short_is_a_bad_request(coding: str) -> None:
    encoding, pack = CODINGS[coding]
    whole = pack(b"hello, hello, hello")
    for size in range(len(whole)):
        if encoding == "gzip" and coding.endswith("members") and size == len(gzip.compress(b"hel")):
            continue  # the first member is a whole body by itself
        with pytest.raises(BadRequest):
            await decoded(whole[:size], encoding, LIMIT, ignore)


@given(data=st.binary(max_size=200), encoding=st.sampled_from(("gzip", "x-gzip", "deflate")))
async def test_bytes_of_any_kind_are_a_body_or_a_bad_request(data: bytes, encoding: str) -> None:
    with contextlib.suppress(BadRequest, BodyTooLarge):
        assert len(await decoded(data, encoding, LIMIT, ignore)) <= LIMIT


async def test_a_body_of_many_members_costs_no_copies_of_all_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []

    class Watched:
        def __init__(self, wbits: int) -> None:
            self._stream = zlib.decompressobj(wbits)

        def decompress(self, data: memoryview, max_length: int) -> bytes:
            fed.append(len(data))
            return self._stream.decompress(data, max_length)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    monkeypatch.setattr(bodies, "zlib", SimpleNamespace(decompressobj=Watched, error=zlib.error))
    members = [gzip.compress(b"%d " % number) for number in range(3000)]
    assert (await decoded(b"".join(members), "gzip", LIMIT, ignore)).split() == [b"%d" % n for n in range(3000)]
    assert max(fed) <= FED < len(b"".join(members))


async def test_bytes_behind_a_deflate_stream_are_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        await decoded(zlib.compress(b"hi") + b"more", "deflate", LIMIT, ignore)


@pytest.mark.parametrize("header", [None, "", "identity", "Identity", " , "])
def test_a_plain_body_is_known_by_its_header(header: str | None) -> None:
    assert known_encoding(header) is None


@pytest.mark.parametrize("header", ["gzip", " GZIP ", "identity, gzip"])
def test_gzip_is_known_by_its_header(header: str) -> None:
    assert known_encoding(header) == "gzip"


@pytest.mark.parametrize("header", ["zstd", "br", "compress", "gzip, gzip", "gzip, br", "é"])
def test_an_encoding_that_is_not_read_is_named_with_those_that_are(header: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="gzip") as caught:
        known_encoding(header)
    assert header.split(", ")[-1] in caught.value.message


async def post(line: Any, body: bytes, encoding: str) -> tuple[int, Any, Any]:
    client = create_quart(Settings(model="small", max_body=1000), line).test_client()
    response: Any = await client.post("/v1/chat/completions", data=body, headers={"Content-Encoding": encoding})
    return response.status_code, msgspec.json.decode(await response.get_data()), response.headers


async def test_a_compressed_request_is_read_as_a_plain_one(line: Any) -> None:
    status, parsed, _ = await post(line, gzip.compress(b'{"model": "small", "messages": []}'), "gzip")
    assert (status, parsed["error"]["param"]) == (400, "messages")


async def test_a_compressed_bomb_is_413(line: Any) -> None:
    status, parsed, _ = await post(line, gzip.compress(bytes(100_000)), "gzip")
    assert (status, parsed["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("encoding", ["zstd", "br"])
async def test_a_body_in_another_encoding_is_415_and_says_which_are_read(line: Any, encoding: str) -> None:
    status, parsed, headers = await post(line, b"(\xb5/\xfd", encoding)
    assert (status, parsed["error"]["code"]) == (415, "unsupported_encoding")
    assert encoding in parsed["error"]["message"]
    assert headers["Accept-Encoding"] == "gzip, deflate"
