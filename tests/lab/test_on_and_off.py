"""The Debian package on a machine: install by the one-liner, reboots, upgrades, and the purge.

The package and the distribution's own libraries come from an apt repository in the machine. The
lab's own way to run the product is removed first. In the order of the file the tests tell a story.
Each test first brings the server to the state with which it begins, if the previous test did not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from generator import __version__
from lab.channel import Process
from lab.fabric import Lab, Node, eventually
from lab.result import Result
from tests.debs import FORGET, NEXT, REPOSITORY, debs
from tests.lab.k8s01 import (
    bare_metal,
    established,
    guest,
    payload,
    underlay,
    unit_state,
    vnet,
)
from tests.lab.systems import SYSTEMS

REPO = Path(__file__).parents[2]
CONTROLLER = "10.12.0.5"
FOLDER = "/root/payloads"
SCRIPT = "/opt/repo/packaging/install.sh"
ADDED = vnet(90, 33, "10.188.9.254/24")
ONE_LINER = [
    *["--controller", f"https://{CONTROLLER}:8443/{{host}}.json", "--host", "K8S01", "--yes"],
    *["--ca-file", "/root/ca.pem"],
]
# Prints the state of a machine that must be the same before the installation and after the purge:
# files of /etc, devices, addresses, routes, rules, enabled units, packages. It leaves out apt's own
# files and values that change by themselves.
PICTURE = r"""
find /etc -type f -not -path '/etc/apt/*' -not -name ld.so.cache | sort | xargs md5sum
ls -d /etc/evpn-host /var/lib/evpn-host /usr/share/evpn-host 2>/dev/null
ip -brief link | awk '{print $1, $2}' | sort
ip -oneline address | sed 's/ valid_lft.*//; s/^[0-9]*: //' | sort
for family in -4 -6; do
    ip $family route show table all | sed 's/ *expires.*//; s/ pref .*//' | sort
