"""A host and its controller: first apply by the unit, news by the timer, a boot without controller.

The tests run on a machine of each distribution and backend. The controller is
examples/controller.py, in the fabric's management V-Net. Each test first brings host and controller
to the state with which it begins, if the previous test did not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from lab.channel import Process
from lab.fabric import Host, Lab, eventually
from lab.result import Result
from tests.lab.k8s01 import Payload, established, payload, underlay, unit_state, vnet
from tests.lab.systems import SYSTEMS

SERVICE, TIMER, HOOK = "evpn-host.service", "evpn-host.timer", "evpn-host-failover.service"
CONTROLLER = "10.12.0.5"
FOLDER = "/root/payloads"
METRICS = "/var/lib/evpn-host.prom"
QUICK = f"/etc/systemd/system/{TIMER}.d/quick.conf"
# A command that replaces an apply: it lasts until the file GO exists.
GO, ENDLESS = "/run/go-on", "until [ -e /run/go-on ]; do sleep 0.2; done"
ADDED = vnet(90, 33, "10.188.9.254/24")


class Story:
    """A host, its controller, and the settings and secrets by which they know each other."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.host = lab, lab.host
        self.controller: Process | None = None
        self.generation_served = 0
        ca = trustme.CA()
        certificate = ca.issue_cert(CONTROLLER)
        pem = certificate.private_key_and_cert_chain_pem.bytes().decode()
        self.host.machine.write("/root/controller.pem", pem, 0o600)
        self.host.machine.write("/etc/evpn-host/ca.pem", ca.cert_pem.bytes().decode())
        self.host.machine.write("/root/token", "a-token-of-the-lab", 0o600)
        self.host.machine.write("/etc/evpn-host/token", "a-token-of-the-lab\n", 0o600)
        settings = {
            "controller": f"https://{CONTROLLER}:8443/{{host}}.json",
            "host": "K8S01",
            "ca_file": "/etc/evpn-host/ca.pem",
            "token_file": "/etc/evpn-host/token",
            "report": f"https://{CONTROLLER}:8443/{{host}}.json",
            "metrics": METRICS,
            "timeout": 10,
        }
        self.host.machine.write("/etc/evpn-host/config.yaml", json.dumps(settings))

    def give(self, document: dict[str, Any]) -> None:
        """Let the controller serve a payload, and configure the leaves for it."""
        for link in document["links"]:
            link["mtu"] = 9000  # with the example's 1500 no full-size frame passes the fabric
        self.lab.fabric.carry(document)
        self.host.machine.write(f"{FOLDER}/K8S01.json", json.dumps(document))
        self.generation_served = int(document["generation"])

    def off(self) -> None:
        """Uninstall the product from the host; let the controller serve the example payload."""
        self.lab.machine.run(["rm", "-rf", QUICK, METRICS, f"{FOLDER}/reports"])
        self.host.evpn_host("uninstall")
        underlay(self.lab.fabric, on=False)
        self.give(payload())
        self.serve()

    def on(self) -> None:
        """Let the units apply the controller's payload every few seconds, over the fabric."""
        host = self.host
        self.serve()
        if host.run(["systemctl", "is-enabled", TIMER], check=False).code:
            if host.run(["test", "-e", "/var/lib/evpn-host"], check=False).code:
                self.off()
            host.evpn_host("install-units")
            quick = "[Timer]\nOnUnitInactiveSec=\nOnUnitInactiveSec=3\nRandomizedDelaySec=1\n"
            host.machine.write(QUICK, quick)
            host.run(["systemctl", "daemon-reload"])
            host.run(["systemctl", "enable", SERVICE, TIMER])
        host.run(["systemctl", "start", TIMER])
        self.run()
        underlay(self.lab.fabric, on=True)
        eventually(lambda: established(host) == {"ens4", "ens5"})

    def run(self) -> None:
        """Let the unit apply the controller's payload once, and wait for its end."""
        eventually(self._idle, within=240)
        self.host.run(["systemctl", "start", SERVICE], check=False, timeout=240)
        eventually(self._idle, within=240)

    def _idle(self) -> bool:
        return unit_state(self.host, SERVICE) not in {"active", "activating", "deactivating"}

    def stop(self) -> None:
        """Stop the timer, and wait until no run of the unit is active."""
        self.host.run(["systemctl", "stop", TIMER])
        eventually(self._idle, within=240)

    def news(self, *vnets: Payload) -> int:
        """Let the controller serve the next generation with these V-Nets added; give its number."""
        self.give(payload(*vnets) | {"generation": self.generation_served + 1})
        return self.generation_served

    def serve(self) -> None:
        """Start the controller unless it runs: a reboot ends it, and tests stop it."""
        if self.controller and self.controller.running:
            return
        self.controller = self.lab.fabric.controller.start(
            [
                *["python3", "/opt/repo/examples/controller.py", FOLDER, "--listen", CONTROLLER],
                *["--certificate", "/root/controller.pem", "--token-file", "/root/token"],
            ]
        )
        eventually(lambda: self.controller and self.controller.output)

    def generation(self) -> int | None:
        """Return the generation that `status` reports as applied."""
        applied: int | None = self.status()["generation"]
        return applied

    def status(self) -> dict[str, Any]:
        """Return the output of `status --json`."""
        report: dict[str, Any] = self.host.evpn_host("status", "--json", check=False).json
        return report


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def story(request: pytest.FixtureRequest, fresh_lab: Any) -> Story:
    """A fabric with a host on which only the access to its controller is configured."""
    return Story(fresh_lab(*request.param))


