"""We read over netlink what iproute2 shows, in a network namespace of the test's own."""

import json
import socket
import sys
from ipaddress import ip_address
from typing import Any

import pytest

from tests.conftest import in_namespace

SETUP = """
link set lo up
link add nic1 type veth peer name nic2
link set nic2 mtu 9000 address 02:00:00:00:00:01
link add br10 mtu 1400 address 44:38:39:ff:00:1a type bridge stp_state 0
link add br11 type bridge stp_state 1
link add vx10 mtu 1400 type vxlan id 10 local 10.2.0.101 dstport 4789 nolearning
link add vx11 type vxlan id 16777215 dstport 8472
link add vx12 type vxlan external dstport 4790
link add vx14 type vxlan id 14 remote 192.0.2.7 dstport 4789
link add br12 type bridge
link set br12 arp off
link set vx10 master br10
link set vx10 type bridge_slave learning off neigh_suppress on
link set vx11 master br11
link set vx11 up
link set br11 up
link set vx11 type bridge_slave locked on
link set nic1 up
link set nic2 up
link set br10 up
link set vx10 up
address add 10.2.0.101/32 dev lo
address add 192.0.2.1/24 dev nic1
address add 192.0.2.65/26 dev nic1
address add 10.0.0.1 peer 10.0.0.2/32 dev nic2
address add 2001:db8::1/64 dev nic1 nodad
address add fd00:1::1/128 dev br10 nodad
route add 198.51.100.0/24 via 192.0.2.2 proto bgp metric 20
route add 203.0.113.0/24 proto bgp nexthop via 192.0.2.2 dev nic1 nexthop dev nic2
route add 203.0.113.7/32 proto 186 nexthop via inet6 fe80::1 dev nic1 nexthop via inet6 fe80::2 \
    dev nic2
route add unreachable default metric 4278198272 table 1033
route add default via 192.0.2.254 onlink dev nic1
rule add pref 32765 table local
rule del pref 0
rule add pref 500 from 10.0.0.0/8 table 5000
rule add pref 501 iif nic1 oif nic2 table 5001
rule add pref 502 not from 10.0.0.0/8 table 5000 suppress_prefixlength 0
rule add pref 503 from 10.1.0.0/16 prohibit
neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev nic1 nud permanent
neigh add 192.0.2.3 dev nic1 nud failed
"""
FORWARDING = """
fdb add 02:00:00:00:00:0a dev vx10 dst 10.2.0.3 self extern_learn
fdb add 02:00:00:00:00:0a dev vx10 master extern_learn
fdb add 02:00:00:00:00:0b dev vx10 master static
fdb add 02:00:00:00:00:0c dev vx11 dst 10.2.0.4 self
"""
SETUP6 = """
route add unreachable default metric 4278198272 table 4294967295
route add 2001:db8:1::/48 proto bgp nexthop via 2001:db8::2 dev nic1 nexthop via fe80::2 dev nic2
rule add pref 32765 table local
neigh add fe80::1 lladdr 02:00:00:00:00:03 dev nic1 nud permanent
route add default via fe80::9 dev nic1 proto ra metric 1024
nexthop add id 7 via fe80::8 dev nic2 proto ra
route add default nhid 7 proto ra metric 2048
"""

READ = """
import json, socket, sys
import msgspec
from generator.observed import entries, netlink, routing_rules, settings
of_devices = settings._OfDevices(netlink.links())
keys = [
    f"net/{family}/conf/{name}/{setting}"
    for name in netlink.links() for family, setting in settings._NUMBERS
]
print(msgspec.json.encode({
    "links": netlink.links(),
    "addresses": {str(i): sorted(found) for i, found in netlink.addresses().items()},
    "routes4": list(netlink.routes(socket.AF_INET)),
    "routes6": list(netlink.routes(socket.AF_INET6)),
    "advertised": list(netlink.advertised_routes()),
    "rules": routing_rules.read(),
    "settings": [
        {key: of_devices.read(key) for key in keys},
        {key: open(f"/proc/sys/{key}").read().strip() for key in keys},
    ],
    "neighbours4": list(netlink.neighbours(socket.AF_INET)),
    "neighbours6": list(netlink.neighbours(socket.AF_INET6)),
    "forwarding": list(netlink.forwarding()),
    "remote": {
        link.name: sorted(entries.remote_macs(link.index))
        for link in netlink.links().values() if link.kind == "vxlan"
    },
}).decode())
"""


