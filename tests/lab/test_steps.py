"""A host follows its payload through random steps, and V-Nets that do not change lose no packet.

`EVPN_HOST_STEPS` sets the number of steps, `EVPN_HOST_SEED` the random seed. By default the test
makes the same 12 steps each time; with `--all` it makes 24 with a new random seed. It prints both
numbers; the seed repeats a failure. 1,008 steps have passed, most of them in runs of 220 (seeds
20261127 on Debian 13 with netplan, …28 with ifupdown2, …29 on Debian 12 with ifupdown2).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from generator.desired.payload import load
from generator.errors import Refused
from lab.fabric import Lab, Node, eventually
from lab.leaves import of_payload
from tests.lab.k8s01 import (
    Payload,
    bare_metal,
    established,
    guest,
    no_reload_pending,
    payload,
    underlay,
    vnet,
)
from tests.lab.systems import SYSTEMS

VPCS = (33, 50, 51, 52)  # 33 is the example's; the steps must not disturb its V-Net 26
VNIS = range(100, 112)


class Payloads:
    """A payload that changes by random steps."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # must be repeatable
        self.vnets: dict[int, Payload] = {}
        self.l3vnis = {50: 1050, 51: 1051}  # VPC 52 has no VNI: it is routed on this host only
        self.loopback, self.asn = 101, 4200000001

    def step(self) -> tuple[str, Payload]:
        """Make a random step that the product accepts; give its description and the new payload."""
        while True:
            saved = json.dumps([self.vnets, self.l3vnis, self.loopback, self.asn])
            name, change = self.random.choice(sorted(self._steps().items()))
            description = change()
            document = self.document()
            try:
                load(json.dumps(document).encode())
            except Refused:
                description = None
            if description:
                return f"{name}: {description}", document
            vnets, l3vnis, self.loopback, self.asn = json.loads(saved)
            self.vnets = {int(vni): each for vni, each in vnets.items()}
            self.l3vnis = {int(vpc): vni for vpc, vni in l3vnis.items()}

    def document(self) -> Payload:
        """Return the current payload, with the next generation."""
        vpcs = [
            {"id": vpc, "name": f"vpc-{vpc}"} | ({"vni": vni} if vni else {})
            for vpc in VPCS[1:]
            for vni in [self.l3vnis.get(vpc)]
        ]
        document = payload(*self.vnets.values(), vpcs=tuple(vpcs))
        document["server"]["mainAddress"] = f"10.2.0.{self.loopback}"
        document["server"]["asn"] = self.asn
        for link in document["links"]:
            link["mtu"] = 9216
        return document

    def _steps(self) -> dict[str, Callable[[], str | None]]:
        """Return the kinds of steps by name; each returns a description, or None if impossible."""
        return {
            "add": self._add,
            "add again": self._add,
            "remove": self._remove,
            "move": self._move,
            "renumber": self._renumber,
            "VNI": self._vni,
            "MAC": self._mac,
            "gateway": self._gateway,
            "MTU": self._mtu,
            "L3VNI": self._l3vni,
            "loopback": self._loopback,
            "AS number": self._asn,
        }

    def _one(self) -> int | None:
        """Return a random V-Net, or None if there is none."""
        return self.random.choice(sorted(self.vnets)) if self.vnets else None

    def _free(self) -> int:
        """Return a random VNI that no V-Net has."""
        return self.random.choice([vni for vni in VNIS if vni not in self.vnets])

    def _prefixes(self) -> list[str]:
        """Return random gateways: of one family, of both, or two of IPv4."""
        third = self.random.randrange(256)
        return self.random.choice(
            [
                [f"172.20.{third}.254/24"],
                [f"172.20.{third}.254/24", f"fd00:172:20:{third:x}::254/64"],
                [f"fd00:172:20:{third:x}::254/64"],
                [f"172.20.{third}.254/24", f"172.21.{third}.1/24"],
            ]
        )

    def _add(self) -> str | None:
        if len(self.vnets) == len(VNIS) - 1:
            return None
        vni, vpc = self._free(), self.random.choice(VPCS)
        prefixes = self._prefixes() if self.random.random() < 0.8 else []
        self.vnets[vni] = vnet(vni, vpc, *prefixes)
        return f"V-Net {vni} of VPC {vpc} with {', '.join(prefixes) or 'no gateway'}"

    def _remove(self) -> str | None:
        if not (vni := self._one()):
            return None
        del self.vnets[vni]
        return f"V-Net {vni}"

    def _move(self) -> str | None:
        if not (vni := self._one()):
            return None
        vpc = self.random.choice(VPCS)
        self.vnets[vni]["vpc"] = {"id": vpc}
        return f"V-Net {vni} to VPC {vpc}"

    def _renumber(self) -> str | None:
        vni = self._one()
        if not vni or "gateways" not in self.vnets[vni]:
            return None
        prefixes = self._prefixes()
        self.vnets[vni]["gateways"] = [{"prefix": prefix} for prefix in prefixes]
        return f"V-Net {vni} to {', '.join(prefixes)}"

    def _vni(self) -> str | None:
        if not (vni := self._one()):
            return None
        new = self._free()
        self.vnets[new] = self.vnets.pop(vni) | {"vxlanID": new}
        return f"V-Net {vni} to {new}"

    def _mac(self) -> str | None:
        vni = self._one()
        if not vni or "gateways" not in self.vnets[vni]:
            return None
        mac = f"02:00:5e:{self.random.randrange(256):02x}:00:01"
        self.vnets[vni]["macAddress"] = mac
        return f"V-Net {vni} to {mac}"

    def _gateway(self) -> str | None:
        if not (vni := self._one()):
            return None
        current = self.vnets[vni]
        if "gateways" in current:
            del current["gateways"], current["macAddress"]
            return f"V-Net {vni} loses it"
        self.vnets[vni] = vnet(vni, current["vpc"]["id"], *self._prefixes())
        return f"V-Net {vni} gets {self.vnets[vni]['gateways']}"

    def _mtu(self) -> str | None:
        if not (vni := self._one()):
            return None
        mtu = self.random.choice([1280, 1400, 1500, 4000, 9000])
        self.vnets[vni]["mtu"] = mtu
        return f"V-Net {vni} to {mtu}"

    def _l3vni(self) -> str | None:
        vpc = self.random.choice(VPCS[1:])
        self.l3vnis[vpc] = self.random.choice([0, 1000 + vpc, 2000 + vpc])
        return f"VPC {vpc} to {self.l3vnis[vpc] or 'none'}"

    def _loopback(self) -> str:
        self.loopback = self.random.randrange(101, 110)
        return f"10.2.0.{self.loopback}"

    def _asn(self) -> str:
        self.asn = 4200000000 + self.random.randrange(1, 9)
        return str(self.asn)


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A VTEP in its fabric."""
    lab: Lab = fresh_lab(*request.param)
    document = Payloads(0).document()
    lab.fabric.carry(document)
    lab.host.apply(document)
    underlay(lab.fabric, on=True)
    eventually(lambda: established(lab.host) == {"ens4", "ens5"})
    return lab


@pytest.mark.long
@pytest.mark.claim(
    "16.1", "After each random step kernel and FRR match the plan; others lose nothing"
)
def test_random_steps(lab: Lab, request: pytest.FixtureRequest) -> None:
    """After each step nothing differs, FRR needs no reload, and a second apply does nothing."""
    system = "-".join(request.node.callspec.params["lab"])
    everything = request.config.getoption("all_of_it", False)
    new_seed = random.SystemRandom().randrange(1, 10**6)
    seed = int(os.environ.get("EVPN_HOST_SEED") or (new_seed if everything else 20261127))
    steps = int(os.environ.get("EVPN_HOST_STEPS") or (24 if everything else 12))
    print(f"\n{system}: EVPN_HOST_SEED={seed} EVPN_HOST_STEPS={steps}", flush=True)
    payloads = Payloads(seed)
    server = bare_metal(lab.fabric, "gpu", 26, "10.188.0.254", 20)
    pod = guest(lab.host, "pod", 26, "10.188.0.254", 10)
    eventually(lambda: pod.ping(server, count=1))
    start, slowest = time.monotonic(), 0.0
    for number in range(1, steps + 1):
        before = (payloads.loopback, payloads.asn)
        description, document = payloads.step()
        where = f"{system}, seed {seed}, step {number}: {description}"
        hard = before != (payloads.loopback, payloads.asn)
        print(where, flush=True)
        seconds = _one_step(lab, document, pod, server, where, hard)
        slowest = max(slowest, seconds)
        print(f"{where}: {seconds:.1f} s", flush=True)
    took = time.monotonic() - start
    print(f"{system}: {steps} steps of seed {seed} in {took:.0f} s; slowest apply {slowest:.1f} s")


def _one_step(  # noqa: PLR0917  # a step needs all of them
    lab: Lab, document: Payload, pod: Node, server: Node, where: str, hard: bool
) -> float:
    """Apply, check, apply again; give the seconds that the first apply took.

    `hard`: loopback or AS number change, so sessions are reset and packets may get lost.
    """
    host = lab.host
    with pod.pinging(server, interval=0.05) as running:
        if hard:
            lab.fabric.change(host=of_payload(document)["host"])
        start = time.monotonic()
        result = host.apply(document, check=False)
        seconds = time.monotonic() - start
        assert result.code == 0, f"{where}: {result.err}"
        if hard:
            eventually(lambda: established(host) == {"ens4", "ens5"})
            eventually(lambda: pod.ping(server, count=1))
    assert hard or running.result, f"{where}: {running.result}"
    status = host.evpn_host("status", "--json", check=False).json
    assert status["ok"], where
    assert status["differences"] == [], where
    assert no_reload_pending(host), where
    again = host.apply(document, "-v")
    commands = [line for line in again.err.splitlines() if line.startswith("+")]
    assert (commands, again.out) == ([], ""), where
    return seconds
