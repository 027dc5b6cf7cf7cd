"""The file of networkd that decides for a NIC, and the place of our part."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from generator.activation import netplan_nics
from generator.activation.ifupdown import Ifupdown
from generator.activation.netplan import FILE, Netplan
from generator.activation.netplan_nics import Configuration
from generator.desired import model
from generator.desired.model import Host
from generator.desired.payload import load
from generator.desired.render import render
from generator.observed import networkd
from generator.observed.networkd import Nic
from generator.state import files
from tests.strategies import LEAF1, LEAF2, encoded, host, tagged, vnet

DOCUMENT = host(vnet(26, prefixes=["10.26.0.1/24"], ports=tagged(LEAF1, LEAF2)))
HOST = load(encoded(DOCUMENT)).hosts[0]
NICS = {
    nic.name: nic
    for nic in (
        Nic(name="lo", type="loopback"),
        Nic(name="ens4", altnames=("enp0s4",), mac="02:00:00:00:00:04", driver="e1000"),
        Nic(name="ens5", mac="02:00:00:00:00:05", permanent_mac="02:00:00:00:00:55", type="ether"),
        Nic(name="ens6", mac="02:00:00:00:00:06", path="pci-0000:00:06.0", file="50-x.network"),
    )
}


def configuration(root: Path, texts: Mapping[str, str]) -> Configuration:
    """Return the operator's configuration on a machine with these NICs."""
    for path, text in texts.items():
        files.write(root, path, text.encode(), 0o644)
    read = netplan_nics.read(root, FILE, HOST)
    return msgspec.structs.replace(read, nics=NICS)


MATCHES = {
    "Name=ens4": {"ens4"},
    "Name=enp*": {"ens4"},  # an alternative name
    "Name=en* eth*": {"ens4", "ens5", "ens6"},
    'Name="ens4" ens5': {"ens4", "ens5"},
    "Name=!ens6 lo": {"ens4", "ens5"},
    "Name=!ens4": {"lo", "ens4", "ens5", "ens6"},  # an alternative name is another name
    "Name=en*\nName=!ens5": {"ens4", "ens6"},
    "Name=ens4\nName=\nName=ens5": {"ens5"},
    "MACAddress=02-00-00-00-00-04 020000000006": {"ens4", "ens6"},
    "PermanentMACAddress=02:00:00:00:00:55": {"ens5"},
    "Driver=e1000 virtio*": {"ens4"},
    "Type=ether": {"ens5"},
    "Path=pci-*": {"ens6"},
    "Name=ens*\nVirtualization=yes": {"ens6"},  # networkd reports that it has taken the file
    "# Name=ens4": set(),
    "Name=ens\\\n4": set(),
}


@pytest.mark.parametrize("match", MATCHES)
def test_a_file_matches_as_networkd_does(match: str) -> None:
    """A [Match] section matches as systemd.network(5) describes."""
    file = networkd.parsed("50-x.network", "", f"[Match]\n{match}\n[Network]\nName=none\n")
    assert {name for name, nic in NICS.items() if file.fits(nic)} == MATCHES[match]


