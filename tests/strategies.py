"""Payload documents for tests: builders of small ones, and strategies for random ones.

A builder returns plain JSON data and takes the fields that matter to the test as keywords.
"""

import copy
import io
import json
import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

from hypothesis import strategies as st
from ruamel.yaml import YAML

from generator.desired.model import Bridge, Host, Vrf
from generator.desired.payload import load
from generator.desired.payload.decode import parse
from generator.errors import Refused

Json = dict[str, Any]

LEAF1, LEAF2 = "swp1@leaf1", "swp1@leaf2"
MAC = "44:38:39:ff:00:1a"

# Fields of the real API that mean nothing on a host.
IGNORED_FIELDS = [
    *("id", "tags", "sites", "site", "tenant", "adminTenant", "guestTenant", "isSystem"),
    *("isDefault", "vlan", "vlans", "nativeVlan", "accessMode", "ipFamily", "portCount"),
    *("customData", "mgmtAddress"),
]

# --- Builders ---


def untagged(*names: str) -> list[Json]:
    return [{"name": name, "untagged": True} for name in names]


def tagged(*names: str) -> list[Json]:
    return [{"name": name} for name in names]


def link(ifname: str, port: str, **fields: Any) -> Json:
    """Return a link; `local` and `remote` in `fields` are added to its ends."""
    local = {"name": f"{ifname}@K8S01", "ifname": ifname} | fields.pop("local", {})
    return {"local": local, "remote": {"name": port} | fields.pop("remote", {})} | fields


def mgmt(**fields: Any) -> Json:
    return {
        "vnet": "Management",
        "ifname": "ens4",
        "ipv4": "10.12.0.101/16",
        "gateway": "10.12.0.1",
    } | fields


def server(**fields: Any) -> Json:
    return {
        "name": "K8S01",
        "srvRole": "EVPN-VTEP",
        "asn": 4200000001,
        "mainAddress": "10.2.0.101",
        "mgmt": mgmt(),
    } | fields


def vpc(id_: int, **fields: Any) -> Json:
    return {"id": id_, "name": f"vpc-{id_}"} | fields


def vnet(vxlan_id: int, vpc_id: int = 33, **fields: Any) -> Json:
    """Return a V-Net without ports; `prefixes` gives it gateways and a MAC."""
    segment = {"name": f"vnet-{vxlan_id}", "vxlanID": vxlan_id, "vpc": {"id": vpc_id}}
    if prefixes := fields.pop("prefixes", ()):
        segment |= {"gateways": [{"prefix": prefix} for prefix in prefixes], "macAddress": MAC}
    return segment | fields


def management(**fields: Any) -> Json:
    return vnet(14, 26, name="Management", ports=untagged(LEAF1, LEAF2)) | fields


def host(*vnets: Json, **fields: Any) -> Json:
    """Return a host with these V-Nets and two links, both untagged in its management V-Net."""
    return {
        "apiVersion": "evpn-host/v1",
        "kind": "Host",
        "generation": 1,
        "server": server(),
        "links": [link("ens4", LEAF1), link("ens5", LEAF2)],
        "vpcs": [vpc(26, name="Infrastructure"), vpc(33, name="coke", vni=1033)],
        "vnets": [management(), *vnets],
    } | fields


def fleet(*hosts: Json, **fields: Any) -> Json:
    """Return a Fleet of hosts ({server, links}), with the segments of `host`."""
    segments = {name: host()[name] for name in ("apiVersion", "generation", "vpcs", "vnets")}
    return segments | {"kind": "Fleet", "hosts": list(hosts)} | fields


# --- Forms of a document, and what `load` says of it ---


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def as_yaml(document: Json) -> bytes:
    """Return a document as a library writes it in YAML."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    text = io.StringIO()
    writer.dump(json.loads(json.dumps(document)), text)  # objects in two places would be aliases
    return text.getvalue().encode()


def parsed(path: Path) -> Json:
    """Return the document of a payload's file, JSON or YAML."""
    document: Json = parse(path.read_bytes())[0]
    return document


