"""What the line's own task can be asked to do between two events."""

from __future__ import annotations

from collections.abc import Callable

from llm_queue.core.events import Event

Step = Callable[[], Event | None]
"""Something small that the line's own task calls, and the event that follows from it, if one does. That it is called
shows that the line still takes events.
"""
