"""Which names may stand in ``Host``: no name of the public DNS, whatever it looks like."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_queue.errors import Forbidden
from llm_queue.settings import Settings
from llm_queue.web.gate import AccessRules
from llm_queue.web.hosts import RESERVED, cannot_be_rebound, is_this_machine, name_in, names_of

HERE = AccessRules.of(Settings(), machine="Desk.corp.example")

LABELS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True)
TOP_LEVEL = st.sampled_from(("com", "io", "example", "dev", "zip", "lan", "home", "box", "xn--p1ai", "arpa", "uk"))
LOOKS_LOCAL = st.sampled_from(
    (
        "localhost",
        "127.0.0.1",
        "0.0.0.0",
        "host.docker.internal",
        "desk.local",
        "internal",
        "local",
        "desk",
        "192-168-0-5",
    )
)
PORTS = st.one_of(st.just(""), st.integers(0, 65535).map(":{}".format))
PUBLIC = st.tuples(
    st.lists(st.one_of(LABELS, LOOKS_LOCAL), min_size=1, max_size=4).map(".".join),
    TOP_LEVEL,
    st.sampled_from(("", ".")),
).map(lambda parts: f"{parts[0]}.{parts[1]}{parts[2]}")


@given(PUBLIC, PORTS, st.booleans())
@example("localhost.evil.com", ":11500", False)
@example("127.0.0.1.nip.io", "", False)
@example("7f000001.c0a80005.rbndr.us", ":11500", False)
@example("xn--lcalhost-54a.com", "", True)
@example("desk.lan.evil.com.", ":80", True)
def test_a_name_of_the_public_dns_is_refused(name: str, port: str, upper: bool) -> None:
    host = (name.upper() if upper else name) + port
    if name.rstrip(".") in HERE.hosts:
        return
    with pytest.raises(Forbidden, match="LLM_QUEUE_HOSTS"):
        HERE.check_host(host)


@given(st.text(max_size=30))
def test_text_of_any_kind_is_a_known_host_or_refused(host: str) -> None:
    name = name_in(host.lower())
    assert HERE.knows_host(host) <= (name is not None)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), PORTS)
def test_an_address_passes_because_it_cannot_be_rebound(address: IPv4Address | IPv6Address, port: str) -> None:
    HERE.check_host((f"[{address}]" if address.version == 6 else str(address)) + port)


@given(st.lists(LABELS, min_size=1, max_size=3).map(".".join), st.sampled_from(RESERVED), PORTS)
def test_a_name_that_the_public_dns_never_has_passes(name: str, domain: str, port: str) -> None:
    HERE.check_host(f"{name}.{domain}{port}")


@pytest.mark.parametrize(
    "host",
    [
        "host.docker.internal:11500",
        "gateway.docker.internal",
        "host.containers.internal",
        "Desk.local:11500",
        "desk",
        "desk.lan",
        "DESK.corp.example:11500",
        "llm-queue:11500",  # the name of a service in a Compose file
        "0.0.0.0:11500",
        "[::]:11500",
        "192.168.0.5:11500",
        "10.0.2.2",
        "[fd00::1]:11500",
        "[::ffff:127.0.0.1]",
        "localhost.",
        "desk.local.",
    ],
)
def test_the_names_of_this_machine_pass(host: str) -> None:
    HERE.check_host(host)


@pytest.mark.parametrize(
    "host",
    ["127.1", "2130706433", "0x7f.1", "0x7f000001", "ai.", "loc\u0430lhost.com", "localhost%00.com"],
)
def test_an_odd_spelling_is_refused(host: str) -> None:
    with pytest.raises(Forbidden):
        HERE.check_host(host)


def test_another_machine_s_name_is_refused() -> None:
    for host in ("corp.example", "other.corp.example", "other.lan"):
        with pytest.raises(Forbidden):
            HERE.check_host(host)


def test_a_machine_without_a_name_adds_none() -> None:
    assert names_of("") == frozenset()
    assert not cannot_be_rebound("evil.lan")


@given(PUBLIC)
def test_a_page_of_the_public_dns_is_no_page_of_this_machine(name: str) -> None:
    assert not is_this_machine(name.lower())


@pytest.mark.parametrize("name", ["192.168.0.5", "host.docker.internal", "desk.local", "desk", "8.8.8.8"])
def test_a_page_of_another_machine_in_the_house_is_no_page_of_this_one(name: str) -> None:
    assert not is_this_machine(name)
    with pytest.raises(Forbidden, match="LLM_QUEUE_ORIGINS"):
        HERE.check_origin(f"http://{name}:3000", "localhost:11500")