def derived(document: Json) -> Host:
    """Return the one host of an accepted document."""
    return load(encoded(document)).host(None)


def bridge(host_: Host, name: str) -> Bridge:
    return next(bridge for bridge in host_.bridges if bridge.name == name)


def vrf(host_: Host, name: str) -> Vrf:
    return next(vrf for vrf in host_.vrfs if vrf.name == name)


def refusals(document: object) -> list[str]:
    """Return the problems of a document, as text; no problem when it is accepted."""
    try:
        load(document if isinstance(document, bytes) else encoded(document))
    except Refused as refused:
        return [str(problem) for problem in refused.problems]
    return []


def places(document: object) -> list[str]:
    """Return the places of a document's problems."""
    return [problem.split(": ")[0] for problem in refusals(document)]


# --- Every shape of accepted document ---

HOSTILE_NAMES = [
    'say "hi"',
    "it's",
    "ends with \\",
    "100%",
    "${7*7}",
    "<% raise %>",
    "{{ host }}{% raw %}",
    "# comment",
    "! comment",
    " leading and trailing ",
    "- list: [a, {b: c}]",
    "~",
    "null",
    "exit",
    "Größe",
    "网络",
    "🦊",
    "a\u202eb",
    "\ufeffbom",
    "x" * 255,
    "   ",
    "\u00a0",
    "\u3000" * 255,
    "@",
    "8 secret",
    "description",
]
# Reserved names, and names of devices that a host derives: a NIC can have none of them.
_NOT_A_NIC = re.compile(
    r"(nbr-|vxlan|Vrf_|l3br-|l3vx-).*|lo|all|default|renderer|LEAVES|.*\.(?![0-9]{1,4}$).*"
)
# Words that YAML, netplan, ifupdown2, FRR and a shell read in their own way.
ODD_NICS = [
    *(
        "no",
        "yes",
        "on",
        "off",
        "y",
        "n",
        "null",
        "Null",
        "true",
        "False",
        "nan",
        "inf",
        "e1",
        "E5",
    ),
    *("version", "network", "ethernets", "bridges", "id", "match", "any", "none", "set-name"),
    *(
        "auto",
        "iface",
        "inet",
        "inet6",
        "dhcp",
        "manual",
        "static",
        "loopback",
        "mapping",
        "source",
    ),
    *("inherits", "vlan", "vlan100", "vlan-id", "bond0", "br0", "tun0", "gre0", "sit0", "dummy0"),
    *("exit", "end", "interface", "neighbor", "remote-as", "external", "peer-group", "vrf", "OWN"),
    *("FABRIC", "NOT-DEFAULT", "A.1", "fe80", "do", "done", "in", "for", "dev", "label", "global"),
    *("ens4.100", "ens4.0", "ens4.4094", "e.100.200", "e" * 15, "a--------------", "a_", "E0"),
]
ODD_PASSWORDS = [
    *("!", "#x", "8", '"', "'x", "\\", "x|y", "?", "${x}", "{%x%}", "null", "~" * 80),
]
# Gateways that overlap no other ones of a document: short and long subnets, unusual ranges, and
# IPv6 in notations that are not the usual one.
ODD_PREFIXES = [
    *("1.2.3.4/8", "::1.2.3.4/96", "169.254.1.1/16", "64:FF9B::1.2.3.4/96", "192.0.2.1/30"),
    *("2001:DB8:0:0:1:0:0:1/64", "198.18.0.1/15", "0100::1/8", "223.255.255.253/30", "fc00::1/8"),
    *("1234:5678:9abc:def0:1234:5678:9abc:def2/126", "100.64.0.1/10", "fec0::1/10", "8000::1/2"),
    *("128.0.0.1/9", "2001:0:0:0:0:0:0.0.0.1/48", "64.0.0.1/10", "2002:0102:0304::1/48"),
]

