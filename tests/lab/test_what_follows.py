"""An operator's routes and addresses that belong to the management address move with it.

Routes by a next hop of its subnet and policy routing by its source work in both modes. On the way
back everything is as he had it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lab.fabric import Host, Lab, Node, eventually
from tests.lab.advertising import ADVERTISE
from tests.lab.k8s01 import OPERATORS_COMMANDS, bring_up, payload
from tests.lab.systems import SYSTEMS

HOOK = "evpn-host-failover"
BEHIND, PORTS = "198.51.100.1", ("ns-leaf-0", "ns-leaf-1")
NETPLAN, IFUPDOWN = "/etc/netplan/50-operator.yaml", "/etc/network/interfaces"
# A route by the management gateway with attributes, and one by another server's address. The table
# of a policy, as clouds and MAAS write it.
ROUTES = {
    "netplan": (
        NETPLAN,
        "          via: 10.12.0.1\n",
        """\
        - {to: 198.51.100.0/24, via: 10.12.0.1, metric: 77, mtu: 1400, from: 10.12.0.101}
        - {to: 203.0.113.0/24, via: 10.12.0.5, on-link: true}
        - {to: 10.12.0.0/16, scope: link, table: 101}
        - {to: default, via: 10.12.0.1, table: 101}
      routing-policy:
        - {from: 10.12.0.101, table: 101}
""",
    ),
    "ifupdown": (
        IFUPDOWN,
        "    gateway 10.12.0.1\n",
        """\
    up ip route replace 198.51.100.0/24 via 10.12.0.1 dev ens4 metric 77 mtu 1400 src 10.12.0.101
    up ip route replace 203.0.113.0/24 via 10.12.0.5 dev ens4 onlink
    up ip route replace 10.12.0.0/16 dev ens4 table 101
    up ip route replace default via 10.12.0.1 dev ens4 table 101
    up ip rule show | grep -q 'lookup 101' || ip rule add from 10.12.0.101 table 101
""",
    ),
}


class Server:
    """A server whose operator has more than an address on the NIC."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.host, self.fabric = lab, lab.host, lab.fabric

    def configure(self, path: str, after: str, more: str) -> None:
        """Give the operator's file more lines, and activate them."""
        text = self.lab.machine.read(path)
        if more not in text:
            assert after in text
            self.lab.machine.write(path, text.replace(after, after + more, 1), 0o600)
        self.host.run(OPERATORS_COMMANDS[self.lab.backend][0], timeout=120)

    def routes(self, device: str) -> list[str]:
        """Return the operator's routes on a device, in all tables, without the default route."""
        shown = self.host.run(["ip", "-4", "route", "show", "table", "all", "dev", device]).out
        lines = [" ".join(line.removesuffix(" linkdown").split()) for line in shown.splitlines()]
        others = ("table local", "proto kernel", "proto bgp", "proto zebra", "nexthop")
        return sorted(
            line
            for line in lines
            if not any(word in line for word in others)
            if not line.startswith("default") or "table" in line
        )

    def on(self, device: str) -> bool:
        """Return whether the management address is on a device, and on no other."""
        shown = self.host.run("ip -4 -o address".split()).out.splitlines()
        return [line.split()[1] for line in shown if " 10.12.0.101/" in line] == [device]

    def joins(self) -> None:
        """Apply, and wait until the address is on the bridge."""
        bring_up(self.lab)
        self.gateways()
        eventually(lambda: self.on("nbr-14"))

    def gateways(self) -> None:
        """Give the gateway of the management V-Net the address behind it."""
        for leaf in self.fabric.leaves.values():
            leaf.run(f"ip address replace {BEHIND}/32 dev br-14".split())

    def leaves_the_fabric(self) -> None:
        for leaf in PORTS:
            self.fabric.leaf(leaf).underlay(on=False)
        self.gateways()
        eventually(lambda: self.on("ens4"))


@pytest.fixture(params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Callable[..., Lab]) -> Lab:
    """A host to which nothing was applied yet."""
    lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    return lab


