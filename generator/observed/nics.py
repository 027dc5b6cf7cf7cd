"""Compares the loopback and the uplinks with our files.

All other settings of a NIC belong to the operator, and are not compared.
"""

from collections.abc import Iterator
from ipaddress import ip_address

from generator.desired.model import Management
from generator.desired.target import Nic, Target
from generator.observed import netlink
from generator.observed.devices import Difference, Kernel, missing_address
from generator.observed.management import HOOK

_LINK_LOCAL = b"\xfe\x80" + bytes(6)  # fe80::/64


def differences(target: Target, kernel: Kernel) -> list[Difference]:
    """Return the differences between these devices and our files."""
    listed: list[Difference] = []
    for nic in target.nics:
        link = kernel.links.get(nic.name)
        if link is None:
            listed.append(Difference(nic.name, "is not there", lasting=True))
            continue
        listed += _settings(nic, link)
        if master := _master(kernel, link):
            # Somebody has put it there, and his bridge is not ours to change.
            listed.append(Difference(nic.name, f"is a port of {master}", lasting=True))
        absent = sorted(set(nic.addresses) - kernel.addresses_of(nic.name))
        listed += [missing_address(nic.name, address) for address in absent]
        if nic.peers:
            listed += _link_local(nic.name, link)
            present = {(address, peer) for _, address, peer in netlink.peers(link.index)}
            missing = [pair for pair in nic.peers if pair not in present]
            listed += [_missing_peer(nic.name, *pair) for pair in missing]
    return listed


def _master(kernel: Kernel, link: netlink.Link) -> str:
    return next((each.name for each in kernel.links.values() if each.index == link.master), "")


def _settings(nic: Nic, link: netlink.Link) -> Iterator[Difference]:
    to = f"link set dev {nic.name}"
    if not link.up:
        yield Difference(nic.name, "up is off, not on", f"{to} up")
    if nic.mtu and link.mtu != nic.mtu:
        text = f"mtu is {link.mtu}, not {nic.mtu}"
        yield Difference(nic.name, text, f"{to} mtu {nic.mtu}", "mtu")


def _link_local(nic: str, link: netlink.Link) -> Iterator[Difference]:
    """Yield a difference if an uplink lacks the address that sessions and next hops use."""
    if not (link.up and link.carrier) or netlink.has_link_local(link.index):
        return
    raw = bytes.fromhex(link.mac.replace(":", ""))
    line = ""
    if len(raw) == 6:  # as the kernel derives it from the MAC (RFC 4291, appendix A)
        interface = bytes([raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]])
        line = f"address add {ip_address(_LINK_LOCAL + interface)}/64 dev {nic}"
    yield Difference(nic, "has no IPv6 link-local address", line)


def _missing_peer(nic: str, address: str, peer: str) -> Difference:
    # As in templates/frr/etc/frr/daemons.j2: a label has at most 15 characters.
    label = f"label {nic}:v " if len(nic) <= 13 else ""
    line = f"address add {address} peer {peer}/32 dev {nic} {label}noprefixroute"
    return Difference(nic, f"has no address {address} peer {peer}", line)


def misplaced(management: Management | None, kernel: Kernel, *, hook_runs: bool) -> list[str]:
    """Return the management addresses that are on no device, or on more than one."""
    texts = []
    for address, _ in management.pairs if management else ():
        on = sorted(name for name in kernel.links if address in kernel.addresses_of(name))
        if len(on) != 1:
            why = "" if hook_runs else f", and {HOOK} does not run"
            where = " and ".join(on) or "no device"
            texts.append(f"management address {address}: is on {where}{why}")
    return texts
