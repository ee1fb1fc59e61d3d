"""The dashboard asks for metrics that there are, by labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_queue.metrics import families
from llm_queue.metrics.families import FAMILIES

FILE = Path(__file__).parent.parent.parent / "docs" / "grafana" / "llm-queue.json"

SERIES = {
    name: family
    for family in FAMILIES
    for name in (
        [family.name + end for end in ("_bucket", "_sum", "_count")] if family.kind == "histogram" else [family.name]
    )
}
OF_THE_SCRAPE = {"instance", "job"}
"""Labels that Prometheus adds."""

METRIC = re.compile(r"(?:llm_queue|vllm)[a-z_:]*")
ASKED = re.compile(r"(?P<name>(?:llm_queue|vllm)[a-z_:]*)(?:\{(?P<matchers>[^}]*)\})?")
BY = re.compile(r"sum by \(([a-z_, ]+)\) \(\w+\((?P<name>[a-z_:]+)")


def no_constants(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), f"a name is there twice: {names}"
    return dict(pairs)


DASHBOARD: dict[str, Any] = json.loads(
    FILE.read_text(encoding="utf-8"), parse_constant=no_constants, object_pairs_hook=no_doubles
)


def expressions(part: Any) -> Iterator[str]:
    """Every query in it."""
    if isinstance(part, dict):
        yield from (value for name, value in part.items() if name in ("expr", "definition") and isinstance(value, str))
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from expressions(value)


def faults(query: str) -> list[str]:
    """What a query asks for that there is not."""
    found = [name for name in METRIC.findall(query) if name not in SERIES]
    for match in ASKED.finditer(query):
        labels = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", match["matchers"] or "")
        known = {*SERIES[match["name"]].labels, *OF_THE_SCRAPE} if match["name"] in SERIES else set(labels)
        found += [f"{match['name']}{{{label}}}" for label in labels if label not in known]
    for match in BY.finditer(query):
        if match["name"] in SERIES:
            known = {*SERIES[match["name"]].labels, *OF_THE_SCRAPE, "le"}
            found += [f"by {label}" for label in match[1].split(", ") if label not in known]
    return found


def test_every_query_asks_for_what_there_is() -> None:
    asked = list(expressions(DASHBOARD))
    assert len(asked) > 25
    assert {query: faults(query) for query in asked if faults(query)} == {}


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("rate(llm_queue_waits_bucket[1m])", "llm_queue_waits_bucket"),
        ("llm_queue_wait_seconds", "llm_queue_wait_seconds"),
        ("rate(llm_queue_jobs[1m])", "llm_queue_jobs"),
        ('llm_queue_waiting_jobs{model="x"}', "llm_queue_waiting_jobs{model}"),
        ("sum by (le, model) (rate(llm_queue_wait_seconds_bucket[1m]))", "by model"),
    ],
)
def test_a_query_for_what_there_is_not_is_found(query: str, fault: str) -> None:
    assert fault in faults(query)


def test_every_panel_has_a_place_of_its_own_and_a_query() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + right, place["y"] + down) for right in range(place["w"]) for down in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["targets"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_it_is_not_bound_to_somebody_s_data_source() -> None:
    assert "${datasource}" in {variable.get("uid") for variable in sources(DASHBOARD)}
    assert {source["uid"] for source in sources(DASHBOARD)} == {"${datasource}"}


def sources(part: Any) -> list[dict[str, str]]:
    if isinstance(part, dict):
        own = [part["datasource"]] if isinstance(part.get("datasource"), dict) else []
        return own + [one for value in part.values() for one in sources(value)]
    return [one for value in part for one in sources(value)] if isinstance(part, list) else []


def test_the_dashboard_shows_every_metric_but_those_that_others_show_better() -> None:
    """vLLM's have dashboards of their own; the rest says the same in another way, or is no matter for a plot."""
    shown = {SERIES[name].name for query in expressions(DASHBOARD) for name in METRIC.findall(query)}
    assert {family.name for family in FAMILIES} - shown == {
        *(families.VLLM_WAITING.name, families.VLLM_RUNNING.name, families.BUILD.name),
        *(families.ACCEPTED.name, families.CLIENT_JOBS.name, families.UNKNOWN_LANES.name, families.REMOTE_RUNNING.name),
    }
