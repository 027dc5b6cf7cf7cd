"""Compares the loopback and the uplinks with what our files say of them.

The rest of a NIC is the operator's, and is not looked at.
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
    """Return what is not as our files say."""
    found: list[Difference] = []
    for nic in target.nics:
        link = kernel.links.get(nic.name)
        if link is None:
            found.append(Difference(nic.name, "is not there", beyond_us=True))
            continue
        found += _settings(nic, link)
        if master := _master(kernel, link):
            # It is somebody's doing: his bridge is not ours to change.
            found.append(Difference(nic.name, f"is a port of {master}", beyond_us=True))
        absent = sorted(set(nic.addresses) - kernel.of(nic.name))
        found += [missing_address(nic.name, address) for address in absent]
        if nic.peers:
            found += _link_local(nic.name, link)
            present = {(address, peer) for _, address, peer in netlink.peers(link.index)}
            missing = [pair for pair in nic.peers if pair not in present]
            found += [_missing_peer(nic.name, *pair) for pair in missing]
    return found


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
    """Yield that an uplink lacks the address of which sessions and next hops are made."""
    if not (link.up and link.carrier) or netlink.has_link_local(link.index):
        return
    raw = bytes.fromhex(link.mac.replace(":", ""))
    line = ""
    if len(raw) == 6:  # as the kernel makes it of the MAC (RFC 4291, appendix A)
        interface = bytes([raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]])
        line = f"address add {ip_address(_LINK_LOCAL + interface)}/64 dev {nic}"
    yield Difference(nic, "has no IPv6 link-local address", line)


def _missing_peer(nic: str, address: str, peer: str) -> Difference:
    # As templates/frr/etc/frr/daemons.j2 does it: a label has 15 characters at most.
    label = f"label {nic}:v " if len(nic) <= 13 else ""
    line = f"address add {address} peer {peer}/32 dev {nic} {label}noprefixroute"
    return Difference(nic, f"has no address {address} peer {peer}", line)


def misplaced(management: Management | None, kernel: Kernel, *, hook_runs: bool) -> list[str]:
    """Return the management addresses that are on no device, or on more than one."""
    found = []
    for address, _ in management.pairs if management else ():
        on = sorted(name for name in kernel.links if address in kernel.of(name))
        if len(on) != 1:
            why = "" if hook_runs else f", and {HOOK} does not run"
            where = " and ".join(on) or "no device"
            found.append(f"management address {address}: is on {where}{why}")
    return found
