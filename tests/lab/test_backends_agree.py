"""The same payload on both backends gives the same kernel and the same FRR, by their JSON.

The fields below must differ, each for its reason; everything else is compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from lab.fabric import Lab, at_rest, eventually
from tests.conftest import BACKENDS
from tests.lab.claims import runs_on
from tests.lab.evpn import VTEP
from tests.lab.k8s01 import (
    DUAL,
    DUAL_2,
    TENANT_A,
    bare_metal,
    bring_up,
    established,
    guest,
    payload,
    vnet,
)
from tests.lab.systems import NEXT_RELEASES, RELEASES

SEVERAL = vnet(60, 50, "172.20.0.254/24", "172.21.0.254/24", "fd00:172:20::1/64", mtu=1400)
L2_ONLY = vnet(61, 50)

# Fields that are not compared, wherever they stand, and why.
IGNORED = {
    "ifindex": "counts devices in the order in which they were created",
    "link_index": "of the lab's cables: the other end's number",
    "link_netnsid": "of the lab's cables: the other end's namespace",
    "gc_timer": "runs",
    "hello_timer": "runs",
    "tcn_timer": "runs",
    "topology_change_timer": "runs",
    "valid_life_time": "runs",
    "preferred_life_time": "runs",
    "uptime": "runs",
    "message_age_timer": "runs",
    "forward_delay_timer": "runs",
    "hold_timer": "runs",
    "altnames": "udev adds them at some time",
    "used": "runs",
    "refcnt": "runs",
    "sviIfindex": "counts devices in the order in which they were created",
    "vxlanIfindex": "counts devices in the order in which they were created",
    "rd": "its last part counts VNIs in the order in which FRR learnt them",
    "numArpNd": "neighbours come and go",
    "numMacs": "MACs come and go",
    "broadcast": "networkd sets an IPv4 broadcast address, ifupdown2 only if it is configured",
    "mcast_hash_max": "ifupdown2 sets 512 groups a bridge, networkd leaves the kernel's 4096",
    "multicast_router": "ifupdown2 always gives a VXLAN port multicast, networkd leaves it to IGMP",
    "mcast_router": "the same, as bridge(8) says it",
    "udp_csum": "outer UDP checksum: networkd has none, ifupdown2 the default; RFC 7348 has both",
    "reserved_bits": "a mask that the kernel makes of the flags, the last one among them",
}
# Fields that are not compared for some devices or routes, and why.
IGNORED_OF = {
    ("vxlan", "l3vx-", "Vrf_"): {"address": "random and without a meaning: no frame has it"},
    ("lo", "Vrf_"): {"inet6_addr_gen_mode": "networkd sets `none` on devices that it manages"},
    ("nbr-14", "nbr-61"): {"inet6_addr_gen_mode": "the same; without a gateway IPv6 is off there"},
}
IGNORED_OF_UNREACHABLE = {"protocol": "who put it there"}
# networkd's and ifupdown2's way to write the operator's own default route.
OPERATORS = ("main", "default")


def _without(value: Any) -> Any:
    """Return the same JSON without the fields that are not compared."""
    if isinstance(value, dict):
        ignored = set(IGNORED)
        for prefixes, more in IGNORED_OF.items():
            if str(value.get("ifname", "")).startswith(prefixes):
                ignored |= more.keys()
        if str(value.get("host", "")).startswith("fe80:"):
            ignored.add("host")  # of a route `via inet6`: each lab's leaf has its own
        if value.get("type") == "unreachable":
            ignored |= IGNORED_OF_UNREACHABLE.keys()
        return {k: _without(v) for k, v in sorted(value.items()) if k not in ignored}
    if isinstance(value, list):
        # A route's next hops have no order.
        return sorted((_without(each) for each in value), key=json.dumps)
    return value


def kernel(lab: Lab) -> dict[str, list[str]]:
    """Return what iproute2 prints about devices, addresses, routes, rules and bridges."""
    run = lab.host.run
    state: dict[str, Any] = {
        "links": run(["ip", "-details", "-json", "link"]).json,
        "addresses": run(["ip", "-json", "address"]).json,
        "bridge ports": run(["bridge", "-details", "-json", "link"]).json,
    }
    for family in ("-4", "-6"):
        state[f"rules {family}"] = run(["ip", family, "-json", "rule"]).json
        for table in ("main", "1033", "1050"):
            routes = run(["ip", family, "-json", "route", "show", "table", table]).json
            others = [route for route in routes if (table, route["dst"]) != OPERATORS]
            state[f"routes {family} {table}"] = others
    return {kind: _lines(entries) for kind, entries in state.items()}


def _lines(entries: list[Any]) -> list[str]:
    return sorted(json.dumps(each, sort_keys=True) for each in _without(entries))


def daemons(lab: Lab) -> dict[str, list[str]]:
    """Return what FRR prints about VRFs, VNIs, sessions, its own routes and its configuration."""
    show = lab.host.show
    vnis = show("show evpn vni detail json")
    bgp = show("show bgp l2vpn evpn vni json")
    own = {
        distinguisher: sorted(prefix for prefix in routes if prefix.startswith("["))
        for distinguisher, routes in show("show bgp l2vpn evpn json").items()
        if isinstance(routes, dict) and distinguisher.startswith(f"{VTEP}:")
    }
    tables = {
        # With ifupdown2 the operator's default route has protocol kernel, and FRR leaves it out.
        vrf: sorted(
            prefix
            for prefix in show(f"show ip route vrf {vrf} json")
            if (vrf, prefix) != ("default", "0.0.0.0/0")
        )
        for vrf in ("default", "Vrf_33", "Vrf_50")
    }
    return {
        "VNIs": _lines(vnis),
        "BGP's VNIs": _lines(list(bgp.values())),
        "own routes": sorted(line for lines in own.values() for line in lines),
        "route tables": _lines([tables]),
        "VRFs": sorted(re.findall(r"vrf (\S+) id \d+ table (\d+)", show("show vrf"))),
        "sessions": sorted(established(lab.host)),
        # FRR prints VRFs and VNIs in the order in which it learnt them.
        "configuration": sorted(
            "\n".join(sorted(part.splitlines()))
            for part in lab.host.run(["vtysh", "-c", "show running-config"]).out.split("\n!\n")
        ),
    }


@pytest.fixture(scope="module", params=(*RELEASES, *NEXT_RELEASES))
def both(
    request: pytest.FixtureRequest, fresh_lab: Callable[..., Lab]
) -> dict[str, dict[str, list[str]]]:
    """Return the state of a host of each backend, one after the other."""
    document = payload(DUAL, DUAL_2, SEVERAL, L2_ONLY, vpcs=(TENANT_A,))
    for link in document["links"]:
        link["mtu"] = 9216
    states = {}
    for backend in BACKENDS:
        lab = fresh_lab(request.param, backend)
        bring_up(lab, document)
        pod = guest(lab.host, "pod", 26, "10.188.0.254", 10)
        server = bare_metal(lab.fabric, "gpu", 26, "10.188.0.254", 20)
        eventually(partial(pod.ping, server, count=1))
        lab.host.run(["ip", "link", "set", "veth-pod", "down"])
        eventually(partial(_forgotten, lab, pod.ipv4))
        lab.host.run(["ip", "netns", "delete", "pod"])
        eventually(partial(_two_next_hops, lab))
        states[backend] = at_rest(partial(_look, lab))
    runs_on(request.node, request.param, *BACKENDS)
    return states


def _forgotten(lab: Lab, address: str) -> bool:
    return address not in json.dumps(lab.host.show("show bgp l2vpn evpn route json"))


def _two_next_hops(lab: Lab) -> bool:
    [route] = lab.host.run(["ip", "-json", "route", "show", "10.2.0.3"]).json
    return len(route.get("nexthops", [])) == 2


def _look(lab: Lab) -> dict[str, list[str]]:
    return kernel(lab) | daemons(lab)


@pytest.mark.long
@pytest.mark.claim("4.3", "The same payload gives the same kernel and FRR on both backends")
def test_the_same_payload_gives_the_same_host(both: dict[str, dict[str, list[str]]]) -> None:
    """The kernels have the same devices, addresses, routes, rules and ports; so has FRR."""
    netplan, ifupdown = (both[backend] for backend in BACKENDS)
    assert netplan.keys() == ifupdown.keys()
    different = {
        kind: {
            "netplan only": sorted(set(lines) - set(ifupdown[kind])),
            "ifupdown only": sorted(set(ifupdown[kind]) - set(lines)),
        }
        for kind, lines in netplan.items()
        if lines != ifupdown[kind]
    }
    assert not different, json.dumps(different, indent=1)