Both = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def both(root_user: None) -> Both:
    """Return what we read of a namespace, and what `ip -j` shows of it."""
    del root_user
    shows = {
        "links": "-d link",
        "addresses": "address",
        "routes4": "-4 -N route show table all",
        "routes6": "-N -6 route show table all",
        "rules4": "-4 -N rule",
        "rules6": "-N -6 rule",
        "neighbours4": "-4 neigh show nud all",
        "neighbours6": "-6 neigh show nud all",
    }
    setup = ['printf %s "$1" | ip -batch -', 'printf %s "$2" | ip -6 -batch -']
    setup += ['printf %s "$5" | bridge -batch -']
    script = "; ".join(
        [
            *("set -e", *setup, '"$3" -c "$4"'),
            *(f"ip -j {words}" for words in shows.values()),
            "bridge -j fdb show",
        ]
    )
    arguments = (SETUP, SETUP6, sys.executable, READ, FORWARDING)
    output = in_namespace("sh", "-c", script, "-", *arguments)
    ours, *theirs = [json.loads(line) for line in output.splitlines()]
    return ours, dict(zip([*shows, "forwarding"], theirs, strict=True))


def test_links(both: Both) -> None:
    """We read each device, its kind and all settings that we compare."""
    ours, shown = both
    index = {link["ifname"]: link["ifindex"] for link in shown["links"]}
    theirs = {}
    for link in shown["links"]:
        info = link.get("linkinfo", {})
        data, port = info.get("info_data", {}), info.get("info_slave_data", {})
        kind = info.get("info_kind", "")
        theirs[link["ifname"]] = {
            "index": link["ifindex"],
            "name": link["ifname"],
            "up": "UP" in link["flags"],
            "mtu": link["mtu"],
            "mac": link["address"],
            "master": index[link["master"]] if "master" in link else 0,
            "kind": kind,
            "vni": data.get("id"),
            "local": data.get("local"),
            "port": data.get("port"),
            "learning": data["learning"] if kind == "vxlan" else None,
            "alone": link["ifname"] == "vx12",
            "bound": link["ifname"] == "vx14",
            "arp": "NOARP" not in link["flags"],
            "vlans": bool(data.get("vlan_filtering")),
            # Of two ports: one is up, the other one is locked.
            "port_open": {"vx10": True, "vx11": False}.get(link["ifname"]),
            "table": None,
            "vlan": data.get("id") if kind == "vlan" else None,
            "port_learning": port.get("learning"),
            "port_suppress": port.get("neigh_suppress"),
            "stp": bool(data["stp_state"]) if kind == "bridge" else None,
            "forward_delay": data.get("forward_delay"),
            # ip(8) shows it of a device that is up.
            "carrier": "LOWER_UP" in link["flags"]
            if "UP" in link["flags"]
            else ours["links"][link["ifname"]]["carrier"],
            "max_mtu": link["max_mtu"],
            "altnames": link.get("altnames", []),
            # ip(8) shows it if it differs from the current one.
            "permanent_mac": link.get("permaddr")
            or (ours["links"][link["ifname"]]["permanent_mac"] and link["address"]),
            "families": ours["links"][link["ifname"]]["families"],  # see test_settings_of_devices
        }
    assert ours["links"] == theirs


def test_settings_of_devices(both: Both) -> None:
    """Settings of devices over netlink equal those below /proc/sys."""
    ours, _ = both
    devices, read = ours["settings"]
    assert devices == read
    assert len(set(read.values())) > 1


def test_addresses(both: Both) -> None:
    """We read addresses with lengths by device, but not the kernel's own link-local ones."""
    ours, shown = both
    theirs = {
        str(link["ifindex"]): sorted(
            f"{address['local']}/{address['prefixlen']}"
            for address in link["addr_info"]
            if address["scope"] != "link"
        )
        for link in shown["addresses"]
    }
    assert ours["addresses"] == {
        index: addresses for index, addresses in theirs.items() if addresses
    }


@pytest.mark.parametrize("family", [4, 6])
def test_routes(both: Both, family: int) -> None:
    """We read the routes of every table but local, with all their next hops."""
    ours, shown = both
    index = {link["ifname"]: link["ifindex"] for link in shown["links"]}
    everything = "0.0.0.0/0" if family == 4 else "::/0"
    theirs = []
    for route in shown[f"routes{family}"]:
        table = int(route.get("table", 254))
        if table == 255:
            continue
        prefix = everything if route["dst"] == "default" else route["dst"]
        hops = [
            [hop.get("gateway", hop.get("via", {}).get("host", "")), index.get(hop.get("dev"), 0)]
            for hop in route.get("nexthops", [route])
        ]
        theirs.append(
            {
                "table": table,
                "prefix": prefix if "/" in prefix else f"{prefix}/{32 if family == 4 else 128}",
                "type": int(route.get("type", 1)),
                "protocol": int(route.get("protocol", 3)),
                "metric": route.get("metric", 0),
                "hops": sorted(hops),
                "next_hop_object": route.get("nhid", 0),
            }
        )
    read = [{k: v for k, v in route.items() if k != "family"} for route in ours[f"routes{family}"]]
    assert sorted(map(str, read)) == sorted(map(str, theirs))
    assert any(len(route["hops"]) == 2 for route in read)