@pytest.fixture(autouse=True)
def journal_of_a_failure(story: Story, request: pytest.FixtureRequest) -> Iterator[None]:
    """When a test fails, show the host's journal and the controller's log."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        argv = ["journalctl", "--boot", "--unit=evpn-host*", "--no-pager", "--lines=60"]
        print(story.host.run(argv, check=False).out)
        print(story.controller.errors[-2000:] if story.controller else "no controller")


def now(host: Host) -> str:
    """Return the cursor of the journal's end."""
    output = host.run(["journalctl", "--lines=0", "--show-cursor"]).out
    return output.partition("cursor: ")[2].strip()


def messages(host: Host, since: str = "") -> list[dict[str, str]]:
    """Return the product's structured journal entries since boot, or after a cursor."""
    argv = ["journalctl", "--boot", "-t", "evpn-host", "--output=json", "--all"]
    argv += [f"--after-cursor={since}"] if since else []
    entries = [json.loads(line) for line in host.run(argv).out.splitlines()]
    return [entry for entry in entries if "EVPN_HOST_OUTCOME" in entry]


def properties(host: Host, unit: str, *names: str) -> dict[str, str]:
    """Return the properties of a unit."""
    options = [f"--property={name}" for name in names]
    lines = host.run(["systemctl", "show", unit, *options]).out.splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_first_apply_by_the_unit(story: Story) -> None:
    """The sandboxed service makes the server a VTEP; journal, metrics and controller report it."""
    host = story.host
    story.off()
    host.evpn_host("install-units")
    before = now(host)
    story.run()
    journal = host.run(["journalctl", "-u", SERVICE, "--no-pager"]).out
    assert properties(host, SERVICE, "Result")["Result"] == "success", journal
    assert story.status()["differences"] == [], journal
    eventually(lambda: messages(host, before))
    [entry] = messages(host, before)
    assert entry["EVPN_HOST_OUTCOME"] == "changed"
    assert entry["EVPN_HOST_GENERATION"] == str(story.generation())
    assert entry["EVPN_HOST_NAME"] == "K8S01"
    assert "/etc/frr/frr.conf" in entry["EVPN_HOST_FILES_CHANGED"].splitlines()
    assert entry["MESSAGE"].startswith(f"K8S01: generation {story.generation()} applied: ")
    assert unit_state(host, HOOK) == "active"
    assert f"evpn_host_generation {story.generation()}\n" in host.machine.read(METRICS)
    report = json.loads(host.machine.read(f"{FOLDER}/reports/K8S01.json"))
    assert (report["host"], report["generation"]) == ("K8S01", story.generation())


def test_the_timer_brings_news(story: Story) -> None:
    """The timer fetches over the fabric from the address on the bridge; no change gives a 304."""
    host = story.host
    story.on()
    assert story.controller
    start = len(story.controller.errors)
    eventually(lambda: story.controller and '" 304 ' in story.controller.errors[start:], within=120)
    result = host.evpn_host("apply", "-v")  # -v would show each command: there is none
    assert result == Result(0, "", "")
    added_before = has_added(host)
    generation = story.news(*(() if added_before else (ADDED,)))
    eventually(lambda: story.generation() == generation, within=240)
    eventually(lambda: story.status()["differences"] == [])
    assert has_added(host) != added_before


def has_added(host: Host) -> bool:
    """Return whether the host has the bridge of the V-Net ADDED."""
    return "nbr-90" in host.run(["ip", "-brief", "link"]).out


