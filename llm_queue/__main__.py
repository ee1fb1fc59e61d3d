"""``python -m llm_queue``, and the command ``llm-queue``."""

from __future__ import annotations

import sys

INTERRUPTED = 130
READER_GONE = 141  # what shells say of a process that SIGPIPE ended


def main() -> int:
    """Run it, and return the exit code.

    Ctrl-C has no traceback, not even while the imports last, and neither has a reader that leaves, as in
    ``llm-queue simulate | head``.
    """
    code = 0
    try:
        from llm_queue.imports import uncollected

        with uncollected():
            from llm_queue import cli, log

        try:
            code = cli.main()
            if sys.stdout is not None and not sys.stdout.closed:
                sys.stdout.flush()
        except* BrokenPipeError:
            code = READER_GONE
        except* OSError as errors:
            if any(error.filename is not None for error in leaves(errors)):
                raise
            log.complain(f"llm-queue: {leaves(errors)[0]}")
            code = 1
        log.drop_output()
    except* KeyboardInterrupt:
        code = INTERRUPTED
    return code


def leaves(group: BaseExceptionGroup[OSError]) -> list[OSError]:
    """The errors in a group, however deep."""
    found: list[OSError] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
