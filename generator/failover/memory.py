"""What the operator has on the NIC, remembered for the day on which the address comes back."""

from collections.abc import Sequence

from generator.desired.model import Management
from generator.desired.target import FormerAddress
from generator.failover import further
from generator.observed.management import Observation
from generator.state.placement import Original


def remember(
    original: Original,
    management: Management,
    observed: Observation,
    former: Sequence[FormerAddress] = (),
    way: further.Way = (None, "nic"),
) -> Original:
    """Return what the operator has on the NIC, by what is observed. Nothing known is forgotten.

    A missing default route is believed only if nothing looks like half of a move, and if no other
    gateway was there before: this one has what that one had. Nor is it believed of an address that
    the hook has put there itself, as when no DHCP server answers.
    """
    nic, addresses, routes = management.ifname, dict(original.addresses), dict(original.routes)
    added = set(original.added)
    for address, gateway in management.pairs:
        holders = [name for name, present in observed.addresses.items() if address in present]
        if not holders and address not in addresses:
            added.add(address)
        if nic in holders:
            addresses[address] = observed.addresses[nic][address]
        if gateway:
            defaults = [d for d in observed.defaults if d.gateway == gateway]
            on_nic = [d.text for d in defaults if d.device == nic]
            succeeds = any(
                f.gateway not in {None, gateway} and (":" in str(f.gateway)) == (":" in gateway)
                for f in former
            )
            rests = holders == [nic] and not defaults and not succeeds and address not in added
            if on_nic or (rests and gateway not in routes):
                routes[gateway] = on_nic
    moving = further.remember(original.further, management, observed, way)
    companions, ahead = _companions(original, management, observed, way)
    return Original(
        addresses=addresses,
        routes=routes,
        further=moving,
        added=sorted(added),
        companions=companions,
        ahead=ahead,
    )


def _companions(
    original: Original, management: Management, observed: Observation, way: further.Way
) -> tuple[dict[str, str], list[str]]:
    """Return the operator's other addresses of the subnet, and those that are primary to ours."""
    on_nic = observed.addresses.get(management.ifname, {})
    found = {a: text for a, text in on_nic.items() if a in observed.companions}
    if way == ("nic", "nic") and further.rests(management, observed):
        own = {address for address, _ in management.pairs}
        order = list(on_nic)
        last = max((order.index(address) for address in own & on_nic.keys()), default=0)
        return found, [a for a in found if ":" not in a and order.index(a) < last]
    known = {a: text for a, text in original.companions.items() if a in observed.companions}
    return known | found, original.ahead