@pytest.mark.claim(
    "14.3",
    "At a boot without controller the files bring the host up; nothing waits, no unit fails",
)
def test_a_boot_without_controller(story: Story) -> None:
    """The files bring the host up, boot does not wait, no unit fails; the journal says why."""
    host = story.host
    story.on()
    generation = story.generation()
    # The product flushes the record and the files to the disk, but not the older generations.
    host.run(["sync"])
    story.lab.reboot(hard=True)
    eventually(lambda: established(host) == {"ens4", "ens5"})
    eventually(
        lambda: [m for m in messages(host) if m["EVPN_HOST_OUTCOME"] == "unreachable"], within=240
    )
    entry = messages(host)[-1]
    assert entry["PRIORITY"] == "4"
    assert "can't be reached" in entry["MESSAGE"]
    assert host.run(["systemctl", "is-failed", SERVICE], check=False).code == 1
    assert story.generation() == generation
    eventually(lambda: story.status()["differences"] == [])
    assert unit_state(host, "multi-user.target") == "active"
    start_clock, up_clock = "InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic"
    start = properties(host, SERVICE, start_clock)[start_clock]
    up = properties(host, "multi-user.target", up_clock)[up_clock]
    print(f"boot went on {(int(up) - int(start)) / 1e6:.1f} s after the unit's first start")
    success = ["grep", "^evpn_host_last_run_success", METRICS]
    eventually(lambda: host.run(success, check=False).out == "evpn_host_last_run_success 0\n")


def test_the_controller_comes_back(story: Story) -> None:
    """Once the controller is back, the next run succeeds."""
    bad, good = (["grep", "-x", f"evpn_host_last_run_success {value}", METRICS] for value in (0, 1))
    if story.host.run(bad, check=False).code:
        story.on()
        assert story.controller
        story.controller.stop()
        eventually(lambda: story.host.run(bad, check=False).code == 0, within=240)
    story.serve()
    eventually(lambda: story.host.run(good, check=False).code == 0, within=240)


def test_boot_is_not_kept_waiting(story: Story) -> None:
    """The job that boot waits for ends at its time-out, while apply goes on to its end."""
    host = story.host
    story.on()
    story.stop()
    timeout = properties(host, SERVICE, "JobRunningTimeoutUSec")["JobRunningTimeoutUSec"]
    assert timeout == "1min"
    slow = f"/run/systemd/system/{SERVICE}.d/slow.conf"
    work = f'[Service]\nExecStart=\nExecStart=sh -c "{ENDLESS}"\n'
    host.machine.write(slow, f"[Unit]\nJobRunningTimeoutSec=3\n{work}")
    host.run(["systemctl", "daemon-reload"])
    try:
        assert host.run(["systemctl", "start", SERVICE], check=False).code == 1
        assert unit_state(host, SERVICE) == "activating"
        host.run(["touch", GO])
        eventually(lambda: unit_state(host, SERVICE) == "inactive")
        assert properties(host, SERVICE, "Result")["Result"] == "success"
    finally:
        host.run(["rm", "-f", slow, GO])
        host.run(["systemctl", "daemon-reload"])


def test_a_rollback_is_told(story: Story) -> None:
    """The journal reports a rollback; a later apply does not bring the rejected payload back."""
    host = story.host
    story.on()
    story.stop()
    story.news(vnet(91, 33, "10.188.91.254/24"))
    assert host.evpn_host("apply").code == 0
    assert "nbr-91" in host.run(["ip", "-brief", "link"]).out
    host.evpn_host("rollback")
    eventually(lambda: messages(host)[-1]["MESSAGE"].endswith("is current again"))
    result = host.evpn_host("apply", "-v")
    assert "a person went back from it" in result.out
    assert result.err == ""
    assert "nbr-91" not in host.run(["ip", "-brief", "link"]).out


def test_uninstall_ends_it(story: Story) -> None:
    """After uninstall nothing makes the server a VTEP again: our units and metrics are removed."""
    host = story.host
    story.on()
    host.machine.run(["rm", "-rf", f"/etc/systemd/system/{TIMER}.d"])
    host.evpn_host("uninstall")
    folders = ["/etc/systemd/system", "/run/systemd/system"]
    units = host.run(["find", *folders, "-name", "evpn-host*", "-not", "-name", "*.d"]).out
    assert units == ""
    assert host.run(["test", "-e", METRICS], check=False).code == 1
    assert host.run(["systemctl", "is-active", SERVICE, TIMER, HOOK], check=False).code != 0
