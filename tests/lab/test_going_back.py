"""An apply fails on a running host: the previous configuration continues to work."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lab.fabric import Host, Lab, eventually
from tests.lab.k8s01 import (
    addresses,
    bare_metal,
    bring_up,
    differences,
    established,
    etc_checksums,
    guest,
    payload,
    vnet,
)
from tests.lab.systems import SYSTEMS

ADDED = vnet(80, 33, "10.188.8.254/24")


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")  # the hook moves the address to the bridge
    bring_up(lab)
    return lab


def test_a_failed_activation_goes_back_while_traffic_goes_on(lab: Lab) -> None:
    """Another device has the VNI: apply refuses, or goes back with exit code 3 and no loss."""
    host = lab.host
    host.apply(payload())  # removes the V-Net of a previous test
    gpu = bare_metal(lab.fabric, "gpu", 26, "10.188.0.254", 20)
    pod = guest(host, "pod", 26, "10.188.0.254", 10)
    eventually(lambda: pod.ping(gpu, count=1))
    host.run(["ip", "link", "add", "theirs", "type", "vxlan", "id", "80", "dstport", "4789"])
    before = etc_checksums(host)
    try:
        refused = host.apply(payload(ADDED), check=False)
        assert (refused.code, etc_checksums(host)) == (1, before)
        assert "VNI 80 belongs to theirs" in refused.err
        with pod.pinging(gpu, interval=0.05) as running:
            # Without the guard preflight only warns.
            result = host.apply(payload(ADDED), "--no-guard", check=False)
    finally:
        host.run(["ip", "link", "delete", "theirs"])
    assert result.code == 3, result.err
    # With ifupdown2 the tool itself reports the missing port. With networkd `apply` reports it,
    # once networkd has finished.
    assert re.search(r"vxlan80(: is not there| does not exist)", result.err), result.err
    assert running.result, running.result
    assert etc_checksums(host) == before
    assert "nbr-80" not in host.run(["ip", "-brief", "link"]).out
    assert not [text for text in differences(host) if "last apply" not in text]

    again = host.apply(payload(ADDED))
    assert again.code == 0
    assert differences(host) == []
    host.run(["ip", "link", "show", "nbr-80"])


def test_a_tool_that_keeps_failing_needs_a_person(lab: Lab) -> None:
    """Activation and rollback both fail: exit 4, and the message says what to look at."""
    host = lab.host
    script = "/usr/lib/frr/frr-reload.py"
    tenant = {"id": 60, "name": "more", "vni": 1060}
    host.run(["mv", script, f"{script}.away"])
    try:
        more = vnet(81, 60, "10.60.0.254/24")
        result = host.apply(payload(ADDED, more, vpcs=(tenant,)), check=False)
    finally:
        host.run(["mv", f"{script}.away", script])
    assert result.code == 4, result.err
    assert "look at:" in result.err
    host.apply(payload(ADDED))
    assert differences(host) == []


State = tuple[str, set[str], set[str], set[str]]


def state(host: Host) -> State:
    """Return what an entry of the history stands for: files, devices, sessions, the address."""
    links = {link["ifname"] for link in host.run(["ip", "-json", "link"]).json}
    ours = {name for name in links if name.startswith(("nbr-", "vxlan", "Vrf_", "l3"))}
    return etc_checksums(host), ours, established(host), addresses(host, "nbr-14")


def _settled(host: Host, sessions: int, address: str) -> State:
    """Return the host's state once it has so many sessions and the address is on the bridge."""
    eventually(lambda: len(established(host)) == sessions)
    eventually(lambda: addresses(host, "nbr-14") == {address})
    return state(host)


def _comes_to(host: Host, expected: State) -> None:
    eventually(lambda: state(host) == expected)


@pytest.mark.claim("18.20", "A rollback brings back all of its entry, and skips none")
def test_rollback_brings_back_each_entry(lab: Lab) -> None:
    """rollback reaches each entry, also one that changed no file; if it fails, nothing changes."""
    host = lab.host
    plain, one, renumbered = payload(), payload(ADDED), payload(ADDED)
    del one["links"][1]  # an uplink goes, a V-Net comes
    del renumbered["links"][1]
    renumbered["server"]["mgmt"]["ipv4"] = "10.12.0.77/16"  # no file has it
    host.apply(plain)
    states = []
    for document, sessions in ((plain, 2), (one, 1), (renumbered, 1), (plain, 2)):
        host.apply(document, "--force")  # the first one comes again, with its generation
        states.append(_settled(host, sessions, document["server"]["mgmt"]["ipv4"]))
    assert states[0] == states[3]
    numbers = [entry["number"] for entry in host.evpn_host("history", "--json").json[:3]]
    for expected in (states[2], states[1]):
        host.evpn_host("rollback")
        _comes_to(host, expected)
        assert differences(host) == []
    host.evpn_host("rollback", str(numbers[0]))  # forward again
    _comes_to(host, states[3])
    host.run(["ip", "link", "add", "theirs", "type", "vxlan", "id", "80", "dstport", "4789"])
    try:
        failed = host.evpn_host("rollback", str(numbers[2]), check=False)
    finally:
        host.run(["ip", "link", "delete", "theirs"])
    assert failed.code == 3, failed.err
    _comes_to(host, states[3])