names = st.one_of(
    st.sampled_from(HOSTILE_NAMES),
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=40),
    st.integers(0, 999).map("tenant-{}".format),
)
nics = st.one_of(
    st.sampled_from(["ens4", "eth0", "enp3s0f1np1"]),
    st.sampled_from(ODD_NICS),
    st.builds(
        str.__add__,
        st.sampled_from(ascii_letters),
        st.text(ascii_letters + digits + "_.-", max_size=14),
    ).filter(lambda name: not _NOT_A_NIC.fullmatch(name)),
)
host_names = st.text(ascii_letters + digits + "-", max_size=61).map("h{}1".format)
passwords = st.sampled_from(ODD_PASSWORDS) | st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=80
)
asns = st.integers(1, 4294967294).filter(lambda asn: asn not in {23456, 65535})
vnis = st.one_of(st.integers(2, 4096), st.integers(2, 16777215), st.sampled_from([2, 16777215]))
vpc_ids = st.one_of(
    st.integers(1, 99), st.integers(1, 4294966294), st.sampled_from([1, 4000, 4001, 4294966294])
)
mtus = st.one_of(st.sampled_from([1280, 1500, 9000, 9216]), st.integers(1280, 9216))
macs = st.integers(1, (1 << 48) - 1).map(
    # The group bit is off. The bit of 02:… is on, so that the address is never zero.
    lambda n: ":".join(f"{b:02x}" for b in ((n | 2 << 40) & ~(1 << 40)).to_bytes(6))
) | st.sampled_from(["00:00:00:00:00:01", "FE:FF:FF:FF:FF:FF", "0a:0B:0c:0D:0e:0F"])
ignored = st.fixed_dictionaries(
    {},
    optional={
        "tags": st.lists(names, max_size=2),
        "tenant": st.fixed_dictionaries({"id": st.integers(), "name": names}),
        "customData": st.recursive(st.none() | names, st.lists, max_leaves=3),
        "isSystem": st.booleans(),
    },
)
targets = st.lists(
    st.one_of(
        st.builds("{}:{}".format, st.integers(1, 65535), st.integers(0, 4294967295)),
        st.builds("{}:{}".format, st.integers(65536, 4294967295), st.integers(0, 65535)),
        st.builds("192.0.2.{}:{}".format, st.integers(0, 255), st.integers(0, 65535)),
    ),
    max_size=3,
)


def _maybe(draw: st.DrawFn, **fields: st.SearchStrategy[Any]) -> Json:
    return dict(draw(st.fixed_dictionaries({}, optional=fields)))


def _unique(values: st.SearchStrategy[Any], count: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=count, max_size=count, unique=True)


@st.composite
def _bgp(draw: st.DrawFn) -> Json:
    keepalive = draw(st.sampled_from([1, 3, 60, 21845]))
    timers = {"keepalive": keepalive, "holdtime": draw(st.integers(3 * keepalive, 65535))}
    return draw(st.sampled_from([{}, timers])) | _maybe(draw, bfd=st.booleans(), password=passwords)


@st.composite
def _link(draw: st.DrawFn, number: int, ifname: str, port: str, asn: int) -> Json:
    entry = link(ifname, port, local={"name": draw(names)})
    entry |= _maybe(draw, underlay=st.sampled_from(["enabled", "disabled"]), mtu=mtus)
    entry["remote"] |= _maybe(draw, asn=asns.filter(lambda other: other != asn))
    if draw(st.booleans()):
        length = draw(st.sampled_from([30, 31]))
        first = 1 if length == 30 else 0
        for end, octet in (("local", first), ("remote", first + 1)):
            entry[end]["ipv4"] = f"100.64.{number}.{octet}/{length}"
    return entry | draw(ignored)


def _dotted(address: IPv6Address) -> str:
    """Write the last 32 bits as in IPv4 (RFC 4291, 2.2)."""
    return f"{address.exploded[:29]}:{IPv4Address(int(address) & 0xFFFFFFFF)}"


NOTATIONS: list[Callable[[IPv6Address], str]] = [
    str,
    lambda address: str(address).upper(),
    lambda address: address.exploded,
    lambda address: re.sub(r"(^|:)0{1,3}", r"\1", address.exploded),
    _dotted,
]


