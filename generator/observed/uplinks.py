"""Compares uplinks with a target: what keeps a session from ever coming up."""

from collections.abc import Iterator

from generator.desired.target import Target
from generator.observed import netlink, networkd


def differences(target: Target) -> Iterator[str]:
    """Yield what of the uplinks is not as it should be."""
    links = netlink.links()
    link_local = netlink.with_link_local()
    for name in target.uplinks or ():
        link = links.get(name)
        if link is None:
            yield f"{name}: is not there"
            continue
        unnumbered = name in target.sessions
        if unnumbered and link.up and link.carrier and link.index not in link_local:
            yield f"{name}: has no IPv6 link-local address, and no session can come up"
        expected = target.network_files.get(name)
        taken = networkd.file_of(link.index)
        if expected and taken and taken != expected:
            yield f"{name}: networkd has taken {taken}; our part of it is in {expected}.d"
