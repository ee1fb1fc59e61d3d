"""The page of the documentation that benchmarks write: each its own section, between two marks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

PAGE: Final = Path("docs", "performance.md")


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Put ``text`` in the place of what the benchmark ``name`` has written before. Raises ``ValueError`` if the page
    has no such place.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    whole = page.read_text(encoding="utf-8")
    written, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: begin + text.strip("\n") + "\n" + end,
        whole,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{page} has no place for what {name} writes")
    page.write_text(written, encoding="utf-8")
