"""What a GGUF file says of its model, and the memory that follows from it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_queue.upstream.embedded.gguf import Header, read_header
from llm_queue.upstream.embedded.memory import BOUND, OLD_PROMPTS, OVERHEAD, Budget
from tests.upstream.gguf_file import ARCHITECTURE, CONTEXT, entry, gguf, text

OTHERS = (
    entry("general.name", 8, text("x" * 100_000)),
    entry("a.flag", 7, b"\x01"),
    entry("a.number", 12, struct.pack("<d", 1.5)),
    entry("a.tokens", 9, struct.pack("<IQ", 8, 2) + text("one") + text("two")),
    entry("a.nested", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 5, 3) + bytes(12)),
)


@pytest.mark.parametrize(
    ("content", "trained"),
    [
        (gguf(ARCHITECTURE, CONTEXT), 2048),
        (gguf(*OTHERS, CONTEXT, ARCHITECTURE, version=2), 2048),
        (gguf(ARCHITECTURE, *OTHERS, entry("llama.context_length", 10, struct.pack("<Q", 131072))), 131072),
        (gguf(ARCHITECTURE, *OTHERS), None),
        (gguf(ARCHITECTURE, entry("clip.context_length", 4, bytes(4))), None),
        (gguf(ARCHITECTURE, CONTEXT, version=1), None),
        (gguf(ARCHITECTURE, CONTEXT)[:-1], None),
        (gguf(entry("x", 99, b"")), None),
        (gguf(struct.pack("<Q", 2**60)), None),
        (b"", None),
        (b"GGML" + bytes(100), None),
    ],
)
def test_the_trained_context_stands_in_the_file(content: bytes, trained: int | None, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert read_header(file).trained == trained


LLAMA = (
    ARCHITECTURE,
    CONTEXT,
    entry("llama.block_count", 4, struct.pack("<I", 30)),
    entry("llama.embedding_length", 4, struct.pack("<I", 576)),
    entry("llama.attention.head_count", 4, struct.pack("<I", 9)),
)
THREE_KV_HEADS = entry("llama.attention.head_count_kv", 4, struct.pack("<I", 3))
KV_HEADS_BY_LAYER = entry("llama.attention.head_count_kv", 9, struct.pack("<IQ3i", 5, 3, 4, 0, 2))
LENGTHS = (
    entry("llama.attention.key_length", 4, struct.pack("<I", 128)),
    entry("llama.attention.value_length", 10, struct.pack("<Q", 64)),
)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (gguf(*LLAMA, THREE_KV_HEADS), 2 * 30 * 3 * (64 + 64)),
        (gguf(*LLAMA), 2 * 30 * 9 * (64 + 64)),
        (gguf(*LLAMA, *LENGTHS, THREE_KV_HEADS), 2 * 30 * 3 * (128 + 64)),
        (gguf(*LLAMA, *LENGTHS, KV_HEADS_BY_LAYER), 2 * (4 + 0 + 2) * (128 + 64)),
        (gguf(*reversed(LLAMA), THREE_KV_HEADS), 2 * 30 * 3 * (64 + 64)),
        (gguf(ARCHITECTURE, CONTEXT), 0),
        (gguf(*LLAMA, entry("llama.attention.head_count_kv", 4, struct.pack("<I", 0))), 0),
        (gguf(*LLAMA, entry("llama.attention.head_count_kv", 9, struct.pack("<IQ", 8, 1) + text("x"))), 69120),
        (gguf(*LLAMA, THREE_KV_HEADS, entry("tokenizer.ggml.model", 8, text("gpt2")), *LENGTHS), 23040),
        (b"", 0),
    ],
)
def test_the_size_of_the_cache_follows_from_the_file(content: bytes, size: int, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert read_header(file).cache_per_token == size


def test_a_process_may_take_what_its_model_needs_and_a_bound(tmp_path: Path) -> None:
    content = gguf(*LLAMA, THREE_KV_HEADS)
    for name in ("one", "parts-00001-of-00002", "parts-00002-of-00002", "parts-00001-of-00003"):
        (tmp_path / f"{name}.gguf").write_bytes(content)
    rest = OVERHEAD + OLD_PROMPTS + 4096 * 2 * 30 * 3 * (64 + 64)
    one = Budget.of(tmp_path / "one.gguf", 4096, None)
    assert one == Budget(2 * len(content) + rest, 2 * len(content) + rest + BOUND)
    assert Budget.of(tmp_path / "parts-00001-of-00002.gguf", 4096, None).needed == 4 * len(content) + rest
    assert Budget.of(tmp_path / "one.gguf", 4096, 2**30) == Budget(one.needed, 2**30)
    assert Budget.of(tmp_path / "one.gguf", 4096, None, 0).needed == one.needed - 256 * 2**20


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda kind, value, rest: gguf(ARCHITECTURE, entry("llama.block_count", kind, value), CONTEXT)[:-rest],
            st.integers(0, 13), st.binary(max_size=40), st.integers(1, 200),
        ),
    )
)  # fmt: skip
def test_a_damaged_file_says_less_and_is_no_error(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    header = read_header(file)
    assert isinstance(header, Header)
    assert header.cache_per_token >= 0


def test_an_array_in_an_array_in_an_array_ends(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf(ARCHITECTURE, CONTEXT, entry("a.nested", 9, struct.pack("<IQ", 9, 1) * 100_000)))
    assert read_header(file).trained == 2048


@pytest.mark.parametrize("length", [2**63 - 300, 2**63, 2**64 - 1])
def test_a_text_of_a_length_that_no_file_has_ends_what_is_read(length: int, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf(entry("general.name", 8, struct.pack("<Q", length)), ARCHITECTURE, CONTEXT))
    assert read_header(file).trained is None
