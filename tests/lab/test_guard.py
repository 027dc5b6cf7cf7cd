"""An apply that would cut the host off goes back by itself, or is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.fabric import Host, Lab, eventually
from tests.lab import figures
from tests.lab.k8s01 import Payload, bring_up, established, etc_checksums, payload, vnet
from tests.lab.systems import SYSTEMS

CONFIG = "/etc/evpn-host/config.yaml"
LEAF_LLDP = "/run/lldpd-of-leaf.socket"
NEXT_HOP = "ip neighbour show 169.254.0.1 dev ens5".split()
ADDED = vnet(70, 33, "10.188.70.254/24")


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP, whose guard waits for a short time."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    bring_up(lab)
    lab.machine.write(CONFIG, "guard: 15\n")
    return lab


def reachable(lab: Lab) -> bool:
    """Return whether the controller answers the host."""
    return bool(lab.host.ping(lab.fabric.controller, count=1))


def with_remote_asn(document: Payload, *links: int) -> Payload:
    """Return a payload in which the leaf of these links has another AS number than it has."""
    for link in links:
        document["links"][link]["remote"]["asn"] = 4200399999
    return document


@pytest.mark.claim(
    "18.1",
    "A wrong AS number: the previous state returns, and the message names the session",
)
@pytest.mark.parametrize("links", [(0, 1), (1,)], ids=["both", "one"])
def test_goes_back_from_a_wrong_as_number(lab: Lab, links: tuple[int, ...]) -> None:
    """Exit code 3 and the session's name; files, sessions and the management address as before."""
    host = lab.host
    host.apply(payload())
    eventually(lambda: established(host) == {"ens4", "ens5"} and reachable(lab))
    before = etc_checksums(host)
    start = time.monotonic()
    result = host.apply(with_remote_asn(payload(ADDED), *links), check=False)
    took = time.monotonic() - start
    which = "both links" if len(links) > 1 else "one link"
    figures.write(lab, f"wrong AS number on {which}: until the host was back", f"{took:.0f} s")
    assert result.code == 3, result.err
    name = ("ens4", "ens5")[links[0]]
    assert f"guard: session {name} is not Established, but was before" in result.err
    assert etc_checksums(host) == before
    assert established(host) == {"ens4", "ens5"}
    assert reachable(lab)
    assert "nbr-70" not in host.run(["ip", "-brief", "link"]).out
    assert host.apply(payload(ADDED)).code == 0


@pytest.mark.claim("18.2", "A payload that leaves no session is refused")
def test_refuses_to_end_all_sessions(lab: Lab) -> None:
    """apply refuses a payload whose NIC has no session: exit code 1, nothing changed."""
    host = lab.host
    host.apply(payload())
    eventually(lambda: established(host) == {"ens4", "ens5"})
    before = etc_checksums(host)
    document = payload()
    del document["links"][1]
    document["links"][0]["local"]["ifname"] = "ens6"
    document["server"]["mgmt"]["ifname"] = "ens6"
    result = host.apply(document, check=False)
    assert result.code == 1, result.err
    assert "would be left without a session" in result.err
    assert "ens4, ens5" in result.err
    assert etc_checksums(host) == before
    assert established(host) == {"ens4", "ens5"}
    assert reachable(lab)


@pytest.mark.claim("18.3", "A misspelt NIC is refused, with the name that was probably meant")
def test_refuses_a_misspelt_nic(lab: Lab) -> None:
    """The message names the NIC that was probably meant; nothing changed."""
    host = lab.host
    host.apply(payload())
    before = etc_checksums(host)
    document = payload()
    document["links"][0]["local"]["ifname"] = "ens44"
    document["server"]["mgmt"]["ifname"] = "ens44"
    start = time.monotonic()
    result = host.apply(document, check=False)
    figures.write(lab, "misspelt NIC: until it is refused", f"{time.monotonic() - start:.1f} s")
    assert result.code == 1, result.err
    assert "ens44 is not there; ens4 is" in result.err
    assert etc_checksums(host) == before
    host.machine.write("/root/misspelt.json", json.dumps(document))
    findings = host.evpn_host("preflight", "-p", "/root/misspelt.json", "--json", check=False)
    assert findings.code == 1
    assert findings.json[0]["what"] == "ens44 is not there; ens4 is"


def test_a_person_may_do_without(lab: Lab) -> None:
    """`--no-guard` applies it; a later apply with the guard brings the session back."""
    host = lab.host
    host.apply(payload())
    eventually(lambda: established(host) == {"ens4", "ens5"})
    assert host.apply(with_remote_asn(payload(), 1), "--no-guard").code == 0
    assert established(host) == {"ens4"}
    assert host.apply(payload()).code == 0
    eventually(lambda: established(host) == {"ens4", "ens5"})


def wrong_leaves(host: Host) -> list[str]:
    """Return the cables of which `status` warns."""
    warnings = host.evpn_host("status", "--json", check=False).json["warnings"]
    return [text for text in warnings if " is connected to " in text]


@pytest.mark.claim("18.4", "A cable to another leaf than the payload says is reported")
def test_names_a_leaf_that_is_another_one(lab: Lab) -> None:
    """`apply` and `status` warn that the cable or the payload is wrong."""
    host = lab.host
    host.apply(payload())
    eventually(lambda: established(host) == {"ens4", "ens5"})
    assert wrong_leaves(host) == []
    result = host.apply(json.loads(json.dumps(payload()).replace("ns-leaf-0", "ns-leaf-7")))
    assert "warning: ens4 is connected to ns-leaf-0: the payload says ns-leaf-7" in result.err
    eventually(lambda: established(host) == {"ens4", "ens5"})
    text = "ens4 is connected to ns-leaf-0, the payload says ns-leaf-7"
    assert wrong_leaves(host) == [text]
    assert f"warning: {text}" in host.evpn_host("status").out
    host.apply(payload())


