"""`--confirm`: whatever happens meanwhile, the host goes back unless somebody confirms in time."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lab.fabric import Host, Lab, eventually
from tests.lab import figures
from tests.lab.k8s01 import (
    Payload,
    bring_up,
    established,
    etc_checksums,
    payload,
    underlay,
    unit_state,
    vnet,
)
from tests.lab.systems import SYSTEMS
from tests.lab.test_guard import CONFIG, reachable

ADDED = vnet(70, 33, "10.188.70.254/24")
NEW = "nbr-70"
TIMER = "evpn-host-unconfirmed.timer"
BOOT = "evpn-host.service"
# Waits until an apply has promised to go back.
BEGUN = "until [ -e /var/lib/evpn-host/unconfirmed.json ]; do sleep 0.1; done"


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP. Its boot service is not enabled."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    return lab


@pytest.fixture(autouse=True)
def before(lab: Lab) -> str:
    """Bring the host to the documentation's payload; return the checksums of its files."""
    bring_up(lab)
    eventually(lambda: reachable(lab))
    return etc_checksums(lab.host)


def health(host: Host) -> str:
    """Return the health that `status` reports."""
    return str(host.evpn_host("status", "--json", check=False).json["health"])


def has_new(host: Host) -> bool:
    """Return whether the host has the V-Net of the second payload."""
    return NEW in host.run(["ip", "-brief", "link"]).out


def is_active(host: Host, unit: str) -> bool:
    """Return whether a unit is active."""
    return unit_state(host, unit) == "active"


def is_enabled(host: Host) -> bool:
    """Return whether the boot service is enabled."""
    return host.run(["systemctl", "is-enabled", BOOT], check=False).out.strip() == "enabled"


def is_as_before(lab: Lab, before: str) -> bool:
    """Return whether files, devices, sessions and the way to the controller are as before."""
    host = lab.host
    return (
        not has_new(host)
        and etc_checksums(host) == before
        and established(host) == {"ens4", "ens5"}
        and reachable(lab)
    )


def apply_unconfirmed(host: Host, seconds: int) -> Payload:
    """Apply a payload with one V-Net more, which a person must confirm in time."""
    document = payload(ADDED)
    result = host.apply(document, "--confirm", str(seconds))
    assert "unless `evpn-host confirm` comes before" in result.err
    assert has_new(host)
    assert health(host) == "unconfirmed"
    assert is_active(host, TIMER)
    return document


@pytest.mark.claim(
    "18.8",
    "Not confirmed in time: the previous state returns, and the timer skips the payload",
)
def test_not_confirmed(lab: Lab, before: str) -> None:
    """Without a confirmation the host goes back. The timer then leaves the payload alone."""
    host = lab.host
    document = apply_unconfirmed(host, 15)
    eventually(lambda: is_as_before(lab, before), within=60)
    eventually(lambda: health(host) == "ok")
    assert not is_active(host, TIMER)
    assert not is_enabled(host)
    newest, second = host.evpn_host("history", "--json").json[:2]
    assert newest["origin"] < second["number"]
    assert "not confirmed in time" in host.evpn_host("status").out
    refused = host.evpn_host("confirm", check=False)
    assert refused.code == 1
    assert "nothing waits to be confirmed" in refused.err
    assert host.apply(document).code == 0
    assert has_new(host)


@pytest.mark.claim("18.9", "Confirmed in time: the new state stays")
def test_confirmed(lab: Lab) -> None:
    """A confirmed apply stays, and nothing waits to go back."""
    host = lab.host
    apply_unconfirmed(host, 15)
    host.evpn_host("confirm")
    assert health(host) == "ok"
    assert not is_active(host, TIMER)
    time.sleep(20)  # more than the time for the confirmation
    assert has_new(host)
    assert established(host) == {"ens4", "ens5"}


@pytest.mark.claim("18.10", "The terminal closes: the apply completes, and is undone in time")
def test_the_terminal_goes_away(lab: Lab, before: str) -> None:
    """SIGHUP does not stop an apply halfway. Nobody confirms it, so the host goes back."""
    host = lab.host
    host.machine.write("/root/new.json", json.dumps(payload(ADDED)))
    line = f"evpn-host apply -p /root/new.json --confirm 20 & {BEGUN}; kill -HUP $!; wait $!"
    assert host.run(["sh", "-c", line], timeout=120).code == 0
    assert has_new(host)
    eventually(lambda: is_as_before(lab, before), within=60)


