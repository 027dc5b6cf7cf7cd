"""What a host should have on disk and in the kernel, and which of its files are ours."""

import hashlib
import re

import msgspec

from generator.desired.model import Device, Host, devices, leaf
from generator.desired.render import render
from generator.desired.target import Sessions, Target, links_of, nics_of, vni_of

# Older versions also wrote the payload's generation into the line.
_SIGNED = re.compile(
    r"[#!] Written by evpn-host(?: from payload generation \d+)?; edits are lost\."
)

# A rule of the packet filter (templates/kernel/etc/nftables.d).
_RULE = re.compile(r"^\t\t[^#\n]* (?:accept|drop|saddr)$", re.MULTILINE)


class Plan(msgspec.Struct, frozen=True):
    """A host's files (path without leading slash to content) and devices, for one backend."""

    host: Host
    generation: int  # of the payload
    backend: str
    files: dict[str, str]
    devices: list[Device]


def make(  # noqa: PLR0913  # what a person has set
    host: Host,
    backend: str,
    local: str = "",
    *,
    guest_bgp: bool = False,
    guest_nat: bool = True,
    generation: int = 0,
) -> Plan:
    """Return the plan of a host; `local` is the text of the operator's frr.conf.local.

    `guest_bgp`: whether guests may reach BGP and BFD of this host. `guest_nat`: whether rules of
    others may translate guests' addresses. The generation is only recorded: no file depends on it.
    """
    files = render(host, backend, local, guest_bgp=guest_bgp, guest_nat=guest_nat)
    return Plan(host, generation, backend, files, list(devices(host)))


def target(plan: Plan) -> Target:
    """Return what can be checked on a host once the plan is applied."""
    host = plan.host
    return Target(
        host=host.name,
        generation=plan.generation,
        backend=plan.backend,
        asn=host.asn,
        files={path: digest(body(text)) for path, text in plan.files.items()},
        devices=plan.devices,
        management=host.management,
        sessions=[uplink.neighbor for uplink in host.uplinks],
        vnis=[vni_of(bridge) for bridge in host.bridges],
        uplinks=[uplink.ifname for uplink in host.uplinks],
        names={bridge.port.vni: bridge.label for bridge in host.bridges if not bridge.l3vni},
        vpcs={vrf.id: vrf.label for vrf in host.vrfs},
        leaves={uplink.neighbor: name for uplink in host.uplinks if (name := leaf(uplink))},
        filter_rules=sum(len(_RULE.findall(text)) for text in plan.files.values()),
        advertised=[bridge.port.vni for bridge in host.bridges if bridge.advertisements],
        network_files={
            uplink.ifname: file.name
            for file in host.network_files
            if any(f"/{file.name}.d/" in path for path in plan.files)
            for uplink in file.uplinks
        },
        nics=nics_of(host),
        numbered=[(each.ifname, each.address) for each in host.uplinks if each.address],
        links=links_of(host),
        bgp=Sessions(host.bgp.bfd, host.bgp.keepalive, host.bgp.holdtime),
        imports={vrf.name: list(vrf.import_targets) for vrf in host.vrfs},
        exports={vrf.name: list(vrf.export_targets) for vrf in host.vrfs},
    )


def mode(path: str) -> int:
    """Return the mode of a file of ours. Not everybody may read one that can hold a secret."""
    if path.startswith("etc/netplan/"):
        return 0o600
    return 0o640 if path.startswith("etc/frr/") else 0o644


def ours(text: str) -> bool:
    """Whether a file's content was written by us."""
    return _SIGNED.match(text) is not None


def body(text: str) -> str:
    """Return a file without our first line, which older versions wrote otherwise."""
    return text.partition("\n")[2] if ours(text) else text


def digest(*parts: str | bytes) -> str:
    """Return the SHA-256 of parts, each with its length: `a, bc` and `ab, c` are not the same."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogateescape") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()