done
ip -4 rule; ip -6 rule
systemctl list-unit-files --state=enabled --no-legend | sort
systemctl is-active frr systemd-networkd
dpkg-query --show | sort
"""


class Story:
    """A server, its controller, and traffic between a guest and another server."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.host = lab, lab.host
        self.controller: Process | None = None
        machine = lab.machine
        machine.run(["sh", "-c", FORGET])
        for deb in sorted(debs().glob("*.deb")):
            text = base64.b64encode(deb.read_bytes()).decode()
            machine.run(["sh", "-c", f"base64 -d > /opt/debs/{deb.name}"], input=text)
        machine.run(["sh", "-c", REPOSITORY])
        ca = trustme.CA()
        pem = ca.issue_cert(CONTROLLER).private_key_and_cert_chain_pem.bytes() + ca.cert_pem.bytes()
        machine.write("/root/controller.pem", pem.decode(), 0o600)
        der = ssl.PEM_cert_to_DER_cert(ca.cert_pem.bytes().decode())
        self.fingerprint = hashlib.sha256(der).hexdigest()
        machine.write("/root/ca.pem", ca.cert_pem.bytes().decode())
        machine.write("/root/server-token", "a-token-of-the-lab\n", 0o600)
        machine.write("/root/token", "a-token-of-the-lab\n", 0o600)
        machine.write("/root/bad-token", "another\n", 0o600)
        self.give(payload())
        self.serve()
        self.host.await_dad()
        self.before = self.picture()

    @property
    def installed(self) -> bool:
        """Return whether the package is installed."""
        return self.host.run(["test", "-e", "/usr/bin/evpn-host"], check=False).code == 0

    def picture(self) -> list[str]:
        """Return the lines that PICTURE prints about the server."""
        return self.host.run(["sh", "-c", PICTURE], check=False).out.splitlines()

    def give(self, document: dict[str, Any]) -> None:
        """Let the controller serve a payload, and configure the leaves for it."""
        for link in document["links"]:
            link["mtu"] = 9000  # with the example's 1500 no full-size frame passes the fabric
        self.lab.fabric.carry(document)
        self.host.machine.write(f"{FOLDER}/K8S01.json", json.dumps(document))
        self.host.run(["sync"])

    def news(self) -> int:
        """Let the controller serve the next generation: add the V-Net ADDED, or remove it again."""
        generation = int(self.status()["generation"]) + 1
        more = () if self.has_added() else (ADDED,)
        self.give(payload(*more) | {"generation": generation})
        return generation

    def has_added(self) -> bool:
        """Return whether the server has the bridge of the V-Net ADDED."""
        return "nbr-90" in self.host.run(["ip", "-brief", "link"]).out

    def serve(self) -> None:
        """Start the controller unless it runs: a reboot ends it, and tests stop it."""
        if self.controller and self.controller.running:
            return
        argv = ["python3", "/opt/repo/examples/controller.py", FOLDER, "--listen", CONTROLLER]
        secrets = ["--certificate", "/root/controller.pem", "--token-file", "/root/server-token"]
        self.controller = self.lab.fabric.controller.start([*argv, *secrets])
        eventually(lambda: self.controller and self.controller.output)

    def install(self, *options: str) -> Result:
        """Run the one-liner; the shell reads the script from a pipe, as in the documentation."""
        argv = ["sh", "-c", f'sh -s -- "$@" < {SCRIPT}', "-", *options]
        return self.host.run(argv, check=False, timeout=600)

    def ensure_uninstalled(self) -> None:
        """Bring the server to its state before the installation, and start the controller."""
        self.serve()
        if self.installed:
            self.purge()

    def purge(self) -> None:
        """Purge the package; wait until the server is as before and reaches the controller."""
        host = self.host
        host.run(["sh", "-c", "ip link delete veth-pod; ip netns delete pod"], check=False)
        host.run(["rm", "-rf", "/run/systemd/system/evpn-host.timer.d"])
        underlay(self.lab.fabric, on=False)
        self.apt("purge", "--auto-remove", "evpn-host")

        def same() -> bool:
            now = self.picture()
            missing = [f"- {line}" for line in self.before if line not in now]
            difference = missing + [f"+ {line}" for line in now if line not in self.before]
            assert difference == []
            return True

        eventually(same)
        eventually(lambda: host.ping(CONTROLLER, count=1))

    def ensure_installed(self) -> None:
        """Install the package by the one-liner unless it is installed; start the controller."""
        self.serve()
        if not self.installed:
            result = self.install(*ONE_LINER, "--token-file", "/root/token")
            assert result.code == 0, result

    def ensure_forwarding(self) -> None:
        """Make the server a VTEP with both switch ports in the underlay."""
        self.ensure_installed()
        underlay(self.lab.fabric, on=True)
        eventually(lambda: established(self.host) == {"ens4", "ens5"})

    def apt(self, *arguments: str) -> Result:
        """Run apt-get without questions."""
        argv = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--quiet=2"]
        return self.host.run([*argv, *arguments], timeout=600)

    def traffic(self) -> tuple[Node, Node]:
        """Return a guest and a server behind another leaf that reach each other."""
        gpu = bare_metal(self.lab.fabric, "gpu", 26, "10.188.0.254", 20)
        pod = guest(self.host, "pod", 26, "10.188.0.254", 10)
        eventually(lambda: pod.ping(gpu, count=1))
        return pod, gpu

    def status(self) -> dict[str, Any]:
        """Return the output of `status --json`."""
        report: dict[str, Any] = self.host.evpn_host("status", "--json", check=False).json
        return report

    def places(self) -> list[str]:
        """Return the devices that have the management address."""
        lines = self.host.run(["ip", "-4", "-oneline", "address"]).out.splitlines()
        return [line.split()[1] for line in lines if " 10.12.0.101/" in line]


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def story(request: pytest.FixtureRequest, fresh_lab: Callable[..., Lab]) -> Story:
    """A fabric with a server on which the product was never installed."""
    debs()
    return Story(fresh_lab(*request.param))


def test_nothing_stays_of_an_installation_that_fails(story: Story) -> None:
    """Nothing stays when the controller refuses the token, or no terminal can be asked."""
    story.ensure_uninstalled()
    result = story.install(*ONE_LINER, "--token-file", "/root/bad-token")
    assert result.code == 1, result
    assert "401" in result.err
    assert story.picture() == story.before
    without_yes = [word for word in ONE_LINER if word != "--yes"]
    assert story.install(*without_yes, "--token-file", "/root/token").code == 2
    assert story.picture() == story.before