NETPLAN = "etc/netplan/50-operator.yaml"
NETWORK = "etc/systemd/network"
DECIDES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "nobody": ({}, {}),
    "a section of the NIC's name": ({NETPLAN: "network: {ethernets: {ens4: {mtu: 9000}}}"}, {}),
    "an id before ours": (
        {NETPLAN: "network: {ethernets: {all-en: {match: {name: 'ens4*'}}}}"},
        {"ens4": "10-netplan-all-en.network"},
    ),
    "an id before ours, and a section of the NIC's name that is never read": (
        {NETPLAN: "network: {ethernets: {all-en: {match: {name: 'ens4*'}}, ens4: {}}}"},
        {"ens4": "10-netplan-all-en.network"},
    ),
    "an id behind ours": (
        {NETPLAN: "network: {ethernets: {zz: {match: {macaddress: '02:00:00:00:00:55'}}}}"},
        {"ens5": "10-netplan-zz.network"},
    ),
    "nobody, for a NIC that has no permanent MAC": (
        {NETPLAN: "network: {ethernets: {zz: {match: {macaddress: '02:00:00:00:00:04'}}}}"},
        {},
    ),
    "a driver": (
        {NETPLAN: "network: {ethernets: {zz: {match: {driver: [e100, e1000]}}}}"},
        {"ens4": "10-netplan-zz.network"},
    ),
    "two files of netplan about one id": (
        {
            NETPLAN: "network: {ethernets: {zz: {dhcp4: true}}}",
            "run/netplan/90-more.yaml": "network: {ethernets: {zz: {match: {name: ens5}}}}",
        },
        {"ens5": "10-netplan-zz.network"},
    ),
    "a file that another one hides": (
        {
            "lib/netplan/50-operator.yaml": "network: {ethernets: {zz: {match: {name: ens5}}}}",
            NETPLAN: "network: {version: 2}",
        },
        {},
    ),
    "a bond, a VLAN": (
        {NETPLAN: "network: {bonds: {ens4: {}}, vlans: {ens5: {id: 5, link: eth0}}}"},
        {"ens4": "10-netplan-ens4.network", "ens5": "10-netplan-ens5.network"},
    ),
    "networkd's own file": (
        {f"{NETWORK}/20-wired.network": "[Match]\nName=ens4\n"},
        {"ens4": "20-wired.network"},
    ),
    "a file of a package": (
        {"usr/lib/systemd/network/80-x.network": "[Match]\nName=ens4 ens5\n"},
        {"ens4": "80-x.network", "ens5": "80-x.network"},
    ),
    "a masked file": (
        {
            "usr/lib/systemd/network/80-x.network": "[Match]\nName=ens4\n",
            f"{NETWORK}/80-x.network": "",
        },
        {},
    ),
    "what netplan made earlier": (
        {"run/systemd/network/10-netplan-old.network": "[Match]\nName=ens4\n"},
        {},
    ),
    "a drop-in that narrows a match": (
        {
            f"{NETWORK}/20-wired.network": "[Match]\nName=ens*\n",
            "run/systemd/network/20-wired.network.d/x.conf": "[Match]\nName=\nName=ens5\n",
        },
        {"ens5": "20-wired.network"},
    ),
    "a file for lo": (
        {f"{NETWORK}/30-lo.network": "[Match]\nType=loopback\n"},
        {"lo": "30-lo.network"},
    ),
    "a netplan file that can't be read": ({NETPLAN: "network: [\n"}, {}),
    "a netplan file with other types": ({NETPLAN: "network: {ethernets: {ens4: 5, 7: {}}}"}, {}),
}


@pytest.mark.parametrize("case", DECIDES)
def test_our_part_goes_into_the_file_that_decides(tmp_path: Path, case: str) -> None:
    """Our part goes into a drop-in of the file that networkd takes, or into our own section."""
    texts, foreign = DECIDES[case]
    placed = netplan_nics.locate(HOST, configuration(tmp_path, texts))
    assert placed.foreign_files == foreign
    assert list(netplan_nics.problems(placed, configuration(tmp_path, texts))) == []
    rendered = render(placed, "netplan")
    for name, file in foreign.items():
        text = rendered[f"{NETWORK}/{file}.d/evpn-host.conf"]
        assert "KeepConfiguration=yes" in text
        assert ("Address=10." in text) == (name == "lo")
        assert f"{name}:" not in rendered[FILE].replace('"', "")


SECTION = "network: {ethernets: {%s}}"
ASKS = {
    "the NIC's own section": (
        {NETPLAN: SECTION % "ens4: {dhcp4: true}"},
        model.Lease("ethernets", "ens4"),
        '"ens4": {optional: true}  # ',
    ),
    "a word of YAML 1.1": (
        {NETPLAN: SECTION % "ens4: {dhcp6: yes}"},
        model.Lease("ethernets", "ens4"),
        '"ens4": {optional: true}  # ',
    ),
    "a cloud image": (
        {NETPLAN: SECTION % "all-en: {match: {name: ens4}, dhcp4: true}"},
        model.Lease("ethernets", "all-en"),
        '"all-en": {optional: true}',
    ),
    "a section with an id that needs a quote": (
        {NETPLAN: SECTION % "'a\"b': {match: {name: ens4}, dhcp4: true}"},
        model.Lease(),
        "",
    ),
    "a file of networkd": (
        {f"{NETWORK}/20-wired.network": "[Match]\nName=ens4\n[Network]\nDHCP=ipv4\n"},
        model.Lease(),
        "",
    ),
    "nobody": ({NETPLAN: SECTION % "ens4: {dhcp4: no}"}, None, '"ens4": {}  # '),
    "nobody for the management NIC": (
        {NETPLAN: SECTION % "ens4: {}, ens5: {dhcp4: true}"},
        None,
        '"ens4": {}  # ',
    ),
    "a drop-in that takes it back": (
        {
            f"{NETWORK}/20-wired.network": "[Match]\nName=ens4\n[Network]\nDHCP=yes\n",
            f"{NETWORK}/20-wired.network.d/x.conf": "[Network]\nDHCP=no\n",
        },
        None,
        "",
    ),
}