@st.composite
def _prefix(draw: st.DrawFn, number: int) -> str:
    """Draw a gateway whose subnet overlaps that of no other number."""
    if number <= len(ODD_PREFIXES) and draw(st.booleans()):
        return ODD_PREFIXES[number - 1]
    if draw(st.booleans()):
        length = draw(st.integers(16, 30))
        inside = draw(st.integers(1, (1 << 32 - length) - 2))
        return f"{IPv4Address(f'10.{number}.0.0') + inside}/{length}"
    length = draw(st.integers(48, 126))
    inside = draw(st.integers(1, (1 << 128 - length) - 1))
    address = IPv6Address(f"fd00:0:{number:x}::") + inside
    return f"{draw(st.sampled_from(NOTATIONS))(address)}/{length}"


@st.composite
def _vnet(draw: st.DrawFn, ports: list[str], numbers: Iterator[int]) -> Json:
    """Draw a V-Net without name, VNI and VPC, on some of the host's ports."""
    mode = draw(st.sampled_from([tagged, tagged, untagged]))
    on_host = draw(st.sampled_from([ports, ports[:1], ports[1:], []]))
    elsewhere = draw(st.sampled_from([[], tagged("swp1@elsewhere"), untagged("swp1@elsewhere")]))
    segment = {"ports": mode(*on_host) + elsewhere} | _maybe(
        draw, mtu=mtus, state=st.sampled_from(["active", "active", "disabled"])
    )
    count = draw(st.sampled_from([1, 2, 4, 0]))
    if count:
        segment["gateways"] = [{"prefix": draw(_prefix(next(numbers)))} for _ in range(count)]
        if any(":" in gateway["prefix"] for gateway in segment["gateways"]):
            segment |= _maybe(draw, ipv6NeighborDiscovery=_discovery())
        segment |= draw(
            st.one_of(
                st.fixed_dictionaries({"macAddress": macs}),
                st.fixed_dictionaries({"customAnycastMac": macs}),
                st.fixed_dictionaries({"macAddress": macs, "customAnycastMac": macs}),
            )
        )
    else:
        segment |= _maybe(draw, l2only=st.booleans(), macAddress=macs)
    return segment | draw(ignored)


@st.composite
def _discovery(draw: st.DrawFn) -> Json:
    """Draw what a V-Net with an IPv6 gateway advertises."""
    interval = draw(st.sampled_from([600, 4, 1800]))
    valid = draw(st.integers(604800, 4294967295))
    servers = st.lists(st.integers(1, 9).map("fd00:53::{}".format), min_size=1, max_size=3)
    lifetimes = st.integers(0, 4294967295)
    prefix = _maybe(draw, preferredLifetime=st.integers(0, valid), autoconfig=st.booleans())
    rdnss = {"servers": sorted(set(draw(servers)))} | _maybe(draw, lifetime=lifetimes)
    return {
        "mode": draw(st.sampled_from(["enabled", "disabled"])),
        "interval": interval,
        "prefix": {"validLifetime": valid} | prefix,
    } | _maybe(
        draw,
        routerLifetime=st.one_of(st.just(0), st.integers(interval, 9000)),
        managed=st.booleans(),
        other=st.booleans(),
        rdnss=st.just(rdnss),
    )


