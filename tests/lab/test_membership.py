"""Role, ports and underlay decide which sessions and V-Nets a server gets; guests use them."""

from __future__ import annotations

import copy
import itertools
import json
from functools import partial
from typing import Any

import pytest

from lab.fabric import Host, Lab, Node, at_rest, eventually
from tests.conftest import REPO
from tests.lab.k8s01 import bring_up, established, payload, vnet
from tests.lab.systems import SYSTEMS

OWNED = "/etc/netplan /etc/network /etc/frr /etc/sysctl.d /etc/systemd/network /var/lib/evpn-host"
MANY = vnet(45, 33, "10.45.0.254/24", "fd00:45::254/64", "10.45.1.254/24", "fd00:46::254/64")


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric and a server without any apply; both its ports are access ports."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.await_dad()
    return lab


def state(host: Host) -> dict[str, str]:
    """Return the server's links, addresses, routes, rules and files, as text.

    Without the routes that a leaf advertised on a NIC that was no uplink then: they expire.
    """
    commands = {
        "links": "ip -brief link",
        "addresses": "ip -brief address",
        "routes": r"ip route show table all | grep -v 'proto bgp\|proto ra\|nexthop'",
        "rules": "ip rule",
        "files": f"find {OWNED} -type f -exec sha256sum {{}} +",
    }
    return {
        name: "\n".join(sorted(host.run(["sh", "-c", command], check=False).out.splitlines()))
        for name, command in commands.items()
    }


def commands(log: str) -> list[str]:
    """Return the commands that `apply -v` ran, without those that only look."""
    lines = [line for line in log.splitlines() if line.startswith("+")]
    return [line for line in lines if "  # whether " not in line]


@pytest.mark.claim(
    "3.2", "A generic server gets no files: it is refused as a Host, and left out of a Fleet"
)
def test_a_generic_server_yields_nothing(host: Host) -> None:
    """A server of another role gets no file or device; a Fleet's other hosts are rendered."""
    if host.run(["test", "-e", "/var/lib/evpn-host"], check=False).code == 0:
        host.evpn_host("uninstall")
    before = at_rest(partial(state, host))
    document = payload()
    document["server"]["srvRole"] = "generic"
    result = host.apply(document, check=False)
    assert result.code == 1
    assert "server.srvRole: generic" in result.err
    assert state(host) == before

    vtep = payload()
    both = [
        {"server": each["server"], "links": each["links"]} for each in (vtep, copy.deepcopy(vtep))
    ]
    both[1]["server"] |= {"name": "BM01", "srvRole": "generic", "mainAddress": "10.2.0.111"}
    for number, each in enumerate(both[1]["links"]):
        each["remote"]["name"] = f"swp30@ns-leaf-{number}"
    fleet = {key: vtep[key] for key in ("apiVersion", "generation", "vpcs", "vnets")}
    host.machine.write("/root/fleet.json", json.dumps(fleet | {"kind": "Fleet", "hosts": both}))
    messages = host.evpn_host("render", "-p", "/root/fleet.json", "-o", "/root/fleet").err
    assert "generic" in messages
    assert host.run(["ls", "/root/fleet"]).out.split() == ["K8S01"]
    assert state(host) == before


@pytest.mark.claim("4.2", "Which links get a session: untagged in Management, or underlay enabled")
def test_truth_table_of_sessions(lab: Lab) -> None:
    """A link has a session if it is in Management or in the underlay, and its port is routed.

    A link that is neither in Management nor has its underlay enabled is not touched.
    """
    host, leaf = lab.host, lab.fabric.leaf("ns-leaf-1")
    lab.fabric.carry(payload())
    lab.fabric.leaf("ns-leaf-0").underlay(on=True)
    for in_management, enabled in itertools.product((True, False), repeat=2):
        case = f"in Management: {in_management}, underlay: {enabled}"
        document = payload()
        document["links"][1]["underlay"] = "enabled" if enabled else "disabled"
        if not in_management:
            del document["vnets"][0]["ports"][1]
        result = host.apply(document, check=False)
        assert result.code == 0, result.err
        has_session = in_management or enabled
        for routed in (True, False):
            leaf.underlay(on=routed)
            expected = {"ens4", "ens5"} if has_session and routed else {"ens4"}
            eventually(partial(_established_are, host, expected))
        peers = set(host.show("show bgp neighbors json"))
        assert ("ens5" in peers) == has_session, case
        mentions = ["grep", "-rl", "ens5", *OWNED.split(), "--include=*evpn-host*"]
        files = host.run([*mentions, "--exclude-dir=evpn-host"], check=False).out
        assert bool(files) == has_session, (case, files)
        has_loopback = "10.2.0.101" in host.run(["ip", "address", "show", "ens5"]).out
        assert has_loopback or not has_session, case
    host.apply(payload())
    for name in ("ns-leaf-0", "ns-leaf-1"):
        lab.fabric.leaf(name).underlay(on=True)
    eventually(partial(_established_are, host, {"ens4", "ens5"}))


