"""What a V-Net's gateways advertise to guests: its form, its rules, a host's settings for it."""

from collections.abc import Iterable
from typing import Literal

from msgspec import UNSET, UnsetType
from netaddr import IPNetwork

from generator.desired.model import Advertisements
from generator.desired.payload.element import Element
from generator.desired.payload.values import (
    Address6,
    AdvertisementInterval,
    Lifetime,
    RouterLifetime,
)
from generator.errors import Problem

# The defaults of a router by RFC 4861, section 6.2.1. FRR has the same.
_INTERVAL, _VALID, _PREFERRED = 600, 2592000, 604800
_INFINITE = 0xFFFFFFFF
_SERVERS = 3  # DNS servers that Linux uses at most (RFC 8106, section 5.3.1)


class AdvertisedPrefixes(Element, frozen=True, kw_only=True):
    """What the gateways advertise about the prefixes of a V-Net's IPv6 gateways.

    preferredLifetime: The seconds for which an address of the prefix is preferred, 4294967295 for
        ever. It is not more than `validLifetime`.
    validLifetime: The seconds for which an address of the prefix is valid, 4294967295 for ever.
    autoconfig: Whether guests give themselves an address of the prefix. They do so if its length is
        64.
    """

    preferred_lifetime: Lifetime | UnsetType = UNSET
    valid_lifetime: Lifetime = _VALID
    autoconfig: bool = True

    @property
    def preferred(self) -> int:
        """The preferred lifetime; by default RFC 4861's, or the valid one if that is shorter."""
        if self.preferred_lifetime is UNSET:
            return min(_PREFERRED, self.valid_lifetime)
        return self.preferred_lifetime


class Rdnss(Element, frozen=True, kw_only=True):
    """The DNS servers that the gateways advertise (RFC 8106).

    servers: The addresses of one to three DNS servers.
    lifetime: The seconds for which guests use the servers, 4294967295 for ever. Without it three
        times `interval`.
    """

    servers: list[Address6]
    lifetime: Lifetime | UnsetType = UNSET


class Ipv6NeighborDiscovery(Element, frozen=True, kw_only=True):
    """What a V-Net's gateways advertise to guests (RFC 4861).

    mode: `enabled`: the gateways send router advertisements. The V-Net needs an IPv6 gateway.
    routerLifetime: The seconds for which guests use the gateway as their default router: 0 for
        never, or at least `interval`. Without it three times `interval`.
    interval: The most seconds between two advertisements.
    managed: Whether guests are told to ask DHCPv6 for addresses.
    other: Whether guests are told to ask DHCPv6 for other settings.
    prefix: What the gateways advertise about the prefixes of the IPv6 gateways.
    rdnss: The DNS servers that the gateways advertise. Without it they advertise none.
    """

    mode: Literal["enabled", "disabled"]
    router_lifetime: RouterLifetime | UnsetType = UNSET
    interval: AdvertisementInterval = _INTERVAL
    managed: bool = False
    other: bool = False
    prefix: AdvertisedPrefixes = AdvertisedPrefixes()
    rdnss: Rdnss | UnsetType = UNSET


def check(place: str, discovery: Ipv6NeighborDiscovery, *, routed: bool) -> Iterable[Problem]:
    """Check the rules between fields; `routed`: whether the V-Net has an IPv6 gateway."""
    if discovery.mode == "enabled" and not routed:
        yield Problem(f"{place}.mode", "enabled", "needs an IPv6 gateway of the V-Net")
    lifetime = discovery.router_lifetime
    if lifetime is not UNSET and 0 < lifetime < discovery.interval:
        rule = f"is neither 0 nor at least the interval ({discovery.interval})"
        yield Problem(f"{place}.routerLifetime", str(lifetime), rule)
    prefix = discovery.prefix
    if prefix.preferred > prefix.valid_lifetime:
        rule = f"is more than validLifetime ({prefix.valid_lifetime})"
        yield Problem(f"{place}.prefix.preferredLifetime", str(prefix.preferred), rule)
    if discovery.rdnss is UNSET:
        return
    servers = discovery.rdnss.servers
    if not 1 <= len(servers) <= _SERVERS:
        rule = f"are not 1–{_SERVERS} servers"
        yield Problem(f"{place}.rdnss.servers", str(len(servers)), rule)
    for index, server in enumerate(servers[:_SERVERS]):
        if server in servers[:index]:
            first = f"{place}.rdnss.servers[{servers.index(server)}]"
            yield Problem(f"{place}.rdnss.servers[{index}]", str(server), f"is already {first}")


def derive(
    discovery: Ipv6NeighborDiscovery | UnsetType, prefixes: Iterable[IPNetwork]
) -> Advertisements | None:
    """Return what a bridge with gateways of these IPv6 prefixes advertises, None for nothing."""
    if discovery is UNSET or discovery.mode == "disabled":
        return None
    valid, preferred = discovery.prefix.valid_lifetime, discovery.prefix.preferred
    usual = (valid, preferred) == (_VALID, _PREFERRED)
    lifetime, rdnss = discovery.router_lifetime, discovery.rdnss or None
    return Advertisements(
        interval=None if discovery.interval == _INTERVAL else discovery.interval,
        lifetime=None if lifetime is UNSET else lifetime,
        managed=discovery.managed,
        other=discovery.other,
        prefixes=tuple(str(prefix) for prefix in sorted(prefixes)),
        valid=None if usual else _seconds(valid),
        preferred=None if usual else _seconds(preferred),
        autoconfig=discovery.prefix.autoconfig,
        servers=tuple(str(server) for server in sorted(rdnss.servers)) if rdnss else (),
        servers_lifetime=_seconds(rdnss.lifetime) if rdnss else None,
    )


def _seconds(lifetime: int | UnsetType) -> str | None:
    """Return a lifetime as FRR writes it."""
    if lifetime is UNSET:
        return None
    return "infinite" if lifetime == _INFINITE else str(lifetime)