@st.composite
def documents(draw: st.DrawFn) -> Json:
    """Draw an accepted Host document: any shape, hostile names, values up to their bounds."""
    asn = draw(asns)
    ifnames = draw(st.sampled_from([2, 1, 4, 0]).flatmap(lambda n: _unique(nics, n)))
    port_names = draw(_unique(names, len(ifnames)))
    # The number tells each port from the others, and from a V-Net's ports elsewhere.
    ports = [f"{name[:240]}@{number}" for number, name in enumerate(port_names)]
    links = [
        draw(_link(number, ifname, port, asn))
        for number, (ifname, port) in enumerate(zip(ifnames, ports, strict=True))
    ]
    ids = draw(st.lists(vpc_ids, min_size=1 if links else 0, max_size=4, unique=True))
    vpc_names = draw(_unique(names, len(ids)))
    vnet_names = draw(_unique(names, draw(st.sampled_from([3, 2, 1, 6])) if ids else 0))
    free = iter(draw(_unique(vnis, len(ids) + len(vnet_names))))
    vpcs = []
    for id_, name in zip(ids, vpc_names, strict=True):
        entry = {"id": id_, "name": name} | draw(st.sampled_from([{"vni": next(free)}, {}]))
        if draw(st.booleans()):
            entry["routeTargets"] = _maybe(draw, **{"import": targets, "export": targets})
        vpcs.append(entry | draw(ignored))
    numbers = iter(range(1, 256))
    vnets = []
    for name in vnet_names:
        entry = draw(_vnet(ports, numbers))
        vnets.append(
            {"name": name, "vxlanID": next(free), "vpc": {"id": draw(st.sampled_from(ids))}} | entry
        )
    server_: Json = {
        "name": draw(host_names),
        "srvRole": "EVPN-VTEP",
        "asn": asn,
        "mainAddress": str(IPv4Address(draw(st.integers(0xAC100000, 0xAC1FFFFF)))),
    }
    if draw(st.booleans()):
        server_["bgp"] = draw(_bgp())
    if links:
        managed = draw(st.sampled_from(vnets))
        managed.pop("state", None)
        inside = {draw(st.sampled_from(ports)), *draw(st.lists(st.sampled_from(ports)))}
        managed["ports"] = untagged(*sorted(inside))
        nic = draw(st.sampled_from([n for n, p in zip(ifnames, ports, strict=True) if p in inside]))
        server_["mgmt"] = mgmt(
            vnet=managed["name"], ifname=nic, ipv4="192.0.2.101/24", gateway="192.0.2.1"
        ) | draw(
            st.sampled_from(
                [
                    {},
                    {"ipv6": "2001:db8::101/64"},
                    {"ipv6": "2001:db8::101/64", "gateway6": "2001:db8::1"},
                    {"ipv6": "::10.12.0.101/96", "gateway6": "::10.12.0.1"},
                    {"ipv6": "2001:DB8:0:0:1:0:0:101/64", "gateway6": "2001:db8::"},
                ]
            )
        )
    document = {"apiVersion": "evpn-host/v1", "kind": "Host", "server": server_ | draw(ignored)}
    document |= _maybe(draw, generation=st.integers(0, 9223372036854775807))
    sections = {"links": links, "vpcs": vpcs, "vnets": vnets}
    return document | {name: inside for name, inside in sections.items() if inside}


ROLES = ["generic", "hypervisor", "Softgate", "evpn-vtep"]


def _nic_labels(draw: st.DrawFn, nics_: list[str], values: list[str]) -> list[str]:
    """Draw labels of NICs; a NIC may have several."""
    pairs = st.tuples(st.sampled_from(nics_), st.sampled_from(values))
    form = draw(st.sampled_from(["iface.{} = {}", "iface.{}={}", " iface.{}  =  {} "]))
    return [form.format(*pair) for pair in draw(st.lists(pairs, max_size=4, unique=True))]


@st.composite
def _fleet_host(draw: st.DrawFn, number: int, values: list[str]) -> Json:
    """Draw a VTEP with up to three links; each NIC's name at the controller is not its own."""
    count = draw(st.integers(1, 3))
    ports = [f"swp{number}s{n}@leaf{n}" for n in range(count)]
    links = [
        link(f"ens{n}", port, local={"name": f"eth{n}@h{number}"}) | draw(ignored)
        for n, port in enumerate(ports)
    ]
    address = mgmt(ifname="ens0", ipv4=f"10.12.0.{10 + number}/16")
    entry = server(
        name=f"h{number}", asn=4200000001 + number, mainAddress=f"10.2.0.{number}", mgmt=address
    )
    labels = _nic_labels(draw, [f"eth{n}" for n in range(count)], values)
    return {"server": entry | ({"labels": labels} if labels else {}), "links": links}


