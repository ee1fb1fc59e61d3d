"""Imports that cost less."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Have no garbage collected for as long as the block lasts, and leave all that this process has made by its end out
    of later collections, until somebody calls ``gc.unfreeze``.

    Imports make objects that stay, by the ten thousand. Python walks through them again and again meanwhile, and once
    more after it, which is a fifth of the time that a service takes to start.
    """
    usual = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if usual:
            gc.enable()
