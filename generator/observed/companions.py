"""Finds further addresses of the management subnet that the operator's own files set on the NIC.

They move with the management address. An address that no file sets is left alone: a daemon such as
keepalived puts it on one host at a time, and later removes it only from the NIC. If the address had
moved to the bridge, it would stay there, and two hosts would have it.
"""

import contextlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path

import msgspec

from generator.desired.model import Management
from generator.observed import interfaces
from generator.observed.following import other_addresses
from generator.observed.management import Observation
from generator.observed.pairs import LINK_STATES, pairs

_DROP_INS = ("etc/systemd/network", "run/systemd/network", "usr/lib/systemd/network")


def observe(
    root: Path, management: Management, observed: Observation, known: Iterable[str]
) -> Observation:
    """Return the observation with these addresses added: `known` ones, and those on the NIC."""
    on_nic = other_addresses(management, observed)
    nic = observed.devices.get(management.ifname)
    in_files = set(_set_by_files(root, management.ifname, nic.index)) if on_nic and nic else set()
    companions = [address for address in on_nic if ip_interface(address).ip in in_files]
    own = [ip_interface(address) for address, _ in management.pairs]
    still_known = (
        address
        for address in known
        if any(ip_interface(address).ip in each.network for each in own)
        if all(ip_interface(address).ip != each.ip for each in own)
    )
    both = list(dict.fromkeys([*still_known, *companions]))
    return msgspec.structs.replace(observed, companions=both)


def _set_by_files(root: Path, nic: str, index: int) -> Iterator[IPv4Address | IPv6Address]:
    """Yield the addresses that files of networkd or ifupdown2 set on the NIC."""
    for value in _of_networkd(root, index):
        yield from _parsed(value)
    for stanza in interfaces.stanzas(root, ""):
        if nic in stanza.names:
            for value in stanza.settings.get("address", ()):
                yield from _parsed(value)


def _of_networkd(root: Path, index: int) -> Iterator[str]:
    """Yield the values of `Address=` in the file that networkd applies to a device."""
    path = dict(pairs(root / LINK_STATES / str(index))).get("NETWORK_FILE", "").lstrip("/")
    if not path:
        return
    name = path.rpartition("/")[2]
    drop_ins = [each for folder in _DROP_INS for each in (root / folder).glob(f"{name}.d/*.conf")]
    for file in (root / path, *drop_ins):
        for key, value in pairs(file):
            if key.strip() == "Address":
                yield value.strip()


def _parsed(text: str) -> Iterator[IPv4Address | IPv6Address]:
    with contextlib.suppress(ValueError):  # a name, or a form that we do not know
        yield ip_interface(text).ip