@st.composite
def _bare_metal(draw: st.DrawFn, number: int, values: list[str]) -> Json:
    """Draw a server of another role, with a label on each of some NICs: it is untagged there."""
    links = [
        {"local": {"name": f"eth{n}@gpu{number}"}, "remote": {"name": f"swp{number}@gpuleaf{n}"}}
        for n in range(draw(st.integers(1, 3)))
    ]
    entry: Json = {"name": f"gpu{number}", "srvRole": draw(st.sampled_from(ROLES))}
    labelled = draw(st.lists(st.integers(0, len(links) - 1), unique=True))
    if labelled and values and draw(st.booleans()):
        entry["labels"] = [f"iface.eth{n} = {draw(st.sampled_from(values))}" for n in labelled]
    return {"server": entry | draw(ignored), "links": links}


def _template(draw: st.DrawFn, name: str) -> Json:
    """Draw a template with V-Nets of one to three NICs, and a V-Net that no host has."""
    vnets: list[Json] = [
        {"postfix": "E-W", "type": draw(st.sampled_from(["l3vpn", "netris-ufm", "netris-nvlink"]))}
    ]
    for number in range(draw(st.integers(1, 2))):
        entry = {"postfix": f"N-S {number}", "type": "l2vpn", "serverNics": [f"eth{number}"]}
        if draw(st.booleans()):
            entry["ipv4Gateway"] = draw(st.sampled_from(["specify", {"assignType": "specify"}]))
        elif draw(st.booleans()):
            entry["ipv6Gateway"] = f"fd00:{number}::1/64"
        vnets.append(entry | _maybe(draw, vlanID=st.just("auto"), vlan=st.just("untagged")))
    return {"name": name, "vnets": vnets}


def _cluster(draw: st.DrawFn, number: int, template: Json, hosts: list[Json]) -> Json:
    """Draw a Server Cluster in a VPC of its own; no server is dedicated to it yet."""
    vnets: Json = {}
    for index, each in enumerate(template["vnets"]):
        if each["type"] == "l2vpn":
            vni = 5000 + 10 * number + index
            vnets[each["postfix"]] = {"vxlanID": vni, "macAddress": MAC}
            if "ipv4Gateway" in each:
                prefix = f"10.{number}.{index}.1/24"
                vnets[each["postfix"]]["gateways"] = [{"prefix": prefix}]
    shared = draw(
        st.lists(st.sampled_from([each["server"]["name"] for each in hosts]), unique=True)
    )
    return {
        "name": f"cluster {number}",
        "vpc": {"id": 100 + number},
        "template": template["name"],
        "servers": [],
        "sharedEndpoints": [draw(st.sampled_from([name, name.upper()])) for name in shared],
        "vnets": vnets,
    }


@st.composite
def fleets(draw: st.DrawFn) -> Json:
    """Draw an accepted Fleet: hosts and bare-metal servers in V-Nets by ports, labels and clusters.

    VTEPs are tagged everywhere but in the management V-Net, and bare-metal servers untagged once.
    """
    tenants = draw(_unique(names.map(lambda name: f"t{name[:100].strip()}"), 3))
    shared, own = [name for name in tenants if "=" not in name], ["own-1", "own-2"]
    shared = shared or ["shared"]
    hosts = [draw(_fleet_host(n, shared)) for n in range(1, 1 + draw(st.integers(1, 3)))]
    metal = [draw(_bare_metal(n, own)) for n in range(1, 1 + draw(st.integers(0, 3)))]
    ports = [each["remote"]["name"] for host_ in hosts for each in host_["links"]]
    first = [host_["links"][0]["remote"]["name"] for host_ in hosts]
    vnets = [management(ports=untagged(*first))]
    for number, value in enumerate([*shared, *own]):
        on_hosts = tagged(*draw(st.lists(st.sampled_from(ports), unique=True, max_size=3)))
        segment = vnet(100 + number, prefixes=[f"10.200.{number}.1/24"], ports=on_hosts)
        labels: list[Json] = [{"value": value} | ({"untagged": True} if value in own else {})]
        if value not in own:
            labels += [
                {"value": other} for other in draw(st.sets(st.sampled_from(shared))) - {value}
            ]
        vnets.append(segment | {"labels": labels} | draw(ignored))
    templates = [_template(draw, f"template {n}") for n in range(draw(st.integers(0, 2)))]
    clusters = [
        _cluster(draw, n, draw(st.sampled_from(templates)), hosts)
        for n in range(draw(st.integers(0, 2)) if templates else 0)
    ]
    for each in metal:
        if clusters and "labels" not in each["server"] and draw(st.booleans()):
            draw(st.sampled_from(clusters))["servers"].append(each["server"]["name"])
    for each in clusters:
        used = next(t for t in templates if t["name"] == each["template"])
        members = {name.lower() for name in each["servers"] + each["sharedEndpoints"]}
        inside = [e for e in hosts + metal if e["server"]["name"].lower() in members]
        widest = max((len(e["links"]) for e in inside), default=9)
        if any(
            v["type"] == "l2vpn" and int(v["serverNics"][0][3:]) >= widest for v in used["vnets"]
        ):
            each["servers"], each["sharedEndpoints"] = [], []  # nobody has a NIC of the template
    vpcs = [vpc(26), vpc(33, vni=1033)]
    vpcs += [vpc(each["vpc"]["id"], vni=2000 + n) for n, each in enumerate(clusters)]
    sections = {"serverClusterTemplates": templates, "serverClusters": clusters}
    everybody = draw(st.permutations(hosts + metal))
    return fleet(*everybody, vpcs=vpcs, vnets=vnets) | {k: v for k, v in sections.items() if v}


