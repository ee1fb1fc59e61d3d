"""A model's file, made to say that it is for embeddings."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

HEADER = struct.Struct("<4sIQQ")  # magic, version, number of tensors, number of keys
ALIGNMENT = 32  # bytes; the tensors begin at a multiple of it
UINT32, STRING = 4, 8
MEAN = 1


def with_pooling(source: Path, target: Path, architecture: str = "llama") -> None:
    """Copy a GGUF, with the key that makes Ollama and llama.cpp embed with it: the mean of its tokens' vectors.

    Its answers are as long as those of an embedding model and mean little. Raises ``ValueError`` if it is no GGUF.
    """
    with source.open("rb") as file:
        magic, version, tensors, keys = HEADER.unpack(file.read(HEADER.size))
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"{source} is not a GGUF that is known here")
        added = _key(f"{architecture}.pooling_type") + struct.pack("<II", UINT32, MEAN)
        filler = _key("padding") + struct.pack("<IQ", STRING, 0)
        # What is put in front of the tensors is a multiple of the alignment, so that they stay where they may be.
        length = -(len(added) + len(filler)) % ALIGNMENT
        filler = _key("padding") + struct.pack("<IQ", STRING, length) + b" " * length
        with target.open("wb") as copy:
            copy.write(HEADER.pack(magic, version, tensors, keys + 2) + added + filler)
            shutil.copyfileobj(file, copy)


def _key(name: str) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode()
