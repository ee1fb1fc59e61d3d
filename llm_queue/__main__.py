"""``python -m llm_queue``, and the command ``llm-queue``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run it, and return the exit code; Ctrl-C has no traceback, not even while the imports last."""
    try:
        from llm_queue import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