def test_advertised_routes(both: Both) -> None:
    """We read the routes of router advertisements, with a next-hop object and without."""
    ours, _ = both
    assert ours["advertised"] == [each for each in ours["routes6"] if each["protocol"] == 9]
    assert {each["next_hop_object"] for each in ours["advertised"]} == {0, 7}


# Keys in `ip -j rule` of a rule that is not for every packet.
SELECTING = {"dst", "iif", "oif", "fwmark", "tos", "ipproto", "sport", "dport", "uid_start"}


def test_rules(both: Both) -> None:
    """We read the rules of both families in the order of their priorities."""
    ours, shown = both
    theirs = [
        {
            "family": int(family),
            "priority": rule["priority"],
            "table": int(rule.get("table", 0)),
            "l3mdev": False,
            "plain": rule["src"] == "all" and not SELECTING & rule.keys(),
            "source": f"{rule['src']}/{rule['srclen']}" if "srclen" in rule else "",
            "destination": rule.get("dst", "") and f"{rule['dst']}/{rule.get('dstlen', 32)}",
            "incoming": rule.get("iif", ""),
            "outgoing": rule.get("oif", ""),
            "selective": bool((SELECTING - {"dst", "iif"}) & rule.keys()),
            "inverted": "not" in rule,
            "refusal": {"8": "prohibit"}.get(rule.get("action", ""), ""),
            "suppressed": rule.get("suppress_prefixlen", -1),
        }
        for family, name in ((socket.AF_INET, "rules4"), (socket.AF_INET6, "rules6"))
        for rule in shown[name]
    ]
    assert ours["rules"] == theirs


@pytest.mark.parametrize("family", [4, 6])
def test_neighbours(both: Both, family: int) -> None:
    """We read neighbours with their states, also permanent ones, which FRR sets.

    The test ignores multicast, which the kernel joins by itself between the two readings.
    """
    ours, shown = both
    states = {"PERMANENT": 0x80, "FAILED": 0x20, "NOARP": 0x40, "REACHABLE": 0x02, "STALE": 0x04}
    index = {link["ifname"]: link["ifindex"] for link in shown["links"]}
    theirs = [
        {
            "index": index[neighbour["dev"]],
            "address": neighbour["dst"],
            "mac": neighbour.get("lladdr", ""),
            "state": sum(states[state] for state in neighbour["state"]),
        }
        for neighbour in shown[f"neighbours{family}"]
        if not ip_address(neighbour["dst"]).is_multicast
    ]
    read = [n for n in ours[f"neighbours{family}"] if not ip_address(n["address"]).is_multicast]
    assert sorted(map(str, read)) == sorted(map(str, theirs))
    assert any(neighbour["state"] == 0x80 for neighbour in theirs)


def test_remote_macs(both: Both) -> None:
    """We read the MACs that a VXLAN device sends to others, and none that only its bridge knows."""
    ours, _ = both
    told = {name: found for name, found in ours["remote"].items() if name in {"vx10", "vx11"}}
    assert told == {"vx10": ["02:00:00:00:00:0a"], "vx11": ["02:00:00:00:00:0c"]}


def test_forwarding(both: Both) -> None:
    """We read each entry, whose table it is in, and to which VTEP a VXLAN port sends."""
    ours, shown = both
    names = {link["index"]: name for name, link in ours["links"].items()}
    read = [
        (
            *(names[entry["index"]], entry["mac"], names.get(entry["bridge"], "")),
            *(entry["vtep"], entry["own"]),
        )
        for entry in ours["forwarding"]
    ]
    theirs = [
        (
            *(entry["ifname"], entry["mac"], entry.get("master", "")),
            *(entry.get("dst", ""), entry["state"] == "permanent"),
        )
        for entry in shown["forwarding"]
    ]
    assert sorted(read) == sorted(theirs)
    assert ("vx10", "02:00:00:00:00:0a", "", "10.2.0.3") in [each[:4] for each in read]
    assert "02:00:00:00:00:0b" in {each[1] for each in read if each[2] == "br10"}
