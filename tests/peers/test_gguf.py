from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.peers.gguf import ALIGNMENT, HEADER, with_pooling

REST = b"keys and tensors"


def test_the_keys_are_added_and_the_tensors_stay_aligned(tmp_path: Path) -> None:
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    source.write_bytes(HEADER.pack(b"GGUF", 3, 272, 30) + REST)
    with_pooling(source, target)
    written = target.read_bytes()
    assert HEADER.unpack_from(written) == (b"GGUF", 3, 272, 32)
    assert written.endswith(REST)
    assert (len(written) - len(source.read_bytes())) % ALIGNMENT == 0
    key = b"llama.pooling_type"
    assert written[HEADER.size :].startswith(struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, 1))


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "a.gguf"
    source.write_bytes(HEADER.pack(b"GGML", 3, 1, 1))
    with pytest.raises(ValueError, match="is not a GGUF"):
        with_pooling(source, tmp_path / "b.gguf")
