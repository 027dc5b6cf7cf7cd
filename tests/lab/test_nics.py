"""Servers whose operators have configured the NICs in different ways.

networkd takes one file for a NIC. Whichever that is: the operator's addresses stay, sessions come
up, and they outlast his own commands. Where that can't be, apply refuses and changes nothing.
"""

from __future__ import annotations

from typing import Any

import pytest

from lab.fabric import Lab, eventually
from tests.lab.k8s01 import addresses, differences, payload
from tests.lab.nics import (
    MANAGEMENT,
    SECOND,
    check_apply_refuses,
    check_host_joins_fabric,
    nothing_differs,
)

OPERATOR = "/etc/netplan/50-operator.yaml"
MANAGED = "addresses: [10.12.0.101/16, 10.254.254.10/24], routes: [{to: default, via: 10.12.0.1}]"
NETWORKD = "[Network]\nAddress=10.12.0.101/16\nAddress=10.254.254.10/24\nGateway=10.12.0.1\n"
SYSTEMS = (("trixie", "netplan"), ("bookworm", "netplan"))


@pytest.fixture(params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A host to which nothing was applied yet."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    return lab


def configure(lab: Lab, *ethernets: str, more: str = "") -> None:
    """Give the host this netplan file in place of the operator's, and have netplan take it up."""
    lines = "".join(f"    {line}\n" for line in ethernets)
    text = f"network:\n  version: 2\n  ethernets:\n{lines}{more}"
    lab.machine.write(OPERATOR, text, 0o600)
    lab.host.run(["sh", "-c", "rm -f /run/systemd/network/10-netplan-*"])
    lab.host.run(["netplan", "apply"], timeout=120)


def configure_networkd(lab: Lab, **files: str) -> None:
    """Give the host files of networkd, and no netplan file."""
    lab.host.run(["sh", "-c", f"rm -f {OPERATOR} /run/systemd/network/10-netplan-*"])
    for name, text in files.items():
        path = f"/etc/systemd/network/{name[1:].replace('_', '-')}.network"
        lab.machine.write(path, text)
    lab.host.run(["networkctl", "reload"])
    lab.host.run(["networkctl", "reconfigure", "ens4", "ens5"])


def test_a_file_that_comes_before_ours(lab: Lab) -> None:
    """The file of Debian's cloud images: `all-en` sorts before `ens4`, and matches by a glob."""
    configure(
        lab,
        f"all-en: {{match: {{name: 'ens4*'}}, {MANAGED}}}",
        "all-em: {match: {name: 'ens5*'}, optional: true}",
    )
    check_host_joins_fabric(lab)


def test_a_file_that_comes_after_ours(lab: Lab) -> None:
    """A file like that of Ubuntu's installers: `zz-all-en` sorts after `ens4`."""
    configure(
        lab,
        f"zz-mgmt: {{match: {{name: 'ens4*'}}, {MANAGED}}}",
        "zz-all: {match: {name: 'ens5*'}, optional: true, dhcp4: false}",
    )
    check_host_joins_fabric(lab)


def test_networkds_own_files(lab: Lab) -> None:
    """A server with files of networkd, also for lo, and with netplan but no file of it."""
    configure_networkd(
        lab,
        _20_wired=f"[Match]\nName=ens4\n\n{NETWORKD}",
        _05_other="[Match]\nName=ens5*\nType=ether\n\n[Network]\nDHCP=no\n",
        _30_lo="[Match]\nName=lo\n\n[Network]\nAddress=192.0.2.77/32\n",
    )
    check_host_joins_fabric(lab)
    assert {"192.0.2.77/32", "10.2.0.101/32"} <= addresses(lab.host, "lo")
    lab.host.evpn_host("uninstall", "--yes")
    files = lab.host.run(["sh", "-c", "find /etc/systemd/network | sort"]).out.split()
    assert [path for path in files if "evpn-host" in path or path.endswith(".d")] == []
    eventually(lambda: addresses(lab.host, "lo") == {"192.0.2.77/32"})
    assert {MANAGEMENT, SECOND} <= addresses(lab.host, "ens4")


def test_no_ipv6_link_local(lab: Lab) -> None:
    """Sessions come up although a later file of the operator says `link-local: []`."""
    nics = "".join(f"    {nic}: {{link-local: []}}\n" for nic in ("ens4", "ens5"))
    text = f"network:\n  version: 2\n  ethernets:\n{nics}"
    lab.machine.write("/etc/netplan/99-hardening.yaml", text, 0o600)
    check_host_joins_fabric(lab)


def test_sessions_that_can_not_come_up_are_named(lab: Lab) -> None:
    """`status` names an uplink whose link-local address somebody has removed."""
    host = lab.host
    host.apply(payload())
    eventually(lambda: nothing_differs(lab))
    path = "/etc/systemd/network/10-netplan-ens5.network.d/zz-hardening.conf"
    lab.machine.write(path, "[Network]\nLinkLocalAddressing=no\n")
    host.run(["networkctl", "reload"])
    eventually(lambda: "ens5: has no IPv6 link-local" in " ".join(differences(host)))
    host.run(["rm", path])
    lab.machine.write("/etc/systemd/network/05-all.network", "[Match]\nName=ens5*\n")
    host.run(["networkctl", "reload"])
    expected = "ens5: networkd has applied 05-all.network"
    eventually(lambda: any(expected in each for each in differences(lab.host)))
    host.apply(payload())
    eventually(lambda: nothing_differs(lab))


def test_a_bond(lab: Lab) -> None:
    """A bond of the operator can be an uplink, and carry the management address."""
    configure(
        lab,
        "ens4: {optional: true}",
        "ens5: {optional: true}",
        more="  bonds:\n    bond0: {interfaces: [ens4], parameters: {mode: active-backup}, "
        + MANAGED
        + "}\n",
    )
    document = payload()
    document["links"][0]["local"]["ifname"] = "bond0"
    document["server"]["mgmt"]["ifname"] = "bond0"
    check_host_joins_fabric(lab, document)


def test_what_is_refused(lab: Lab) -> None:
    """apply refuses NICs that can't be uplinks, and files that would change other devices too."""
    host = lab.host
    host.run(["ip", "link", "property", "add", "dev", "ens4", "altname", "enp0s4"])
    document = payload()
    for part in (document["links"][0]["local"], document["server"]["mgmt"]):
        part["ifname"] = "enp0s4"
    check_apply_refuses(lab, "enp0s4", "alternative name of ens4", document=document)

    text = lab.machine.read(OPERATOR)
    lab.machine.write(OPERATOR, text.replace("renderer: networkd", "renderer: NetworkManager"))
    check_apply_refuses(lab, "ethernets.ens4", "NetworkManager configures")
    lab.machine.write(OPERATOR, text)

    lab.machine.write("/etc/netplan/20-image.yaml", IMAGE)
    check_apply_refuses(lab, "ethernets.all-en", "ens6", "section of its own")
    host.run(["rm", "/etc/netplan/20-image.yaml"])

    lab.machine.write("/etc/systemd/network/00-all.network", "[Match]\nName=* !lo\n")
    check_apply_refuses(lab, "/etc/systemd/network/00-all.network", "a device of evpn-host")
    host.run(["rm", "/etc/systemd/network/00-all.network"])

    configure(
        lab,
        "ens4: {optional: true}",
        "ens5: {optional: true}",
        more=f"  bridges:\n    br0: {{interfaces: [ens4], {MANAGED}}}\n",
    )
    check_apply_refuses(lab, "bridges.br0", "has the uplink ens4 as a port")
    document = payload()
    for part in (document["links"][0]["local"], document["server"]["mgmt"]):
        part["ifname"] = "br0"
    check_apply_refuses(lab, "bridges.br0", "a bridge, whose guests", document=document)


IMAGE = """network:
  version: 2
  ethernets:
    all-en: {match: {name: 'en*'}, dhcp4: true, dhcp6: true}
    all-eth: {match: {name: 'eth*'}, dhcp4: true, dhcp6: true}
"""
