"""Imports that cost less."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Have no garbage collected for as long as the block lasts.

    Imports make objects that stay, by the ten thousand. Python walks through them again and again meanwhile, which is a
    tenth of the time that a service takes to start.
    """
    usual = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if usual:
            gc.enable()