@pytest.fixture
def lldp(lab: Lab) -> Iterator[Host]:
    """The port of ens4 is no underlay port yet; its leaf sends LLDP, and lldpd runs on the host."""
    host, leaf = lab.host, lab.fabric.leaf("ns-leaf-0")
    host.apply(payload())
    leaf.underlay(on=False)
    eventually(lambda: established(host) == {"ens5"})
    assert wrong_leaves(host) == []
    # Two daemons on one machine: each has a socket, and a file for its process, of its own.
    daemon = leaf.start(["lldpd", "-d", "-u", LEAF_LLDP, "-I", "swp9s1", "-S", "a switch"])
    cli = ["lldpcli", "-u", LEAF_LLDP, "configure"]
    try:
        eventually(lambda: leaf.run([*cli, "lldp", "tx-interval", "1"], check=False).code == 0)
        leaf.run([*cli, "system", "hostname", "ns-leaf-0"])
        host.run(["systemctl", "start", "lldpd"])
        # Without a pattern lldpd leaves virtual NICs alone, as those of the lab are.
        host.run("lldpcli configure system interface pattern ens4".split())
        eventually(lambda: "ns-leaf-0" in host.run("lldpcli show neighbors".split()).out)
        yield host
    finally:
        host.run(["systemctl", "stop", "lldpd"])
        daemon.stop()
        leaf.underlay(on=True)
        host.apply(payload())
        eventually(lambda: established(host) == {"ens4", "ens5"})


@pytest.mark.claim("18.6", "LLDP names the switch at a port without a session")
def test_lldp_names_the_leaf_without_a_session(lldp: Host) -> None:
    """The payload has the two leaves the other way round: `preflight`, `apply`, `status` say so."""
    assert wrong_leaves(lldp) == []
    swapped = payload()
    names = [link["remote"]["name"] for link in swapped["links"]]
    for link, name in zip(swapped["links"], reversed(names), strict=True):
        link["remote"]["name"] = name
    lldp.machine.write("/root/swapped.json", json.dumps(swapped))
    findings = lldp.evpn_host("preflight", "-p", "/root/swapped.json", "--json").json
    assert {each["what"]: each["why"] for each in findings}.items() >= {
        ("ens4 is connected to ns-leaf-0", "the payload says ns-leaf-1"),
        ("ens5 is connected to ns-leaf-1", "the payload says ns-leaf-0"),
    }
    messages = lldp.apply(swapped).err
    assert "warning: ens4 is connected to ns-leaf-0: the payload says ns-leaf-1" in messages
    text = "ens4 is connected to ns-leaf-0, the payload says ns-leaf-1"
    assert text in wrong_leaves(lldp)
    lldp.run(["systemctl", "stop", "lldpd"])
    assert text not in wrong_leaves(lldp)  # nothing else has named the wrong leaf


@pytest.mark.claim(
    "18.5", "If a link is removed and added again, apply ends when packets pass there"
)
def test_a_link_that_comes_back(lab: Lab) -> None:
    """`apply` brings a link back, and ends when packets pass there, not when the session is up.

    FRR's neighbour entry for the next hop could be left without a MAC, with all sessions up.
    """
    host = lab.host
    for _ in range(3):
        one = payload()
        del one["links"][1]
        host.apply(one)
        eventually(lambda: established(host) == {"ens4"})
        host.apply(payload())
        assert established(host) == {"ens4", "ens5"}
        # The leaf's routes come a second after the session. No other apply comes.
        eventually(lambda: "lladdr" in host.run(NEXT_HOP).out)
        eventually(lambda: host.ping("10.2.0.2", count=2))  # its loopback


@pytest.mark.claim("18.7", "The controller no longer answers the host: the previous state returns")
def test_goes_back_when_the_controller_does_not_answer(lab: Lab) -> None:
    """All sessions are up and the gateway answers, but the controller does not know the address."""
    host, controller = lab.host, lab.fabric.controller
    served = "/srv/payloads/K8S01.json"
    document = payload()
    host.apply(document)
    host.machine.write(served, json.dumps(document))
    server = controller.start(
        ["python3", "-m", "http.server", "8080", "--bind", controller.ipv4, "-d", "/srv/payloads"]
    )
    url = f"http://{controller.ipv4}:8080/K8S01.json"
    host.machine.write(CONFIG, f"guard: 15\ninsecure: true\ncontroller: {url}\n")
    document["generation"] += 1
    document["server"]["mgmt"]["ipv4"] = "10.12.0.77/16"
    controller.run(["ip", "route", "add", "blackhole", "10.12.0.77/32"])
    try:
        eventually(lambda: host.evpn_host("apply", check=False).code == 0)
        host.machine.write(served, json.dumps(document))
        result = host.evpn_host("apply", check=False)
        assert result.code == 3, result.err
        assert "guard: the controller does not answer, but did before" in result.err
        assert host.evpn_host("apply").code == 0  # the payload is left alone
        assert "10.12.0.101/16" in host.run(["ip", "address", "show", "nbr-14"]).out
    finally:
        controller.run(["ip", "route", "delete", "blackhole", "10.12.0.77/32"])
        host.machine.write(CONFIG, "guard: 15\n")
        server.stop()
