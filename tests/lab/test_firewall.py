"""The host's own firewall, as on a node of Kubernetes: what it stops, and the rules of the pages.

Under QEMU, with Debian's own kernel: that of User-Mode Linux has no nf_tables for IP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lab import machine
from lab.fabric import Host, Lab, Node, eventually
from lab.qemu import QEMU
from tests import documents
from tests.lab.test_isolation import DOCUMENT, GATEWAYS, Tenants, hears, settle
from tests.lab.test_k8s01 import bring_up, established

# What a guest finds of a TCP service: an answer at once, or nothing.
CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    try:
        socket.create_connection((address, 179), 5).close()
        print("open")
    except TimeoutError:
        print("silent")
"""


@pytest.fixture(scope="module")
def lab(fresh_lab: Any) -> Iterator[Lab]:
    """K8S01 as a VTEP of two tenants, in a machine with a whole kernel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EVPN_HOST_LAB_MACHINE", raising=False)
        patch.setattr(machine, "KERNELS", [QEMU])
        lab: Lab = fresh_lab("trixie", "netplan")
        bring_up(lab, DOCUMENT)
        yield lab


@pytest.fixture
def host(lab: Lab) -> Host:
    """The host under test."""
    return lab.host


@pytest.fixture(scope="module")
def tenants(lab: Lab) -> Tenants:
    """Tenants that differ in nothing but their VPC."""
    return settle(lab)


def later(generations: int) -> dict[str, Any]:
    """The same, of a later generation: an apply of the same one does not even look."""
    return {**DOCUMENT, "generation": DOCUMENT["generation"] + generations}


def page(host: Host, *programs: str) -> None:
    """Run the page's commands of these programs."""
    run = [
        command
        for block in documents.blocks()
        if (block.page, block.language) == ("docs/isolation.md", "sh")
        for command in documents.commands(block)
        if command.partition(" ")[0] in programs
    ]
    assert run
    for command in run:
        host.run(["bash", "-c", command])


def reached(node: Node, *others: Node) -> list[bool]:
    """Whether each of the others answers, in each family that it has."""
    families = [
        (other, family) for other in others for family in (4, 6) if family == 4 or other.ipv6
    ]
    return [bool(node.ping(other, count=1, family=family)) for other, family in families]


@pytest.mark.claim("13.8", "A firewall that drops what is forwarded: the documented rules suffice")
def test_a_firewall_drops_what_is_forwarded(host: Host, tenants: Tenants) -> None:
    """With `br_netfilter`: bridged and routed frames stop, and pass with the rules; no others."""
    a, b = tenants.a, tenants.b
    host.run(["modprobe", "br_netfilter"])
    for each in ("iptables", "ip6tables"):
        host.run([each, "-P", "FORWARD", "DROP"])
    assert not any(reached(a.guest, a.server))  # one V-Net: bridged
    assert not any(reached(b.guest, tenants.only_b))  # two V-Nets of a VPC: routed
    warned = host.apply(later(1)).err
    assert all(f"{each} drops what is forwarded" in warned for each in ("iptables", "ip6tables"))
    page(host, "iptables", "ip6tables")
    assert "forwarded" not in host.apply(later(2)).err
    eventually(lambda: all(reached(a.guest, a.server)))
    eventually(lambda: all(reached(b.guest, tenants.only_b)))
    assert all(reached(a.server, a.guest))
    assert all(reached(tenants.only_b, b.guest))
    with hears(tenants.only_b, 0):
        assert not any(reached(a.guest, tenants.only_b))


@pytest.mark.claim("13.9", "The documented rules close BGP and BFD to guests, and to nobody else")
def test_bgp_and_bfd_are_closed_to_guests(host: Host, tenants: Tenants) -> None:
    """A guest's connection to its gateway is not even answered; the underlay's sessions stay."""
    knock = ["python3", "-c", CONNECT, *GATEWAYS]
    assert tenants.a.guest.run(knock).out.split() == ["open", "open"]
    page(host, "nft")
    assert tenants.a.guest.run(knock).out.split() == ["silent", "silent"]
    assert tenants.a.guest.ping(GATEWAYS[0])
    host.run(["vtysh", "-c", "clear bgp *"])
    eventually(lambda: established(host) == {"ens4", "ens5"}, within=60)
