"""What is attacked: every route that the service has, with bodies that it takes."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from llm_queue.settings import Settings
from llm_queue.web.app import create_quart
from llm_queue.web.openapi import BODIES, address_of, methods_of
from llm_queue.wire.callers.routes import ROUTES
from tests.fuzz.seeds import CLOSED, MISSING, MODEL, SEEDS, Json
from tests.fuzz.values import fields_of, value_of
from tests.web.conftest import FakeLine

STOPS = frozenset(("/queue/drain", "/queue/pause"))
"""Orders that would stop what is attacked, so that nothing more could be learned of it."""


@dataclass(frozen=True)
class Target:
    """One method of one route. ``path`` has values where the route has names; ``body`` is the type that is read."""

    method: str
    path: str
    seeds: tuple[Json, ...] = ()
    body: type | None = None

    @property
    def missing(self) -> bool:
        """True if its body is about what is not there."""
        return self.path.startswith("/queue/jobs/") and self.body is not None

    @property
    def closed(self) -> bool:
        """True if nothing can be done there, whatever is sent."""
        return self.path.startswith("/api/") and self.method in ("POST", "DELETE") and self.body is None

    def value(self, draw: random.Random) -> Json:
        """A body that is nearly always valid: one of the seeds, and other fields of the type with values of theirs."""
        made = dict(draw.choice(self.seeds)) if self.seeds else {}
        fields = fields_of(self.body) if self.body is not None else {}
        for name in draw.sample(sorted(fields), min(len(fields), draw.choice((0, 1, 2, 5)))):
            if name not in made or draw.random() < 0.1:
                made[name] = value_of(fields[name], draw)
        return made


ENDLESS: Final = "/queue/events"
"""A stream that goes on for as long as somebody reads it. Its own tests play it."""


@cache
def targets() -> tuple[Target, ...]:
    """Every route whose answer has an end but those in :data:`STOPS`, with each of its methods."""
    bodies = {route.path: route.operation.body for route in ROUTES} | BODIES
    found = []
    for rule in create_quart(Settings(model=MODEL), FakeLine()).url_map.iter_rules():
        address = address_of(rule)
        if address in STOPS or address == ENDLESS:
            continue
        path = re.sub(r"{[a-z_]+}", MODEL, address)
        seeds = (SEEDS | CLOSED | MISSING).get(address.removeprefix("/v1"), ())
        found += [
            Target(method, path, seeds if method == "POST" else (), bodies.get(address)) for method in methods_of(rule)
        ]
    return tuple(sorted(found, key=lambda one: (one.path, one.method)))


def asked(*, body: bool) -> tuple[Target, ...]:
    """Those that take a body, or those that do not."""
    return tuple(one for one in targets() if bool(one.seeds) == body)
