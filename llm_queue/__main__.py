"""``python -m llm_queue``."""

from __future__ import annotations

import sys

from llm_queue.cli import main

if __name__ == "__main__":
    sys.exit(main())
