"""A setting that leaf and host share changes on one of them, then on the other.

docs/operations.md says in which order. The tests print the longest time in which the controller got
no answer from the host.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.fabric import Lab, eventually
from tests.lab import figures
from tests.lab.k8s01 import LEAVES, Payload, bring_up, established, payload
from tests.lab.systems import SYSTEMS
from tests.lab.test_guard import reachable

BOTH = {"ens4", "ens5"}
ADDRESS = "10.12.0.101"
PORT = "neighbor swp9s1"


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    bring_up(lab)
    return lab


@pytest.fixture(autouse=True)
def _ready(lab: Lab) -> None:
    lab.host.apply(payload())
    eventually(lambda: established(lab.host) == BOTH and reachable(lab))


@contextlib.contextmanager
def measured(lab: Lab, title: str) -> Iterator[None]:
    """Ping the host while something changes, and print the longest gap."""
    with lab.fabric.controller.pinging(ADDRESS, 0.05) as pings:
        yield
    gap = f"{pings.result.longest_gap_s:.1f} s"
    figures.write(lab, f"{title}: longest time without an answer", gap)


def configure(lab: Lab, name: str, *lines: str) -> None:
    """Configure lines in a leaf's `router bgp`."""
    leaf = lab.fabric.leaf(name)
    leaf.configure(f"router bgp {leaf.asn}", *lines)


@contextlib.contextmanager
def applying(lab: Lab, document: Payload) -> Iterator[None]:
    """Apply a payload in the background during the block; fail unless it then ends well."""
    host = lab.host
    host.machine.write("/root/both.json", json.dumps(document))
    process = host.start(["evpn-host", "apply", "-p", "/root/both.json"])
    eventually(lambda: "waiting, as" in process.errors)
    yield
    result = process.wait(120)
    assert result.code == 0, result.err
    eventually(lambda: established(host) == BOTH and reachable(lab))


def with_leaf_as(number: int) -> Payload:
    """Return K8S01's payload with another AS number of a leaf."""
    document = payload()
    document["links"][0]["remote"]["asn"] = number
    return document


@pytest.mark.parametrize("first", ["leaf", "host"])
def test_the_as_number_of_a_leaf(lab: Lab, first: str) -> None:
    """The session comes back, whichever end changes first; the other leaf carries meanwhile."""
    leaf, number = LEAVES[0], 4200300900
    change = f"{PORT} local-as {number} no-prepend replace-as"
    try:
        with measured(lab, f"AS number of a leaf, {first} first"):
            if first == "leaf":
                configure(lab, leaf, change)
                eventually(lambda: established(lab.host) == {"ens5"})
                lab.host.apply(with_leaf_as(number))
                eventually(lambda: established(lab.host) == BOTH)
            else:
                with applying(lab, with_leaf_as(number)):
                    configure(lab, leaf, change)
    finally:
        configure(lab, leaf, f"no {change}")


@pytest.mark.claim(
    "18.17", "The AS number of the host changes at both ends, and the host is not lost"
)
def test_the_as_number_of_the_host(lab: Lab) -> None:
    """Leaves that take any external AS number need no change. Both sessions begin anew."""
    document = payload()
    document["server"]["asn"] = 4200000777
    try:
        for name in LEAVES:
            configure(lab, name, f"{PORT} remote-as external")
        with measured(lab, "AS number of the host"):
            lab.host.apply(document)
            eventually(lambda: established(lab.host) == BOTH and reachable(lab))
    finally:
        lab.host.apply(payload(), "--no-guard")
        for name in LEAVES:
            configure(lab, name, f"{PORT} remote-as 4200000001")


@pytest.mark.claim("18.18", "The password of the sessions changes at both ends")
def test_the_password(lab: Lab) -> None:
    """One leaf changes, then the host, then the other leaf while the host's apply waits."""
    document = payload()
    document["server"]["bgp"] = {"password": "correct-horse"}
    try:
        with measured(lab, "password"):
            configure(lab, LEAVES[0], f"{PORT} password correct-horse")
            eventually(lambda: established(lab.host) == {"ens5"})
            with applying(lab, document):
                configure(lab, LEAVES[1], f"{PORT} password correct-horse")
    finally:
        for name in LEAVES:
            configure(lab, name, f"no {PORT} password")
        lab.host.apply(payload(), "--no-guard")


@pytest.mark.claim("18.19", "The management VNI changes at both ends")
def test_the_management_vni(lab: Lab) -> None:
    """The host waits for the leaves: the gateway answers again when they have the new VNI."""
    document = payload()
    for vnet in document["vnets"]:
        if vnet["vxlanID"] == 14:
            vnet["vxlanID"] = 15
    try:
        with measured(lab, "VNI of the management V-Net"), applying(lab, document):
            lab.fabric.change(
                vpcs=document["vpcs"],
                vnets=document["vnets"],
                servers=[each | {"vni": 15} for each in lab.fabric.state["servers"]],
            )
    finally:
        lab.fabric.change(
            vnets=payload()["vnets"],
            servers=[each | {"vni": 14} for each in lab.fabric.state["servers"]],
        )
        lab.host.apply(payload(), "--no-guard")