def _established_are(host: Host, expected: set[str]) -> bool:
    return established(host) == expected


@pytest.mark.claim(
    "2.1", "Shared Endpoint, label or single ports: only the resulting switch ports matter"
)
def test_ports_are_all_that_counts(host: Host) -> None:
    """apply does nothing for ports in another order, or among the ports of other servers."""
    document = payload(MANY)
    host.apply(document)
    before = at_rest(partial(state, host))
    other_ports = [{"name": f"swp{n}@ns-leaf-{leaf}"} for n in range(20, 30) for leaf in range(3)]
    for change in (
        lambda ports: list(reversed(ports)),
        lambda ports: other_ports + ports,  # a Shared Endpoint lists the ports of all its servers
        lambda ports: [each | {"untagged": each.get("untagged", False)} for each in ports],
    ):
        again = copy.deepcopy(document)
        for each in again["vnets"]:
            each["ports"] = change(each["ports"])
        result = host.apply(again, "-v")
        assert commands(result.err) == []
        after = at_rest(partial(state, host))
        after["files"] = before["files"] = ""  # the record contains the payload, which differs
        assert after == before


@pytest.mark.claim("2.2", "Ports by hand, labels on NICs and a Server Cluster give the same host")
def test_three_ways_are_one_host(host: Host) -> None:
    """The three Fleets of examples/ mean the same host: the second and third change nothing."""
    before: dict[str, str] = {}
    for way in ("cluster", "labels", "ports"):
        text = (REPO / f"examples/coke-{way}.yaml").read_text()
        file = f"/root/coke-{way}.yaml"
        generation = payload()["generation"]
        host.machine.write(file, text.replace("generation: 1\n", f"generation: {generation}\n"))
        result = host.evpn_host("apply", "-p", file, "-H", "K8S01", "-v")
        if before:
            assert commands(result.err) == [], way
        after = at_rest(partial(state, host))
        after["files"] = ""  # the record contains the payload, which differs
        assert "nbr-26" in after["links"]
        assert "10.188.0.254/24" in after["addresses"]
        assert after == (before or after), way
        before = after


@pytest.mark.claim("1.3", "A V-Net may have several gateways of each family; all of them route")
def test_several_gateways_on_a_vnet(lab: Lab) -> None:
    """Guests and servers of each prefix reach their gateways and, over these, the other prefix."""
    bring_up(lab, payload(MANY))
    nodes: dict[str, Node] = {}
    for number, (v4, v6) in enumerate((("10.45.0", "fd00:45:"), ("10.45.1", "fd00:46:"))):
        gateways = f"{v4}.254", f"{v6}:254"
        nodes[f"guest{number}"] = lab.host.pod(
            f"many{number}", "nbr-45", f"{v4}.10/24", gateways[0], f"{v6}:10/64", gateways[1]
        )
        nodes[f"server{number}"] = lab.fabric.server(
            f"many-bm{number}", vni=45, ipv4=f"{v4}.20/24", gateway=gateways[0],
            ipv6=f"{v6}:20/64", gateway6=gateways[1],
        )  # fmt: skip
        for name in (f"guest{number}", f"server{number}"):
            eventually(partial(nodes[name].ping, gateways[0], count=1))
            eventually(partial(nodes[name].ping, gateways[1], count=1, family=6))
    for source, target in itertools.permutations(nodes.values(), 2):
        eventually(partial(source.ping, target, count=1))
        eventually(partial(source.ping, target, count=1, family=6))
