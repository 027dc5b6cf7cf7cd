"""Every payload of the tests, applied to a host: it ends as its files say, read back from the host.

So what our files say is what the kernel and FRR show, whatever a payload asks for. Else `status`
would name differences that are none, and each run of the timer would try to put them right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.fabric import Host, Lab
from tests.lab.systems import SYSTEMS

PAYLOADS = Path(__file__).parents[1] / "payloads"
NICS = {"ens4", "ens5", "ens6"}


def documents() -> dict[str, dict[str, Any]]:
    """The payloads of one host whose NICs the lab's host has, by name."""
    read = {path.stem: json.loads(path.read_text()) for path in sorted(PAYLOADS.glob("*.json"))}
    return {
        name: document
        for name, document in read.items()
        if document["kind"] == "Host"
        and {link["local"]["ifname"] for link in document.get("links", [])} <= NICS
    }


DOCUMENTS = documents()


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """The host before its first apply."""
    lab: Lab = fresh_lab(*request.param)
    return lab


@pytest.fixture
def host(lab: Lab) -> Host:
    """The host under test."""
    return lab.host


@pytest.mark.parametrize("name", DOCUMENTS)
def test_nothing_differs(lab: Lab, host: Host, name: str) -> None:
    """After an apply `status` lists nothing, and the next apply runs nothing."""
    done = host.apply(DOCUMENTS[name], "--no-guard", "--force", check=False)
    if done.code == 1 and lab.backend == "ifupdown" and "which ifupdown2 allows" in done.err:
        pytest.skip("ifupdown2 does not make a VRF of this payload")
    assert done.code == 0, done.err
    assert "does not put this right" not in done.err
    assert "not put right" not in done.err
    assert host.evpn_host("status", "--json", check=False).json["differences"] == []
    again = host.evpn_host("apply", "-v", "--no-guard", "--force", "-p", "/root/payload.json")
    assert not [line for line in again.err.splitlines() if line.startswith("+ ")]
