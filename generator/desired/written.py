"""Reads a host back from its rendered files: pure.

The host is rendered again. It counts only if that gives the same files, so a file that somebody
edited, or that an older version wrote, is never half understood.

No file has the management address, which is "" here, or the route targets of a VPC without L3VNI.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from generator.desired import plan
from generator.desired.model import (
    Advertisements,
    Bgp,
    Bridge,
    Gateway,
    Host,
    Management,
    Uplink,
    Vrf,
    Vxlan,
)
from generator.desired.render import render

Files = Mapping[str, str]  # path to text, without our first line

_FRR = "etc/frr/frr.conf"
_SYSCTL = "etc/sysctl.d/90-evpn-host.conf"
# The file in which each backend has its devices.
MAIN_FILES = ("etc/netplan/60-evpn-host.yaml", "etc/network/interfaces.d/evpn-host")
_DROP_IN = "etc/systemd/network/10-netplan-{}.network.d/evpn-host.conf"
_BRIDGE = re.compile(r"(nbr|l3br)-(\d+)")
_VRF = re.compile(r"Vrf_(\d+)")
# The head of a device's section in netplan's file and in ifupdown2's.
_HEAD = re.compile(r'    "?([^\s":]+)"?:( \{.*?\})?(?:  # (.*))?|iface (\S+)')
_NEIGHBOR = re.compile(r" neighbor (\S+) (interface v6only |remote-as |description )(.*)")
_BLOCK = re.compile(r"^(\S.*)\n((?: .*\n)+)", re.MULTILINE)
_WORDS = {
    "mac": re.compile(r'(?:macaddress:|hwaddress) "?([0-9a-f:]+)"?'),
    "mtu": re.compile(r"(?:mtu:?|MTUBytes=) ?(\d+)"),
    "address": re.compile(r'(?:- "|address |Address=)([^\s"]+)"?'),
    "vrf": re.compile(r"vrf (\S+)"),
}


class _Frr:
    """The text of frr.conf, and its blocks by their first line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asn = int(_one(r"^router bgp (\d+)$", text))
        self._blocks: dict[str, str] = dict(_BLOCK.findall(text))

    def block(self, head: str) -> str:
        """Return the lines of the block that begins with `head`, "" if there is none."""
        return self._blocks.get(head, "")


class _Section(NamedTuple):
    """What a file says about a device."""

    label: str
    inline: str
    lines: list[str]

    def first(self, word: str) -> str | None:
        """Return the first value of a setting, None without one."""
        return next(iter(self.all(word)), None)

    def all(self, word: str) -> list[str]:
        """Return the values of a setting."""
        return [match[1] for line in self.lines if (match := _WORDS[word].fullmatch(line))]


class Written(NamedTuple):
    """A host that was read from its files, and the backend that they are for."""

    host: Host
    backend: str


def read(files: Files, backends: Iterable[str]) -> Written | None:
    """Return the host whose files these are, and its backend. None if they are no host's."""
    from jinja2 import TemplateError  # noqa: PLC0415  # slow to import

    try:
        host = _host(files)
        fitting = (backend for backend in backends if _bodies(host, backend) == files)
        return next((Written(host, backend) for backend in fitting), None)
    except (ValueError, LookupError, TemplateError):
        return None


def gateways(files: Files) -> dict[int, str]:
    """Return the gateways and the MAC of each V-Net whose gateway is on a host, by VNI.

    It reads only the main file, and does not check it.
    """
    text = "".join(files[path] for path in MAIN_FILES if path in files)
    by_vni = {}
    for name, section in _sections(text).items():
        bridge = _BRIDGE.fullmatch(name)
        if bridge and bridge[1] == "nbr" and (addresses := section.all("address")):
            by_vni[int(bridge[2])] = ", ".join(
                [*sorted(addresses), section.first("mac") or "no MAC"]
            )
    return by_vni


