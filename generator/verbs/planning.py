"""How a payload becomes the plan of this host."""

from pathlib import Path

from generator import __version__, secrets
from generator.activation import backends
from generator.controller import config
from generator.desired import plan
from generator.desired.payload import Payload, load
from generator.desired.plan import Plan
from generator.errors import Refused
from generator.state import changes, record
from generator.state.record import Record
from generator.verbs.options import Options

FRR_LOCAL = "etc/frr/frr.conf.local"


def frr_local(root: Path) -> str:
    """Return the operator's own FRR lines."""
    return changes.read(root, FRR_LOCAL) or ""


def make_plan(data: bytes, options: Options) -> tuple[Plan, Payload, str]:
    """Return the plan for this host, its payload, and the digest of all that the plan is made from.

    Raises `Refused`.
    """
    payload = load(data)
    secrets.remember(*payload.passwords)
    # A payload for one host needs no name; in a Fleet the machine's own finds its entry.
    name = options.host or (config.hostname() if payload.kind == "Fleet" else None)
    backend = options.backend or backends.detect(options.root)
    local = frr_local(options.root)
    host = backends.named(backend).locate(options.root, payload.host(name))
    planned = plan.make(
        host,
        backend,
        local,
        guest_bgp=options.guest_bgp,
        guest_nat=options.guest_nat,
        generation=payload.generation,
    )
    backends.named(backend).refuse_devices(options.root, planned.host)
    return planned, payload, inputs_of(data, local, options)


def inputs_of(data: bytes, local: str, options: Options) -> str:
    """Return the digest of all that the files are made from."""
    settings = (options.backend or "", options.host or "", str(options.guest_bgp))
    later = () if options.guest_nat else ("guest_nat",)  # by default the digest is as before
    return plan.digest(__version__, data, local, *settings, *later)


def previous_record(options: Options) -> Record | None:
    """Read the record of the last apply. With `full`, an unreadable one counts as none."""
    try:
        return record.read(options.root)
    except Refused:
        if options.full:
            return None
        raise
