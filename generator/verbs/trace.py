"""`evpn-host trace`: why a guest can or cannot be reached, in the order of the packet."""

import contextlib
import os
from pathlib import Path

import click
import msgspec

from generator.activation import firewall
from generator.activation.commands import Log
from generator.desired.target import Target
from generator.errors import ActivationFailed, NotInstalled, Refused, printable
from generator.observed import evpn, frr, guest, packets, places, steps, tables
from generator.observed.guest import Facts
from generator.observed.iptables import Saved
from generator.observed.netfilter import Ruleset
from generator.observed.places import Place
from generator.observed.steps import Judgement, Step
from generator.observed.tables import Kernel
from generator.state import record

_ROOT = Path("/")


class Trace(msgspec.Struct, frozen=True):
    """All that `trace --json` says."""

    subject: str
    vnet: str
    vpc: str
    mac: str
    vteps: list[str]
    ok: bool
    verdict: str
    steps: list[Step]


def trace(subject: str, vnet: str | None, vpc: str | None, log: Log) -> Trace:
    """Follow an address or a MAC. Raises `Refused`, and `click.UsageError` if it has several."""
    if os.geteuid():
        raise Refused("trace needs root: only root may read the record and ask FRR")
    last = record.read(_ROOT)
    if last is None:
        raise Refused("nothing was applied yet")
    kernel = tables.read_kernel()
    place = _place(last.target, kernel, subject, vnet, vpc)
    if place is None:
        found = steps.nowhere(subject)
        return Trace(subject, "", "", "", [], False, steps.verdict(subject, found), found)
    facts = guest.read(last.target, kernel, place, subject, _ROOT)
    found = steps.judge(facts, _firewall(facts, last.target, log))
    return Trace(
        subject=subject,
        vnet=place.vnet,
        vpc=place.tenant,
        mac=facts.mac,
        vteps=[vtep.address for vtep in facts.vteps],
        ok=all(step.ok is not False for step in found),
        verdict=steps.verdict(subject, found),
        steps=found,
    )


def _firewall(facts: Facts, target: Target, log: Log) -> Judgement:
    try:
        if not (text := firewall.ruleset(log)):
            return Judgement(True, "the kernel has no firewall")
        saved, unread = _saved(text, log)
        ruleset = Ruleset(text, saved)
    except NotInstalled:
        return Judgement(None, "not looked at: the command nft is not here")
    except (ActivationFailed, msgspec.DecodeError) as error:
        return Judgement(None, f"not looked at: {printable(str(error))}")
    loopback = min(target.loopbacks, default="")
    drops = ruleset.drops(packets.packets(facts, target.uplinks or [], loopback))
    return steps.firewall(list(drops), unread=unread)


def _saved(text: str, log: Log) -> tuple[list[Saved], bool]:
    """Return the rules of iptables, and whether some could not be read."""
    found: list[Saved] = []
    try:
        found.extend(firewall.saved(text, log))
    except ActivationFailed:
        return found, True
    return found, False


def _place(
    target: Target, kernel: Kernel, subject: str, vnet: str | None, vpc: str | None
) -> Place | None:
    """Return where to look: what a person names, or the only V-Net or VPC that has it."""
    if vnet is not None:
        return places.vnet_named(target, vnet)
    if vpc is not None:
        named = places.vpc_named(target, vpc)
        inside = [each for each in _places(target, kernel, subject) if each.vpc == named.vpc]
        return only(subject, inside or [named])
    found = _places(target, kernel, subject)
    return only(subject, found) if found else None


def _places(target: Target, kernel: Kernel, subject: str) -> list[Place]:
    if places.is_mac(subject):
        vnis = tables.vnis_of_mac(kernel, subject)
        with contextlib.suppress(frr.Silent):
            vnis |= evpn.vnis_of_mac(subject, _ROOT)
        return places.of_mac(target, vnis)
    vnis = set()
    with contextlib.suppress(frr.Silent):
        vnis = evpn.vnis_of_address(subject, _ROOT)
    return places.of_address(target, subject, vnis, tables.prefixes(kernel, target, subject))


def only(subject: str, found: list[Place]) -> Place:
    """Return the only place. Raises `click.UsageError`, which names them, if there are several."""
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{place} ({place.option})" for place in found)
    raise click.UsageError(f"{subject} is in several: {names}")


_LONGEST = 2000  # characters of a line; a rule of a firewall may be long
_MARKS = {True: "ok", False: "wrong", None: "-"}


def text(answer: Trace) -> str:
    """Return the steps as a person reads them, the verdict last."""
    wide = max(len(step.name) for step in answer.steps)
    lines = [f"{step.name:{wide}}  {_MARKS[step.ok]:5}  {step.text}" for step in answer.steps]
    return "\n".join(printable(line, _LONGEST) for line in [*lines, answer.verdict])