def test_the_one_liner(story: Story) -> None:
    """The one-liner shows the diff, applies, and enables the units for boot and timer.

    The first run gets the fingerprint of the CA, which the controller shows; the second run gets
    the CA's file.
    """
    story.ensure_uninstalled()
    options = [word for word in ONE_LINER if word not in {"--ca-file", "/root/ca.pem"}]
    options += ["--ca-fingerprint", story.fingerprint]
    first = story.install(*options, "--token-file", "/root/token")
    assert first.code == 0, first
    assert "+++ " in first.out
    assert "a-token-of-the-lab" not in first.out + first.err
    assert story.host.run(["which", "evpn-host"]).out == "/usr/bin/evpn-host\n"
    assert unit_state(story.host, "evpn-host.timer") == "active"
    assert unit_state(story.host, "evpn-host-failover.service") == "active"
    assert story.status()["differences"] == []
    again = story.install(*ONE_LINER, "--token-file", "/root/token")
    assert again.code == 0, again
    assert "+++ " not in again.out


def test_a_reboot_and_the_underlay(story: Story) -> None:
    """The server boots as a VTEP; once the switch ports are in the underlay, traffic flows."""
    story.ensure_installed()
    underlay(story.lab.fabric, on=False)
    story.lab.reboot()
    story.ensure_forwarding()
    story.traffic()
    eventually(lambda: story.places() == ["nbr-14"])


def test_the_timer_brings_news(story: Story) -> None:
    """The timer applies a payload that changed on the controller, without a person."""
    story.ensure_installed()
    quick = "[Timer]\nOnUnitInactiveSec=\nOnUnitInactiveSec=3\nRandomizedDelaySec=1\n"
    story.host.machine.write("/run/systemd/system/evpn-host.timer.d/quick.conf", quick)
    story.host.run(["systemctl", "daemon-reload"])
    story.host.run(["systemctl", "restart", "evpn-host.timer"])
    added_before = story.has_added()
    generation = story.news()
    eventually(lambda: story.status()["generation"] == generation, within=240)
    eventually(lambda: story.status()["differences"] == [])
    assert story.has_added() != added_before


def test_a_boot_without_the_controller(story: Story) -> None:
    """The power fails while the controller is down: the server boots and forwards nevertheless."""
    story.ensure_forwarding()
    if not story.has_added():
        generation = story.news()
        eventually(lambda: story.host.evpn_host("apply", check=False).code == 0)
        assert story.status()["generation"] == generation
    assert story.controller
    story.controller.stop()
    story.lab.reboot(hard=True)
    eventually(lambda: established(story.host) == {"ens4", "ens5"})
    story.traffic()
    assert story.has_added()


def test_upgrade_and_downgrade_lose_no_packet(story: Story) -> None:
    """apt installs the next version and then this one again, while a guest sends packets."""
    story.ensure_forwarding()
    host = story.host
    install_this = ["install", "--allow-downgrades", f"evpn-host={__version__}"]
    story.apt(*install_this)  # the one-liner installs the newest version in the repository
    assert host.evpn_host("--version").out == f"evpn-host, version {__version__}\n"
    eventually(lambda: host.evpn_host("apply", check=False).code == 0)
    pod, gpu = story.traffic()
    eventually(lambda: story.places() == ["nbr-14"])
    moves = story.status()["management"]["moves"]
    with pod.pinging(gpu, interval=0.05) as running:
        result = story.install("--yes")
        assert result.code == 0, result
        new_version = host.evpn_host("--version").out
        eventually(lambda: unit_state(host, "evpn-host-failover.service") == "active")
        story.apt(*install_this)
        host.evpn_host("apply")
    assert new_version == f"evpn-host, version {NEXT}\n"
    assert running.result, running.result
    assert story.places() == ["nbr-14"]
    assert story.status()["management"]["moves"] == moves
    assert story.status()["differences"] == []


def test_purge_leaves_what_was_before(story: Story) -> None:
    """The purge leaves files, devices, addresses, routes, rules, units and packages as before."""
    story.ensure_forwarding()
    eventually(lambda: story.places() == ["nbr-14"])
    story.purge()