Membership = tuple[str, str, bool]


def by_hand(document: Json) -> Json:
    """Return a Fleet with all its V-Nets' ports written by hand: the plainest reading of the rules.

    It is slow and simple on purpose, because tests compare the product with it.
    """
    document = json.loads(json.dumps(document))
    nics_ = [
        (host_["server"], each["local"]["name"].partition("@")[0], each["remote"]["name"])
        for host_ in document["hosts"]
        for each in host_["links"]
    ]
    vnets = {each["name"]: each for each in document["vnets"]}
    memberships = [each for segment in vnets.values() for each in _by_label(segment, nics_)]
    templates = {each["name"]: each for each in document.pop("serverClusterTemplates", [])}
    for cluster in document.pop("serverClusters", []):
        for each in templates[cluster["template"]]["vnets"]:
            if each["type"] == "l2vpn":
                segment = _of_cluster(cluster, each)
                vnets[segment["name"]] = segment
                memberships += _by_cluster(segment["name"], cluster, each, nics_)
    for name, port, untagged_ in memberships:
        if port not in [each["name"] for each in vnets[name]["ports"]]:
            vnets[name]["ports"].append({"name": port, "untagged": untagged_})
    for host_ in document["hosts"]:
        host_["server"].pop("labels", None)
    return document | {"vnets": list(vnets.values())}


def _by_label(segment: Json, nics_: list[tuple[Json, str, str]]) -> list[Membership]:
    return [
        (segment["name"], port, label.get("untagged", False))
        for label in segment.pop("labels", [])
        for server_, nic, port in nics_
        for text in server_.get("labels", [])
        if [part.strip() for part in text.split("=", 1)] == [f"iface.{nic}", label["value"]]
    ]


def _of_cluster(cluster: Json, each: Json) -> Json:
    own: Json = cluster["vnets"][each["postfix"]]
    name = f"{cluster['name']}-{each['postfix']}"
    fixed = {"gateways": [{"prefix": each["ipv6Gateway"]}]} if "ipv6Gateway" in each else {}
    return own | fixed | {"name": name, "vpc": cluster["vpc"], "ports": []}


def _by_cluster(
    name: str, cluster: Json, each: Json, nics_: list[tuple[Json, str, str]]
) -> list[Membership]:
    return [
        (name, port, group == "servers")
        for group in ("servers", "sharedEndpoints")
        for server_, nic, port in nics_
        if server_["name"].lower() in [member.lower() for member in cluster[group]]
        if nic in each["serverNics"]
    ]