def _bodies(host: Host, backend: str) -> dict[str, str]:
    return {path: plan.body(text) for path, text in render(host, backend).items()}


def _host(files: Files) -> Host:
    frr = _Frr(files[_FRR])
    sections = _sections("".join(files[path] for path in MAIN_FILES if path in files))
    loopback = _one(r"^ bgp router-id (\S+)$", frr.text)
    vrf_of = _vrfs_of_bridges(sections)
    with_ipv6 = set(
        re.findall(r"^net/ipv6/conf/(\S+)/disable_ipv6 = 0$", files[_SYSCTL], re.MULTILINE)
    )
    bridges = [
        _bridge(
            name,
            section,
            loopback,
            vrf_of.get(name),
            advertisements=_advertisements(frr.block(f"interface {name}")),
            ipv6=name in with_ipv6,
        )
        for name, section in sections.items()
        if _BRIDGE.fullmatch(name)
    ]
    by_vrf: dict[str | None, list[str]] = {}
    for bridge in bridges:
        by_vrf.setdefault(bridge.vrf, []).append(bridge.name)
    uplinks = tuple(_uplinks(sections, files))
    return Host(
        name=_one(r"^hostname (\S+)$", frr.text),
        asn=frr.asn,
        loopback=loopback,
        bgp=_bgp(frr.block(f"router bgp {frr.asn}")),
        management=_management(sections, uplinks, frr.text),
        uplinks=uplinks,
        vrfs=tuple(
            _vrf(name, section.label, frr, by_vrf.get(name, []))
            for name, section in sections.items()
            if _VRF.fullmatch(name)
        ),
        bridges=tuple(bridges),
    )


def _one(pattern: str, text: str) -> str:
    """Return the group of a pattern's first match. Raises `LookupError`."""
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise LookupError(pattern)
    return match[1]


