"""``python -m tests.fuzz.service``: the service itself, which tells two things more about itself.

On SIGUSR1 it writes how many trio tasks it has. And it writes each error that ended a connection and was contained
there: in the service's own log such an error is a matter for developers, and here it is one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Any

import trio

from llm_queue.__main__ import main
from llm_queue.web import listener


def count_tasks() -> int:
    """All tasks of the run that is going on in this thread."""
    root = trio.lowlevel.current_root_task()
    waiting, found = [root] if root is not None else [], 0
    while waiting:
        task = waiting.pop()
        found += 1
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


def tell(**facts: Any) -> None:
    """Write one line, in one piece."""
    os.write(1, b"fuzz " + json.dumps(facts).encode() + b"\n")


def tell_tasks(*_: object) -> None:
    """Answer the signal."""
    tell(tasks=count_tasks())


class Telling:
    """Stands in for the listener's logger, and tells its errors."""

    def debug(self, event: str, *, exc_info: BaseException) -> None:
        leaves: list[BaseException] = [exc_info]
        while any(isinstance(one, BaseExceptionGroup) for one in leaves):
            leaves = [
                inner for one in leaves for inner in (one.exceptions if isinstance(one, BaseExceptionGroup) else (one,))
            ]
        for error in leaves:
            frames = traceback.extract_tb(error.__traceback__)
            where = [f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno}" for frame in frames[-3:]]
            tell(contained=repr(error)[:300], where=where)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, tell_tasks)
    listener._log = Telling()
    sys.exit(main())