@pytest.fixture
def server(lab: Lab) -> Server:
    return Server(lab)


def test_routes_and_policy_routing(server: Server) -> None:
    """Routes and rules move and come back word for word, also after his tools or a crash."""
    host, controller = server.host, server.fabric.controller
    server.configure(*ROUTES[server.lab.backend])
    server.gateways()
    eventually(lambda: host.ping(BEHIND, count=1) and controller.ping("10.12.0.101", count=1))
    host.apply(payload())
    before = eventually_routes(server)

    def works() -> bool:
        return bool(host.ping(BEHIND, count=1) and controller.ping("10.12.0.101", count=1))

    server.joins()
    eventually(works)
    eventually(lambda: server.routes("ens4") == [])
    assert server.routes("nbr-14") == before
    for command in OPERATORS_COMMANDS[server.lab.backend]:
        host.run(command, timeout=120)
        eventually(lambda: server.routes("ens4") == [] and server.routes("nbr-14") == before)
    host.run(["systemctl", "kill", "--signal=KILL", HOOK])
    eventually(works)

    host.run("ip route add 192.0.2.128/25 via 10.12.0.5".split())  # by hand, on the bridge
    server.leaves_the_fabric()
    eventually(works)
    by_hand = "192.0.2.128/25 via 10.12.0.5"
    eventually(lambda: server.routes("ens4") == sorted([*before, by_hand]))
    host.run("ip route delete 192.0.2.128/25".split())
    time.sleep(12)  # the hook has looked once more: what he deletes on the NIC stays deleted
    assert server.routes("ens4") == before

    server.lab.reboot(hard=True)
    server.gateways()
    server.joins()
    eventually(works)
    eventually(lambda: server.routes("ens4") == [] and server.routes("nbr-14") == before)
    host.evpn_host("uninstall", "--yes")
    eventually(lambda: server.on("ens4") and server.routes("ens4") == before)


VIP = {
    "netplan": (
        NETPLAN,
        "10.254.254.10/24]\n",
        '10.254.254.10/24, {10.12.0.50/16: {lifetime: 0, label: "ens4:vip"}}]\n',
    ),
    "ifupdown": (
        IFUPDOWN,
        "    address 10.12.0.101/16\n",
        "    address 10.12.0.101/16\n    address 10.12.0.50/16\n",
    ),
}


@pytest.mark.claim(
    "14.11", "An address of the management subnet that the operator's file sets moves along"
)
def test_a_further_address_of_the_operators_file(server: Server) -> None:
    """An address of the file moves too and keeps label and lifetime; one set by hand stays."""
    host, controller, lab = server.host, server.fabric.controller, server.lab
    path, old, new = VIP[lab.backend]
    text = lab.machine.read(path)
    assert old in text
    lab.machine.write(path, text.replace(old, new, 1), 0o600)
    host.run(OPERATORS_COMMANDS[lab.backend][0], timeout=120)

    def shown(device: str) -> list[str]:
        lines = host.run(["ip", "-4", "-o", "address", "show", "dev", device]).out.splitlines()
        return sorted(" ".join(line.split()[1:]) for line in lines)

    def works() -> bool:
        return all(controller.ping(each, count=1) for each in ("10.12.0.101", "10.12.0.50"))

    def moved() -> bool:
        on = [device for device in ("ens4", "nbr-14") if "10.12.0.50/" in str(shown(device))]
        return on == ["nbr-14"]

    eventually(works)
    first = shown("ens4")  # FRR's start adds an address of ours until uninstall
    output = host.apply(payload()).err
    assert "10.12.0.50" not in output, output
    before = shown("ens4")
    server.joins()
    eventually(lambda: moved() and works())
    assert "10.12.0.50" not in host.evpn_host("status", check=False).out
    for command in OPERATORS_COMMANDS[lab.backend]:
        host.run(command, timeout=120)
        eventually(lambda: moved() and server.on("nbr-14") and works())
    host.run(["systemctl", "kill", "--signal=KILL", HOOK])
    host.run("ip address add 10.12.0.60/32 dev ens4".split())  # as keepalived does
    server.leaves_the_fabric()
    eventually(works)
    by_hand = [line for line in shown("ens4") if "10.12.0.60" in line]
    assert by_hand
    host.run("ip address delete 10.12.0.60/32 dev ens4".split())
    eventually(lambda: shown("ens4") == before)

    lab.reboot(hard=True)
    server.joins()
    eventually(lambda: moved() and works())
    host.evpn_host("uninstall", "--yes")
    eventually(lambda: server.on("ens4") and shown("ens4") == first)