@pytest.mark.parametrize("case", ASKS)
def test_a_boot_does_not_wait_for_a_lease(tmp_path: Path, case: str) -> None:
    """A boot waits for another device, and netplan's own list leaves the NIC out."""
    texts, lease, line = ASKS[case]
    placed = netplan_nics.locate(HOST, configuration(tmp_path, texts))
    assert placed.lease == lease
    rendered = render(placed, "netplan")
    assert line in rendered[FILE]
    file = placed.foreign_files.get("ens4", "10-netplan-ens4.network")
    of_nic = rendered[f"{NETWORK}/{file}.d/evpn-host.conf"]
    assert ("RequiredForOnline=no" in of_nic) == (lease is not None)
    assert HOST.management
    bridge = f"{NETWORK}/10-netplan-{HOST.management.bridge}.network.d/evpn-host.conf"
    assert ("RequiredForOnline=carrier" in rendered[bridge]) == (lease is not None)


INTERFACES = "etc/network/interfaces"
STANZA = "iface ens4 inet dhcp\n"
NO_WAIT = '{"dhcp": {"defaults": {"dhcp-wait": "no"}}}'
WAITS = '{"dhcp": {"defaults": {"dhcp-wait": "yes"}}}'
POLICIES = ("var/lib/ifupdown2/policy.d/a.json", "etc/network/ifupdown2/policy.d/b.json")
IFUPDOWN = {
    "a lease": ({INTERFACES: STANZA}, True),
    "a lease that it does not await": ({INTERFACES: STANZA, POLICIES[0]: NO_WAIT}, False),
    "what the operator says counts more": (
        {INTERFACES: STANZA, POLICIES[0]: NO_WAIT, POLICIES[1]: WAITS},
        True,
    ),
    "another policy": ({INTERFACES: STANZA, POLICIES[1]: '{"dhcp": {"defaults": 7}}'}, True),
    "none": ({INTERFACES: "iface ens4 inet static\n"}, None),
    "of another NIC": ({INTERFACES: "iface ens6 inet dhcp\n"}, None),
}


@pytest.mark.parametrize("case", IFUPDOWN)
def test_ifupdown2_waits_for_a_lease(tmp_path: Path, case: str) -> None:
    """ifupdown2 waits for a lease; the finding says how to end the wait, "" where none is."""
    texts, waits = IFUPDOWN[case]
    for path, text in texts.items():
        files.write(tmp_path, path, text.encode(), 0o644)
    remedy = Ifupdown().lease(tmp_path, HOST)
    assert (None if remedy is None else NO_WAIT in remedy) == waits


REFUSED = {
    "links: enp0s4 is an alternative name of ens4": {},
    "50-operator.yaml: ethernets.ens4: is the uplink ens4, which NetworkManager configures": {
        NETPLAN: "network: {renderer: NetworkManager, ethernets: {ens4: {}}}"
    },
    "ethernets.lan: is the uplink ens5, which NetworkManager configures": {
        NETPLAN: "network: {ethernets: {renderer: NetworkManager, lan: {match: {name: ens5}}}}"
    },
    "bridges.br0: has the uplink ens4 as a port": {
        NETPLAN: "network: {ethernets: {ens4: {}}, bridges: {br0: {interfaces: [ens4]}}}"
    },
    "bonds.bond0: has the uplink ens4 as a port (take ens4 out of it, or name bond0 in": {
        NETPLAN: "network: {ethernets: {lan: {match: {name: ens4}}},"
        " bonds: {bond0: {interfaces: [lan]}}}"
    },
    "bridges.ens4: makes the uplink ens4 a bridge": {NETPLAN: "network: {bridges: {ens4: {}}}"},
    "20-a.network: Bridge=br0 makes the uplink ens4 a part of br0": {
        f"{NETWORK}/20-a.network": "[Match]\nName=ens4\n[Network]\nBridge=br0\n"
    },
    "20-a.network: Unmanaged=yes keeps networkd from the uplink ens5": {
        f"{NETWORK}/20-a.network": "[Match]\nName=ens5\n[Link]\nUnmanaged=yes\n"
    },
    "all-en: matches ens4 and also ens5, ens6, which would get what ens4 needs (give ens4 a": {
        NETPLAN: "network: {ethernets: {all-en: {match: {name: 'en*'}}}}"
    },
    "20-a.network: matches lo and also ens4": {
        f"{NETWORK}/20-a.network": "[Match]\nName=lo ens4\n"
    },
    "/etc/systemd/network/05-a.network: matches nbr-14 too": {
        f"{NETWORK}/05-a.network": "[Match]\nType=bridge\n"
    },
}