@pytest.mark.parametrize("after", [0.0, 1.0, 3.0])
@pytest.mark.claim(
    "18.11", "The process is killed at any moment: the previous state returns in time"
)
def test_the_process_is_killed(lab: Lab, before: str, after: float) -> None:
    """A killed apply goes back in time, wherever it was."""
    host = lab.host
    host.machine.write("/root/new.json", json.dumps(payload(ADDED)))
    line = f"evpn-host apply -p /root/new.json --confirm 20 & {BEGUN}"
    line += f"; sleep {after}; kill -KILL $!"
    host.run(["sh", "-c", line], check=False)  # it may have ended by then
    took = eventually(lambda: is_as_before(lab, before), within=60)
    figures.write(
        lab, f"process killed after {after:g} s: until the host was back", f"{took:.0f} s"
    )
    eventually(lambda: health(host) == "ok")
    assert not is_active(host, TIMER)


@pytest.mark.claim(
    "18.12",
    "The power fails meanwhile: the boot restores the previous state, without a network",
)
def test_the_machine_dies(lab: Lab, before: str) -> None:
    """After a power cut the boot service goes back, without fabric and controller."""
    host = lab.host
    apply_unconfirmed(host, 3600)
    assert is_enabled(host)
    host.machine.write(CONFIG, "controller: https://192.0.2.1/k8s01.json\n")  # RFC 5737
    underlay(lab.fabric, on=False)
    try:
        lab.machine.reboot(hard=True)
        took = eventually(lambda: not has_new(host), within=120)
        figures.write(lab, "power cut: until the host was back, after the boot", f"{took:.0f} s")
        eventually(lambda: not is_enabled(host))
    finally:
        host.run(["rm", CONFIG])
        underlay(lab.fabric, on=True)
    assert etc_checksums(host).splitlines() == before.splitlines()
    eventually(lambda: is_as_before(lab, before), within=120)
    assert health(host) == "ok"


@pytest.mark.claim(
    "18.13",
    "A second apply is refused and names the first; the timer's apply changes nothing",
)
def test_a_second_apply(lab: Lab) -> None:
    """A second apply is refused and names the first. The timer's apply changes nothing."""
    host = lab.host
    document = apply_unconfirmed(host, 3600)
    number = host.evpn_host("history", "--json").json[0]["number"]
    refused = host.apply(payload(), check=False)
    assert refused.code == 1
    assert f"entry {number} is not confirmed" in refused.err
    host.machine.write("/root/other.json", json.dumps(payload()))
    host.machine.write(CONFIG, "controller: /root/other.json\n")
    try:
        result = host.evpn_host("apply")
        assert f"entry {number} is not confirmed" in result.out
        assert has_new(host)
    finally:
        host.run(["rm", CONFIG])
    host.evpn_host("confirm")
    assert host.apply(document).code == 0


def test_rollback(lab: Lab, before: str) -> None:
    """A person's rollback works at once; a rollback that nobody confirms is undone."""
    host = lab.host
    apply_unconfirmed(host, 3600)
    host.evpn_host("rollback")
    assert is_as_before(lab, before)
    assert not is_active(host, TIMER)
    host.apply(payload(ADDED))
    with_new = etc_checksums(host)
    host.evpn_host("rollback", "--confirm", "15")
    assert not has_new(host)
    assert health(host) == "unconfirmed"
    eventually(lambda: has_new(host) and etc_checksums(host) == with_new, within=60)
    eventually(lambda: health(host) == "ok")


@pytest.mark.claim("18.14", "Uninstalled while unconfirmed: no earlier state comes back")
def test_uninstall(lab: Lab) -> None:
    """uninstall ends the wait for a confirmation: nothing comes back later."""
    host = lab.host
    apply_unconfirmed(host, 15)
    host.evpn_host("uninstall", "--yes")
    assert not is_active(host, TIMER)
    time.sleep(20)
    assert "nbr-" not in host.run(["ip", "-brief", "link"]).out
    host.evpn_host("install-units")


def test_the_first_apply(lab: Lab) -> None:
    """A first apply that nobody confirms leaves the host as it was without evpn-host."""
    host = lab.host
    host.evpn_host("uninstall", "--yes")
    host.evpn_host("install-units")
    underlay(lab.fabric, on=False)
    eventually(lambda: reachable(lab))
    without = etc_checksums(host)
    host.apply(payload(), "--confirm", "15")
    assert "nbr-" in host.run(["ip", "-brief", "link"]).out
    eventually(lambda: "nbr-" not in host.run(["ip", "-brief", "link"]).out, within=60)
    eventually(lambda: not is_active(host, TIMER))
    assert etc_checksums(host) == without
    assert reachable(lab)
