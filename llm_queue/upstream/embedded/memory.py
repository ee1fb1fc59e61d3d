"""How much memory an engine's process may take.

What counts is its resident memory, looked at from outside, and no limit of the kernel: RLIMIT_AS counts the mapped
model file and all that is only reserved (64 MiB per thread, and a GPU's driver reserves more than the machine has), and
an allocation that RLIMIT_DATA refuses is an exception that llama.cpp may answer with status 500 and live on. Neither
exists on Windows. A look costs microseconds; between two of them a process can take some hundred MiB more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from llm_queue.upstream.embedded.gguf import read_header

OLD_PROMPTS: Final = 256 * 2**20
"""Bytes in which an engine keeps old prompts, unless the setting says otherwise."""

OVERHEAD: Final = 2**30 - OLD_PROMPTS
"""Bytes that a process needs for any model, besides old prompts: compute buffers, Python and libraries."""

BOUND: Final = 2**30
"""Bytes that it may take above what it needs, unless the setting says otherwise."""

PART: Final = re.compile(r"-(\d{5})-of-(\d{5})$")
"""The end of the name of a model's file that is one of several, without its ending."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes. ``needed`` is what the model takes while it works on nothing unusual; above ``limit`` it is ended."""

    needed: int
    limit: int

    @classmethod
    def of(cls, path: Path, num_ctx: int, limit: int | None, old_prompts: int = OLD_PROMPTS) -> Self:
        """The budget of this file's model at this context size; ``limit`` is the setting, None where it is not set.
        ``old_prompts`` is the memory for them.

        Weights count twice: llama.cpp may repack them for the processor, beside the mapped file. Raises
        :class:`OSError`.
        """
        weights = sum(part.stat().st_size for part in parts(path))
        needed = OVERHEAD + old_prompts + 2 * weights + num_ctx * read_header(path).cache_per_token
        return cls(needed, needed + BOUND if limit is None else limit)


def shown(size: int) -> str:
    """A size for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def parts(path: Path) -> list[Path]:
    """All files of the model whose first, or only, file this is."""
    part = PART.search(path.stem)
    if part is None:
        return [path]
    stem = path.stem.removesuffix(part[0])
    every = (path.with_name(f"{stem}-{number:05}-of-{part[2]}{path.suffix}") for number in range(1, int(part[2]) + 1))
    return [one for one in every if one.exists()]
