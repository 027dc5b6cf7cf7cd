"""Servers with ifupdown2 whose operators have configured the NICs in different ways."""

from __future__ import annotations

from typing import Any

import pytest

from lab.fabric import Lab, eventually
from tests.lab.k8s01 import addresses, payload
from tests.lab.nics import MANAGEMENT, SECOND, check_apply_refuses, check_host_joins_fabric

INTERFACES = "/etc/network/interfaces"
SOURCE = "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n"
STATIC = "    address 10.12.0.101/16\n    address 10.254.254.10/24\n    gateway 10.12.0.1\n"
SYSTEMS = (("trixie", "ifupdown"), ("bookworm", "ifupdown"))


@pytest.fixture(params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A host to which nothing was applied yet."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    return lab


def configure(lab: Lab, text: str) -> None:
    """Give the host this file, and have ifupdown2 take it up."""
    lab.machine.write(INTERFACES, text)
    lab.host.run(["ifreload", "-a"], timeout=120)


def test_stanzas_in_several_forms(lab: Lab) -> None:
    """Stanzas with `allow-hotplug`, with `inet manual`, and with an address by a command work."""
    up = "    up ip address replace 192.0.2.88/32 dev ens5\n"
    configure(
        lab,
        f"allow-hotplug ens4\niface ens4 inet static\n{STATIC}\n{SOURCE}"
        f"auto ens5\niface ens5 inet manual\n{up}",
    )
    lab.host.run(["ifup", "ens4"])  # what a hot plug does
    check_host_joins_fabric(lab)
    assert "192.0.2.88/32" in addresses(lab.host, "ens5")
    lab.host.evpn_host("uninstall", "--yes")
    assert {MANAGEMENT, SECOND} <= addresses(lab.host, "ens4")
    eventually(lambda: lab.host.run(["ip", "route", "show", "default"]).out)


def test_a_bond(lab: Lab) -> None:
    """A bond of the operator can be an uplink, and carry the management address."""
    configure(
        lab,
        SOURCE + f"auto bond0\niface bond0 inet static\n    bond-slaves ens4\n"
        f"    bond-mode active-backup\n{STATIC}",
    )
    document = payload()
    document["links"][0]["local"]["ifname"] = "bond0"
    document["server"]["mgmt"]["ifname"] = "bond0"
    check_host_joins_fabric(lab, document)


def test_what_is_refused(lab: Lab) -> None:
    """apply refuses a NIC of a bridge, a bridge, and a file that ifupdown2 would never read."""
    text = lab.machine.read(INTERFACES)
    line = "source /etc/network/interfaces.d/*"
    lab.machine.write(INTERFACES, text.replace(line, "source-directory /etc/network/interfaces.d"))
    result = lab.host.apply(payload(), check=False)
    assert result.code == 1
    assert "does not source" in result.err
    configure(
        lab,
        SOURCE + "iface ens4 inet manual\n\nauto br0\niface br0 inet static\n"
        f"    bridge_ports ens4\n{STATIC}",
    )
    check_apply_refuses(lab, "iface br0 inet static", "has the uplink ens4 as a port")
    document = payload()
    for part in (document["links"][0]["local"], document["server"]["mgmt"]):
        part["ifname"] = "br0"
    check_apply_refuses(lab, "makes the uplink br0 a bridge", document=document)
    configure(lab, text)
    # As Debian's installer writes it. ifupdown2 goes on without it, and ends with 1.
    lab.machine.write(f"{INTERFACES}.d/installer", "iface ens5 inet6 auto\n")
    check_apply_refuses(
        lab, f"{INTERFACES}.d/installer: line1", "unsupported address method 'auto'"
    )
