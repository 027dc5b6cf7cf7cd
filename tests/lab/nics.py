"""Steps that tests of a server's own NIC configuration share, whatever its backend."""

from __future__ import annotations

from lab.fabric import PAYLOAD, Lab, eventually
from tests.lab.k8s01 import (
    OPERATORS_COMMANDS,
    Payload,
    addresses,
    bare_metal,
    differences,
    established,
    etc_checksums,
    guest,
    payload,
    underlay,
)

MANAGEMENT, SECOND = "10.12.0.101/16", "10.254.254.10/24"


def check_host_joins_fabric(lab: Lab, document: Payload | None = None) -> None:
    """Apply; the operator's addresses stay, and guests talk on after his commands and a reboot."""
    host, fabric = lab.host, lab.fabric
    document = document or payload()
    eventually(lambda: fabric.controller.ping("10.12.0.101", count=1))
    fabric.carry(document)
    result = host.apply(document)
    assert {MANAGEMENT, SECOND} <= addresses(host, nic_of(document)), result.err
    assert fabric.controller.ping("10.12.0.101", count=3)
    underlay(fabric, on=True)
    nics = {link["local"]["ifname"] for link in document["links"]}
    eventually(lambda: established(host) == nics)
    gpu = bare_metal(fabric, "gpu", 26, "10.188.0.254", 20)
    pod = guest(host, "pod", 26, "10.188.0.254", 10)
    eventually(lambda: pod.ping(gpu, count=1))
    for command in OPERATORS_COMMANDS[lab.backend]:
        host.run(command, timeout=120)
    eventually(lambda: pod.ping(gpu, count=1))
    eventually(lambda: fabric.controller.ping("10.12.0.101", count=1))
    assert SECOND in addresses(host, nic_of(document))
    lab.reboot()
    eventually(lambda: established(host) == nics)
    eventually(lambda: fabric.controller.ping("10.12.0.101", count=1))
    assert SECOND in addresses(host, nic_of(document))
    eventually(lambda: nothing_differs(lab))


def nic_of(document: Payload) -> str:
    return str(document["server"]["mgmt"]["ifname"])


def nothing_differs(lab: Lab) -> bool:
    """Return true if `status` finds no difference; fail with the differences otherwise."""
    listed = differences(lab.host)
    assert not listed, listed
    return True


def check_apply_refuses(lab: Lab, *words: str, document: Payload | None = None) -> None:
    """Fail unless apply refuses with these words, also without the guard, and changes nothing."""
    eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))
    before = etc_checksums(lab.host)
    for options in ((), ("--no-guard",)):
        result = lab.host.apply(document or payload(), *options, check=False)
        assert result.code == 1, (options, result.err)
        for word in words:
            assert word in result.err, result.err
    preflight = lab.host.evpn_host("preflight", "-p", PAYLOAD, check=False)
    assert preflight.code == 1
    assert all(word in preflight.out for word in words), preflight.out
    assert etc_checksums(lab.host) == before
    assert lab.fabric.controller.ping("10.12.0.101", count=3)
