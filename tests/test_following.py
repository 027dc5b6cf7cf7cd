"""Routes that belong to the management address, and those that can't move and are named."""

from pathlib import Path

import msgspec
import pytest

from generator.desired.model import Management
from generator.observed import companions, following
from generator.observed.management import Device, Observation
from generator.observed.routing import MAIN, Default
from generator.state.placement import Route

NIC, BRIDGE = "ens4", "nbr-14"
MANAGEMENT = Management(NIC, BRIDGE, "10.12.0.101/16", "10.12.0.1", "fd12::101/64", "fd12::1")
ADDRESSES = {NIC: dict.fromkeys(["10.12.0.101/16", "10.12.9.1/24", "192.0.2.5/24"], "")}
SOURCES = {101: ["10.12.0.0/24"], 102: ["192.0.2.5/32"]}


def route(prefix: str, gateway: str = "", **fields: object) -> Route:
    """Return a route on the NIC."""
    family = 10 if ":" in prefix else 2
    known = Route(family, MAIN, prefix, 0, 0, gateway, NIC, "proto 4")
    return msgspec.structs.replace(known, **fields)


def observation(*routes: Route, **fields: object) -> Observation:
    known = Observation({}, ADDRESSES, [], list(routes), SOURCES)
    return msgspec.structs.replace(known, **fields)


@pytest.mark.parametrize(
    ("one", "belongs"),
    [
        (route("198.51.100.0/24", "10.12.0.5"), True),
        (route("default", "10.12.0.5", metric=7), True),
        (route("default", "10.12.0.1"), False),  # the hook handles it apart
        (route("default", "10.12.0.1", table=500), True),
        (route("2001:db8::/32", "fd12::9"), True),
        (route("2001:db8::/32", "fe80::9"), False),
        (route("198.51.100.0/24", "192.0.2.1"), False),
        (route("198.51.100.0/24", "10.12.9.2"), False),  # of the smaller subnet, which stays
        (route("198.51.100.0/24", "192.0.2.1", text="proto 4 src 10.12.0.101"), True),
        (route("10.12.0.0/16", table=101), True),
        (route("default", table=101), True),
        (route("192.0.2.0/24", table=101), False),
        (route("10.12.0.0/16", table=102), False),
        (route("198.51.100.0/24"), False),
        (route("198.51.100.0/24", "10.12.0.5", device="ens6"), False),
    ],
    ids=str,
)
def test_routes_that_belong_to_the_address_follow_it(one: Route, belongs: bool) -> None:
    """A route by its next hop or its source; one on the link by the rule for its table."""
    routes = following.following(MANAGEMENT, observation(one), {NIC})
    assert (one in routes) == belongs


def test_routes_that_can_not_move_are_named() -> None:
    """Each finding says what can't move, why that matters, and what to do."""
    several = route("198.51.100.0/24", "10.12.0.5", obstacle="several next hops")
    observed = observation(
        several, rules=[(1234, (NIC,)), (1235, (NIC, BRIDGE)), (1236, ("eth9",))]
    )
    texts = list(map(str, following.staying(MANAGEMENT, observed)))
    why = "it stays on ens4 when the management address moves to nbr-14"
    assert texts == [
        (
            "the route 198.51.100.0/24 via 10.12.0.5 dev ens4 has several next hops:"
            f" {why} (write it with one next hop)"
        ),
        (
            "the routing rule 1234 names ens4: it does not apply while the management address is on"
            " nbr-14 (have the rule name the management address instead of the NIC)"
        ),
        (
            f"ens4 has 10.12.9.1/24, another address of the management subnet: {why}"
            " (set it in your own file, unless a daemon manages it; or use a V-Net for it)"
        ),
    ]
    assert list(following.staying(MANAGEMENT, Observation({}, {}, []))) == []


def test_router_advertisements_of_an_uplink_are_named() -> None:
    """Router advertisements of an uplink are named; those of other NICs are not."""
    defaults = [Default(10, "fe80::1", name, 1024, "proto 9") for name in ("ens4", "ens6")]
    defaults.append(Default(10, "fd12::1", "ens5", 1024, "proto 4"))
    routes = following.advertised_defaults({"ens4", "ens5"}, Observation({}, {}, defaults))
    assert [each.what.split()[0] for each in routes] == ["ens4"]


NETWORK = """
[Match]
Name=ens4
[Network]
Address=10.12.0.101/16
[Address]
Address = 10.12.0.50/16
Label=ens4:vip
"""


def test_addresses_that_files_set_go_along(tmp_path: Path) -> None:
    """In the file that networkd takes for the NIC, and in ifupdown2's stanzas. Others stay."""
    on_nic = ["10.12.0.101/16", *(f"10.12.0.{n}/16" for n in (50, 51, 52, 60)), "192.0.2.5/24"]
    observed = Observation(
        {NIC: Device(2, up=True, ipv6=True)}, {NIC: dict.fromkeys(on_nic, "")}, []
    )
    assert companions.observe(tmp_path, MANAGEMENT, observed, ()).companions == []
    files = {
        "run/systemd/netif/links/2": "NETWORK_FILE=/run/systemd/network/10-netplan-ens4.network\n",
        "run/systemd/network/10-netplan-ens4.network": NETWORK,
        "etc/systemd/network/10-netplan-ens4.network.d/vip.conf": (
            "[Network]\nAddress=10.12.0.51/16\n"
        ),
        "etc/network/interfaces": "iface ens4 inet static\n  address 10.12.0.52\n  netmask 16\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    routes = companions.observe(tmp_path, MANAGEMENT, observed, ["10.12.0.70/16", "10.13.0.1/16"])
    assert set(routes.companions) == {*(f"10.12.0.{n}/16" for n in (50, 51, 52)), "10.12.0.70/16"}
    named = [each.what for each in following.staying(MANAGEMENT, routes)]
    assert named == ["ens4 has 10.12.0.60/16, another address of the management subnet"]