@pytest.mark.parametrize("text", REFUSED)
def test_an_unusable_file_is_named(tmp_path: Path, text: str) -> None:
    """The problem names the file or section, the NIC and the way out."""
    configured = configuration(tmp_path, REFUSED[text])
    uplinks = HOST.uplinks
    if "enp0s4" in text:
        uplinks = (msgspec.structs.replace(uplinks[0], ifname="enp0s4"), *uplinks[1:])
    of = msgspec.structs.replace(HOST, uplinks=uplinks)
    problems = list(netplan_nics.problems(of, configured))
    assert any(text in str(problem) for problem in problems), problems
    assert all(problem.hint for problem in problems)


def test_uplinks_that_share_a_file(tmp_path: Path) -> None:
    """Uplinks can share a file, unless one needs a setting that the other must not have."""
    shared = configuration(tmp_path, {f"{NETWORK}/20-a.network": "[Match]\nName=ens4 ens5\n"})
    assert list(netplan_nics.problems(HOST, shared)) == []

    def with_first(**fields: object) -> Host:
        first = msgspec.structs.replace(HOST.uplinks[0], **fields)
        return msgspec.structs.replace(HOST, uplinks=(first, *HOST.uplinks[1:]))

    for other in (with_first(mtu=9000), with_first(address="192.0.2.1/31")):
        problems = list(netplan_nics.problems(other, shared))
        assert "20-a.network: matches ens4 and also ens5" in str(problems[0])


def test_a_change_is_noticed(tmp_path: Path) -> None:
    """The digest differs after each change of a file that may decide, and after no other."""
    backend = Netplan()
    digests = [backend.digest(tmp_path)]
    for path in (
        NETPLAN,
        "run/netplan/x.yaml",
        f"{NETWORK}/20-a.network",
        f"{NETWORK}/20-a.network.d/x.conf",
        "run/systemd/network/10-netplan-all-en.network.d/x.conf",
        "usr/lib/systemd/network/80-x.network",
    ):
        files.write(tmp_path, path, b"x", 0o644)
        digests.append(backend.digest(tmp_path))
    assert len(set(digests)) == len(digests)
    for path in (
        FILE,
        f"{NETWORK}/20-a.network.d/evpn-host.conf",
        "run/systemd/network/10-netplan-nbr-26.network",
    ):
        files.write(tmp_path, path, b"x", 0o644)
    assert backend.digest(tmp_path) == digests[-1]


# --- ifupdown2 ---

SOURCING = "source /etc/network/interfaces.d/*\n"
STANZAS = {
    # Stanzas of which ifupdown2 makes one interface, together with ours.
    "allow-hotplug ens4\niface ens4 inet static\n    address 10.12.0.101/16\n" + SOURCING: "",
    SOURCING + "auto ens4\niface ens4 inet manual\n    up ip address add 10.0.0.1/8 dev ens4\n": "",
    "iface ens4 inet dhcp\n" + SOURCING: "",
    SOURCING + "auto bond0\niface bond0 inet static\n    bond-slaves eth0 eth1\n": "",
    SOURCING + "iface ens[4-5] inet dhcp\n": "ens[4-5] inet dhcp: comes after our part of it",
    SOURCING + "iface br0\n  bridge_ports none ens4\n": "iface br0: has the uplink ens4 as a port",
    SOURCING + "iface b\n bond-slaves ens[4-5]\n": "ens4, ens5 as a port (take ens4, ens5 out of",
    SOURCING + "iface ens5\n  bridge-ports eth0\n": "ens5: makes the uplink ens5 a bridge",
    SOURCING + "iface ens5\n  vrf blue\n": "iface ens5: makes the uplink ens5 a part of blue",
    SOURCING + "source /srv/*\n": "/srv/more: iface ens4 inet dhcp: comes after",
    "source /srv/*\n" + SOURCING: "",
}


@pytest.mark.parametrize("text", STANZAS)
def test_stanzas_that_prevent_an_uplink_are_found(tmp_path: Path, text: str) -> None:
    """Stanzas that keep a NIC from being an uplink are found in each file of ifupdown2."""
    files.write(tmp_path, "etc/network/interfaces", text.encode(), 0o644)
    files.write(tmp_path, "srv/more", b"# more\niface ens4 inet dhcp\n", 0o644)
    files.write(tmp_path, "etc/network/interfaces.d/evpn-host", b"iface ens4\n", 0o644)
    problems = "; ".join(map(str, Ifupdown().conflicts(tmp_path, HOST)))
    assert STANZAS[text] in problems
    assert bool(problems) == bool(STANZAS[text])