STAYS = ("10.12.0.50/16", "the routing rule 1234 names ens4")


def test_what_stays_is_named(server: Server) -> None:
    """apply and status name an address that no file sets, and a rule for the NIC.

    The first apply ends what router advertisements give, and says so.
    """
    host = server.host
    leaf = server.fabric.leaf("ns-leaf-0")
    leaf.run(["sysctl", "-qw", "net.ipv6.conf.br-14.addr_gen_mode=0"])
    for words in ("set br-14 down", "set br-14 up"):
        leaf.run(["ip", "link", *words.split()])
    leaf.run("ip address add 2001:db8:12::1/64 dev br-14 nodad".split())
    prefix = "ipv6 nd prefix 2001:db8:12::/64"
    leaf.configure("interface br-14", "no ipv6 nd suppress-ra", "ipv6 nd ra-interval 3", prefix)
    host.run("ip address add 10.12.0.50/16 dev ens4".split())
    host.run("ip rule add iif ens4 lookup 77 priority 1234".split())
    eventually(lambda: "proto ra" in host.run("ip -6 route show default dev ens4".split()).out)
    output = host.apply(payload()).err
    assert all(text in output for text in (*STAYS, "from router advertisements")), output
    server.joins()
    status = host.evpn_host("status", check=False).out
    assert all(text in status for text in STAYS), status
    assert "10.12.0.50/16" in host.run("ip address show dev ens4".split()).out


def eventually_routes(server: Server) -> list[str]:
    """Wait until all of the operator's routes are on the NIC; return them."""
    eventually(lambda: len(server.routes("ens4")) == 4)
    return server.routes("ens4")


def has_router(host: Host, nic: str) -> bool:
    """Whether a NIC has an IPv6 default route from router advertisements."""
    routes = host.run("ip -6 -oneline route show default proto ra".split()).out
    return f"dev {nic} " in routes


ACCEPT = "/etc/sysctl.d/10-operator.conf"


@pytest.mark.claim("14.12", "Router advertisements: an uplink forgets the leaf's, other NICs go on")
def test_router_advertisements(server: Server) -> None:
    """Both had taken one before the first apply. Where ens6's IPv6 would end, it is refused."""
    host, office = server.host, Node(server.lab.machine, "office")
    networkd = server.lab.backend == "netplan"  # it reads advertisements, and the kernel does not

    def goes_on() -> bool:
        """Whether ens6 takes advertisements: from the second time on it has had one."""
        shown = host.run("ip -6 address show dev ens6".split()).out
        if has_router(host, "ens6") and "fd00:bad:" in shown:
            return True
        office.run(["python3", "-c", ADVERTISE])
        return False

    server.fabric.leaf("ns-leaf-1").underlay(on=True)
    eventually(lambda: has_router(host, "ens5"))
    eventually(goes_on, every=3)
    if not networkd:
        refused = host.apply(payload(), check=False)
        assert refused.code == 1
        assert "net/ipv6/conf/ens6/accept_ra = 2" in refused.err
        assert has_router(host, "ens5")
        server.lab.machine.write(ACCEPT, "net/ipv6/conf/ens6/accept_ra = 2\n")
        host.run(["sysctl", "--quiet", "--load", ACCEPT])
    host.apply(payload())
    assert not has_router(host, "ens5")
    eventually(goes_on, every=3)
    server.lab.reboot(hard=True)
    eventually(goes_on, every=3)
    server.joins()
    assert not has_router(host, "ens5")
    eventually(goes_on, every=3)
