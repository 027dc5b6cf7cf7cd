"""The management address changes: the host has the old or the new one at all times.

In Ethernet mode and in EVPN mode, by `apply` and by `rollback`. The tests print the longest time in
which the controller got an answer from neither.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from lab.fabric import Host, Lab, eventually
from tests.lab import figures
from tests.lab.k8s01 import (
    Payload,
    addresses,
    bring_up,
    change,
    established,
    payload,
    underlay,
)
from tests.lab.systems import SYSTEMS

OLD = {
    "ifname": "ens4",
    "ipv4": "10.12.0.101/16",
    "gateway": "10.12.0.1",
    "ipv6": "fd00:12::101/64",
    "gateway6": "fd00:12::1",
}
NEW: dict[str, dict[str, str]] = {
    "address": {"ipv4": "10.12.0.77/16"},
    "prefix": {"ipv4": "10.12.0.101/24"},
    "IPv6 address": {"ipv6": "fd00:12::77/64"},
    "IPv6 prefix": {"ipv6": "fd00:12::101/60"},
    "subnet": {
        "ipv4": "10.13.0.77/16",
        "gateway": "10.13.0.1",
        "ipv6": "fd00:13::77/64",
        "gateway6": "fd00:13::1",
    },
    "NIC": {"ifname": "ens5"},
}
GATEWAYS = ("10.12.0.1/16", "10.13.0.1/16", "fd00:12::1/64", "fd00:13::1/64")
BRIDGE = "nbr-14"
_gaps: defaultdict[str, float] = defaultdict(float)
"""By mode, the longest one of all tests so far."""


def document(**management: str) -> Payload:
    """Return K8S01's payload with this management address; the V-Net has a gateway for each."""
    whole = payload()
    whole["server"]["mgmt"] |= management or OLD
    for each in whole["vnets"]:
        if each["vxlanID"] == 14:
            each["gateways"] = [{"prefix": prefix} for prefix in GATEWAYS]
    return whole


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP, whose controller has an IPv6 address too."""
    _gaps.clear()
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    # Step by step: bgpd of FRR 8.4 on the lab's leaves crashed when it got all lines at once.
    bring_up(lab)
    change(lab, document())
    lab.fabric.controller.run("ip address replace fd00:12::5/64 dev eth0 nodad".split())
    lab.fabric.controller.run("ip -6 route replace default via fd00:12::1".split())
    return lab


@pytest.fixture(params=["EVPN", "Ethernet"])
def mode(request: pytest.FixtureRequest, lab: Lab) -> str:
    """The host reaches the management V-Net by the fabric, or by its untagged port."""
    on = request.param == "EVPN"
    underlay(lab.fabric, on=on)
    eventually(lambda: established(lab.host) == ({"ens4", "ens5"} if on else set()))
    lab.host.apply(document())
    wait_until_exactly(lab, OLD, BRIDGE if on else OLD["ifname"])
    return str(request.param)


def wait_until_exactly(lab: Lab, management: dict[str, str], device: str) -> None:
    """Wait until one device has these addresses and their default routes, and no other has any."""
    host = lab.host
    expected = {management[key] for key in ("ipv4", "ipv6") if key in management}
    gateways = {(management[k], device) for k in ("gateway", "gateway6") if k in management}

    def state() -> bool:
        on = {name: ours(host, name) for name in (BRIDGE, "ens4", "ens5")}
        return (
            on[device] == expected
            and not any(held for name, held in on.items() if name != device)
            and defaults(host) == gateways
        )

    eventually(state)
    # The lab's leaves do not route between IPv6 prefixes of one V-Net.
    for address in sorted(each for each in expected if not each.startswith("fd00:13:")):
        eventually(lambda: lab.fabric.controller.ping(address.partition("/")[0], count=1))  # noqa: B023


def ours(host: Host, device: str) -> set[str]:
    """Return the addresses of a device that are, or were, management addresses."""
    known = {value for each in (OLD, *NEW.values()) for value in each.values() if "/" in value}
    return addresses(host, device) & known


def defaults(host: Host) -> set[tuple[str, str]]:
    """Return gateways and devices of all default routes."""
    routes = [
        route
        for family in ("-4", "-6")
        for route in host.run(["ip", family, "-json", "route", "show", "default"]).json
    ]
    return {(route["gateway"], route["dev"]) for route in routes}


@contextlib.contextmanager
def watched(lab: Lab, old: str, new: str, title: str) -> Iterator[None]:
    """Fail unless one of two addresses always exists; print how long neither has answered."""
    host, controller = lab.host, lab.fabric.controller
    both = {old, new}
    present = [(d, a) for d in (BRIDGE, "ens4", "ens5") for a in ours(host, d) & both]
    monitor = host.start(["ip", "-o", "monitor", "address"])
    with (
        controller.pinging(old.partition("/")[0], 0.05) as first,
        controller.pinging(new.partition("/")[0], 0.05) as second,
    ):
        yield
    holders, before = set(present), True
    for line in monitor.stop().out.splitlines():
        words = line.removeprefix("Deleted ").split()
        if len(words) < 4 or words[3] not in both:
            continue
        pair = (words[1], words[3])
        (holders.discard if line.startswith("Deleted") else holders.add)(pair)
        # The kernel may delete a secondary address with its primary; the next line brings it back.
        assert holders or before, f"none of {both} was there: {line}"
        before = bool(holders)
    times = sorted(
        float(time)
        for ping in (first, second)
        for time in re.findall(r"^\[([0-9.]+)\] \d+ bytes from", ping.result.output, re.MULTILINE)
    )
    gap = max(b - a for a, b in itertools.pairwise(times))
    print(f"renumbering, {title}: the longest time without an answer was {gap:.2f} s")
    mode = title.partition(",")[0]
    _gaps[mode] = max(_gaps[mode], gap)
    name = f"renumbering, {mode} mode: longest time without an answer"
    figures.write(lab, name, f"{_gaps[mode]:.2f} s")


@pytest.mark.parametrize("name", NEW)
@pytest.mark.claim(
    "18.15",
    "During a renumbering the host has the old address or the new one, there and back",
)
def test_renumbering(lab: Lab, mode: str, name: str) -> None:
    """The address changes by `apply`, back by `rollback`, and to and fro by `apply`."""
    host = lab.host
    # The lab's leaves may not notice that an IPv6 address has another port.
    old = {k: v for k, v in OLD.items() if name != "NIC" or "6" not in k}
    new = old | NEW[name]
    host.apply(document(**old))
    old_device, new_device = (BRIDGE if mode == "EVPN" else each["ifname"] for each in (old, new))
    with watched(lab, old["ipv4"], new["ipv4"], f"{mode}, {name}, apply"):
        result = host.apply(document(**new))
        wait_until_exactly(lab, new, new_device)
    assert "management" in result.out
    if name in {"address", "subnet"}:
        assert f"still has {old['ipv4']}" in result.err
    with watched(lab, new["ipv4"], old["ipv4"], f"{mode}, {name}, rollback"):
        host.evpn_host("rollback")
        wait_until_exactly(lab, old, old_device)
    for management, where in ((new, new_device), (old, old_device)):
        host.apply(document(**management))
        wait_until_exactly(lab, management, where)
    assert host.evpn_host("status", "--json").json["differences"] == []


@pytest.mark.claim(
    "18.16",
    "If the operator's file brings the old address back, it is removed and reported",
)
def test_the_operators_file_is_old(lab: Lab, mode: str) -> None:
    """The operator's file brings the old address back, and the hook removes it again."""
    host, new = lab.host, OLD | NEW["address"]
    device = BRIDGE if mode == "EVPN" else "ens4"
    host.apply(document(**new))
    wait_until_exactly(lab, new, device)
    host.run(["ip", "address", "replace", OLD["ipv4"], "dev", "ens4", "brd", "+"])
    wait_until_exactly(lab, new, device)
