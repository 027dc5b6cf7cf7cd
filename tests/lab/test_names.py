"""Names resolve wherever the management address is: the DNS servers of its link follow it.

systemd-resolved asks a link's servers by that link alone. The operator has servers on ens4: in
netplan's file, or by resolvectl in a unit of his own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.channel import Process
from lab.fabric import Lab, eventually
from tests.lab.k8s01 import OPERATORS_COMMANDS, payload
from tests.lab.systems import SYSTEMS
from tests.lab.test_what_follows import HOOK, NETPLAN, Server

# It knows host.site.example alone, and says of all other names that they don't exist.
RESPONDER = """
import socket
socket_ = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
socket_.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    query, client = socket_.recvfrom(2000)
    end = query.index(0, 12) + 5
    known = query[12:end - 4].lower() == b"\\4host\\4site\\7example\\0"
    answers = known and query[end - 4:end - 2] == b"\\0\\1"
    header = query[:2] + bytes([0x85, 0x80 if known else 0x83, 0, 1, 0, int(answers), 0, 0, 0, 0])
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4" + socket.inet_aton("203.0.113.77")
    socket_.sendto(header + query[12:end] + (answer if answers else b""), client)
"""
ADDRESSES = "10.254.254.10/24]\n"
SERVERS = "      nameservers: {{addresses: [{}], search: [site.example]}}\n"
UNIT = "/etc/systemd/system/operator-names.service"
SETS = """\
[Unit]
Wants=systemd-resolved.service
After=systemd-resolved.service network.target
[Service]
Type=oneshot
ExecStart=resolvectl dns ens4 {}
ExecStart=resolvectl domain ens4 site.example
[Install]
WantedBy=multi-user.target
"""
ONE, TWO = "10.12.0.5", "10.12.0.5 10.12.0.6"
VERBS = ("dns", "domain", "default-route", "llmnr", "mdns", "dnsovertls", "dnssec", "nta")


class Names(Server):
    """A server whose operator has DNS servers on the NIC's link."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.process: Process | None = None
        self.without = lab.machine.read(NETPLAN) if lab.backend == "netplan" else ""

    def begins(self) -> None:
        self.host.run(["systemctl", "enable", "--now", "systemd-resolved"])
        self.responds()
        self.uses(ONE)

    def responds(self) -> None:
        """Let the controller answer queries."""
        self.process = process = self.fabric.controller.start(["python3", "-c", RESPONDER])
        eventually(lambda: "ready" in process.output)

    def uses(self, servers: str) -> None:
        """Give the operator's link these servers."""
        if self.lab.backend == "netplan":
            more = SERVERS.format(servers.replace(" ", ", "))
            text = self.without.replace(ADDRESSES, ADDRESSES + more, 1)
            self.lab.machine.write(NETPLAN, text, 0o600)
            self.host.run(["netplan", "apply"], timeout=120)
        else:
            self.lab.machine.write(UNIT, SETS.format(servers))
            self.host.run(["systemctl", "daemon-reload"])
            self.host.run(["systemctl", "enable", "operator-names"])
            self.host.run(["systemctl", "restart", "operator-names"])

    def asks(self, name: str) -> str:
        query = ["timeout", "20", "resolvectl", "query", "--cache=no", name]
        result = self.host.run(query, check=False, timeout=60)
        return result.out + result.err

    def works(self) -> bool:
        """Return whether names resolve, and an unknown name is reported as not found."""
        resolves = all("203.0.113.77" in self.asks(name) for name in ("host.site.example", "host"))
        return resolves and "not found" in self.asks("nobody.site.example")

    def link(self, device: str) -> dict[str, str]:
        """Return what resolvectl shows of a link."""
        lines = {verb: self.host.run(["resolvectl", verb, device]).out for verb in VERBS}
        return {verb: line.partition("):")[2].strip() for verb, line in lines.items()}

    def is_asked(self, device: str, servers: str) -> bool:
        """Return whether a link has these servers, and is asked for all names."""
        link = self.link(device)
        return (link["dns"], link["domain"], link["default-route"]) == (
            servers,
            "site.example",
            "yes",
        )

    def is_asked_for_nothing(self, device: str) -> bool:
        link = self.link(device)
        return (link["domain"], link["default-route"]) == ("", "no")


@pytest.fixture(params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Callable[..., Lab]) -> Lab:
    """A host to which nothing was applied yet."""
    lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    return lab


@pytest.fixture
def names(lab: Lab) -> Names:
    names = Names(lab)
    names.begins()
    return names


@pytest.mark.claim(
    "14.9", "DNS works while the management address is on the NIC and on the bridge, there and back"
)
def test_names_are_found_wherever_the_address_is(names: Names) -> None:
    """Names resolve also after restarts of all daemons, after a reboot, and after uninstall."""
    host = names.host
    eventually(names.works)
    host.apply(payload())
    eventually(lambda: names.works() and names.is_asked("ens4", ONE))
    nic, bridge = names.link("ens4"), names.link("nbr-14")

    names.joins()
    eventually(names.works)
    eventually(lambda: names.is_asked("nbr-14", ONE) and names.is_asked_for_nothing("ens4"))
    multicast = {verb: names.link("nbr-14")[verb] for verb in ("llmnr", "mdns")}
    assert multicast == {verb: bridge[verb] for verb in ("llmnr", "mdns")}
    for command in (
        ["systemctl", "restart", "systemd-resolved"],
        ["systemctl", "kill", "--signal=KILL", HOOK],
        *OPERATORS_COMMANDS[names.lab.backend],
    ):
        host.run(command, timeout=120)
        eventually(names.works)
        eventually(lambda: names.is_asked("nbr-14", ONE) and names.is_asked_for_nothing("ens4"))

    names.uses(TWO)  # the operator changes his servers meanwhile
    eventually(lambda: names.is_asked("nbr-14", TWO) and names.is_asked_for_nothing("ens4"))
    names.leaves_the_fabric()
    eventually(names.works)
    eventually(lambda: names.link("ens4") == nic | {"dns": TWO})
    assert names.link("nbr-14") == bridge

    names.lab.reboot(hard=True)
    names.responds()
    names.joins()
    eventually(names.works)
    eventually(lambda: names.is_asked("nbr-14", TWO) and names.is_asked_for_nothing("ens4"))
    host.evpn_host("uninstall", "--yes")
    names.leaves_the_fabric()
    eventually(names.works)
    assert names.link("ens4") == nic | {"dns": TWO}


@pytest.mark.claim(
    "14.10", "If systemd-resolved does not answer, the management address still moves"
)
def test_what_cannot_be_told_holds_no_move_up(names: Names) -> None:
    """`status` names servers that could not be set, and a later look of the hook sets them."""
    host = names.host
    host.run(["systemctl", "stop", "systemd-resolved"])
    names.joins()
    assert "DNS servers" not in host.evpn_host("status", check=False).out
    names.leaves_the_fabric()
    host.run(["systemctl", "start", "systemd-resolved"])
    names.uses(ONE)

    names.lab.machine.write("/usr/local/bin/resolvectl", "#!/bin/sh\nexec sleep 1000\n", 0o755)
    names.joins()
    eventually(lambda: "DNS servers" in host.evpn_host("status", check=False).out)
    assert names.on("nbr-14")
    host.run(["rm", "/usr/local/bin/resolvectl"])
    eventually(lambda: names.is_asked("nbr-14", ONE) and names.works())
    assert "DNS servers" not in host.evpn_host("status", check=False).out
    names.leaves_the_fabric()
    eventually(lambda: names.is_asked("ens4", ONE) and names.works())