def odd_hosts() -> dict[str, Json]:
    """Return accepted documents that have every odd value: NICs, gateways and names, passwords."""
    ports = [f"{HOSTILE_NAMES[n % len(HOSTILE_NAMES)][:240]}{n}" for n in range(len(ODD_NICS))]
    nics_ = host(
        server=server(mgmt=mgmt(ifname=ODD_NICS[0])),
        links=[link(nic, port) for nic, port in zip(ODD_NICS, ports, strict=True)],
        vnets=[management(ports=untagged(*ports))],
    )
    names_ = dict(enumerate(HOSTILE_NAMES))
    gateways = host(
        *(
            vnet(
                100 + n,
                vpc_id=34 + n % 2,
                name=names_.get(n, f"vnet-{n}"),
                prefixes=[prefix],
                ports=tagged(LEAF1),
            )
            for n, prefix in enumerate(ODD_PREFIXES)
        ),
        vpcs=[vpc(26), vpc(34, name="   ", vni=16777215), vpc(35, name="\u00a0", vni=2)],
    )
    documents_ = {"NICs": nics_, "gateways": gateways}
    for password in ODD_PASSWORDS:
        bgp = {"password": password, "keepalive": 1, "holdtime": 3, "bfd": True}
        documents_[f"password {password}"] = host(server=server(bgp=bgp))
    return documents_


# --- Documents that may not be accepted ---

HOSTILE_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.0, 1.5, -0.0, 1e308, float("inf"), float("nan")),
    *(65535, 23456, 2**31, 2**32, 2**63, 2**64, -(2**64), 10**40),
    *("", " ", "0", "lo", "all", "a" * 256, "é" * 300, "kind"),
    *("a\nb", "a\rb", "\x00", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u2029", "\ud800", "a\udfff"),
    *("a\\", '"', "'", "${1}", "%", "#", "!", "{{ 1 }}", "\u202e", "\ufeff"),
    *("0.0.0.0", "1.2.3.4/0", "1.2.3.4/33", "01.2.3.4/24", "10.0.0.0/8", "10.0.0.255/24", "::/0"),  # noqa: S104
    *("fe80::1/64", "ff02::1/64", "::ffff:1.2.3.4/96", "1.2.3.4/24/24", "::1%lo/64", "１.2.3.4"),
    *("ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "1:2", "0:0", "1.2.3.4:99999", ":"),
    *([], {}, [[]], [{}], [None], {"": None}, {"\n": "\n"}, {"\ud800": ["\ud800"]}, {"id": True}),
]

json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just("\ud800"), names
    ),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=20,
)
# Copies, because a later mutation may change a value inside the document.
hostile_values = st.sampled_from(HOSTILE_VALUES).map(copy.deepcopy) | json_values


def _slots(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in a document: the object or list, and the key or index in it."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [s for key in keys for s in _slots(value[key])]


def _mutate(draw: st.DrawFn, document: Json) -> None:
    slots = _slots(document)
    if not slots:
        return
    inside, key = slots[draw(st.integers(0, len(slots) - 1))]
    match draw(st.sampled_from(["replace", "delete", "add", "swap", "repeat", "wrap"])):
        case "replace":
            inside[key] = draw(hostile_values)
        case "delete":
            del inside[key]
        case "add" if isinstance(inside, dict):
            inside[draw(st.text() | st.sampled_from(["vxlanId", "Name", "vlan"]))] = draw(
                hostile_values
            )
        case "swap":
            other, place = slots[draw(st.integers(0, len(slots) - 1))]
            inside[key] = json.loads(json.dumps(other[place]))
        case "repeat" if isinstance(inside, list):
            inside.append(json.loads(json.dumps(inside[key])))
        case _:
            inside[key] = draw(st.sampled_from([[inside[key]], {"id": inside[key]}, str]))
            if inside[key] is str:
                inside[key] = "text"


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Draw an accepted document with a few faults; a repeated key exists only in its text."""
    document: Json = draw(documents() | fleets())
    for _ in range(draw(st.integers(0, 4))):
        _mutate(draw, document)
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        key = draw(st.sampled_from(["server", "vnets", "name", "id", "mtu"]))
        text = text.replace(f'"{key}":', f'"{key}": null, "{key}":', 1)
    return text.encode(errors="surrogatepass")