def _maybe(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None


def _sections(text: str) -> dict[str, _Section]:
    """Return what netplan's or ifupdown2's file says about each device, in the file's order."""
    sections: dict[str, _Section] = {}
    section = _Section("", "", [])
    comment = ""
    for line in text.splitlines():
        if head := _HEAD.fullmatch(line):
            name = head[1] or head[4]
            section = _Section(head[3] or comment, (head[2] or "").strip(), [])
            sections[name] = section
        elif line.startswith("    "):
            section.lines.append(line.strip())
        if not line.startswith("auto "):
            comment = line.removeprefix("# ") if line.startswith("# ") else ""
    return sections


def _vrfs_of_bridges(sections: Mapping[str, _Section]) -> dict[str, str]:
    vrfs = {name: vrf for name, each in sections.items() if (vrf := each.first("vrf"))}
    for name, section in sections.items():
        if _VRF.fullmatch(name):
            bridges = (line.removeprefix("- ") for line in section.lines)
            vrfs |= {each: name for each in bridges if _BRIDGE.fullmatch(each)}
    return vrfs


def _bridge(  # noqa: PLR0913  # its settings stand in several files
    name: str,
    section: _Section,
    loopback: str,
    vrf: str | None,
    *,
    advertisements: Advertisements | None,
    ipv6: bool,
) -> Bridge:
    kind, vni = name.split("-")
    mtu = int(section.first("mtu") or "")
    is_vnet = kind == "nbr"
    return Bridge(
        name=name,
        label=section.label,
        port=Vxlan(
            name=f"vxlan{vni}" if is_vnet else f"l3vx-{vni}",
            vni=int(vni),
            bridge=name,
            local=loopback,
            mtu=mtu,
            suppress=is_vnet,
        ),
        mtu=mtu,
        mac=section.first("mac") or "",
        vrf=vrf,
        gateways=tuple(Gateway(each, 6 if ":" in each else 4) for each in section.all("address")),
        ipv6=ipv6,
        advertisements=advertisements,
    )


def _advertisements(block: str) -> Advertisements | None:
    """Return what a bridge advertises, from its lines in frr.conf."""
    if not block:
        return None
    prefixes = [line.split() for line in re.findall(r"^ ipv6 nd prefix (.*)$", block, re.MULTILINE)]
    servers = [line.split() for line in re.findall(r"^ ipv6 nd rdnss (.*)$", block, re.MULTILINE)]
    interval = _maybe(r"^ ipv6 nd ra-interval (\d+)$", block)
    lifetime = _maybe(r"^ ipv6 nd ra-lifetime (\d+)$", block)
    times = [each for each in (prefixes[0][1:] if prefixes else []) if each != "no-autoconfig"]
    return Advertisements(
        interval=int(interval) if interval else None,
        lifetime=int(lifetime) if lifetime else None,
        managed=" ipv6 nd managed-config-flag\n" in block,
        other=" ipv6 nd other-config-flag\n" in block,
        prefixes=tuple(each[0] for each in prefixes),
        valid=times[0] if times else None,
        preferred=times[1] if times else None,
        autoconfig=not any("no-autoconfig" in each for each in prefixes),
        servers=tuple(each[0] for each in servers),
        servers_lifetime=servers[0][1] if servers and len(servers[0]) > 1 else None,
    )


def _vrf(name: str, label: str, frr: _Frr, bridges: list[str]) -> Vrf:
    vni = _maybe(r"^ vni (\d+)$", frr.block(f"vrf {name}"))
    block = frr.block(f"router bgp {frr.asn} vrf {name}")
    targets = [
        tuple(re.findall(rf"^  route-target {way} (\S+)$", block, re.MULTILINE))
        for way in ("import", "export")
    ]
    number = int(name.removeprefix("Vrf_"))
    return Vrf(number, label, int(vni) if vni else None, tuple(bridges), *targets)


def _bgp(block: str) -> Bgp:
    keepalive, holdtime = _one(r"^ neighbor LEAVES timers (\d+ \d+)$", block).split()
    return Bgp(
        bfd=" neighbor LEAVES bfd\n" in block,
        keepalive=int(keepalive),
        holdtime=int(holdtime),
        password=_maybe(r"^ neighbor LEAVES password (.*)$", block),
    )


def _uplinks(sections: Mapping[str, _Section], files: Files) -> Iterable[Uplink]:
    """Yield the uplinks. Sessions and NICs stand in the same order."""
    neighbors: dict[str, dict[str, str]] = {}
    for line in files[_FRR].splitlines():
        match = _NEIGHBOR.fullmatch(line)
        if match and match[1] != "LEAVES":
            neighbors.setdefault(match[1], {})[match[2].split()[0]] = match[3]
    others = {"lo", *(name for name in sections if re.match(r"vxlan\d|l3vx-", name))}
    nics = [n for n in sections if not (n in others or _BRIDGE.fullmatch(n) or _VRF.fullmatch(n))]
    for nic, (neighbor, lines) in zip(nics, neighbors.items(), strict=True):
        drop_in = files.get(_DROP_IN.format(nic), "").splitlines()
        section = _Section("", "", [*sections[nic].lines, *drop_in])
        mtu = section.first("mtu")
        yield Uplink(
            ifname=nic,
            label=lines["description"],
            remote_as=lines["remote-as"],
            mtu=int(mtu) if mtu else None,
            address=section.first("address"),
            peer=None if "interface" in lines else neighbor,
        )


def _management(
    sections: Mapping[str, _Section], uplinks: tuple[Uplink, ...], frr: str
) -> Management | None:
    vni = _maybe(r"^  vni (\d+)\n   advertise-svi-ip$", frr)
    if vni is None:
        return None
    # netplan waits for this NIC alone; ifupdown2's file does not say which one it is.
    nic = next((each.ifname for each in uplinks if sections[each.ifname].inline == "{}"), "")
    return Management(nic, f"nbr-{vni}", "", "", None, None)
