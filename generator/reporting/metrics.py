"""A host's metrics, in the text format that the node exporter of Prometheus takes from files.

https://prometheus.io/docs/instrumenting/exposition_formats/, names as
https://prometheus.io/docs/practices/naming/ has them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from generator import __version__
from generator.reporting.status import Status
from generator.state import files

_LAST_SUCCESS = "evpn_host_last_success_timestamp_seconds"
Samples = Iterable[tuple[dict[str, str], float]]


def write(root: Path, path: str, status: Status, now: float, *, good: bool) -> None:
    """Write a host's metrics into a file below a root.

    After a failed run, the time of the last good run is copied from the existing file.
    """
    last = now if good else _last_success(root, path)
    text = "".join(_family(*each) for each in _families(status, now, last, good=good))
    files.write(root, path, text.encode(), 0o644)


def _last_success(root: Path, path: str) -> float:
    try:
        sample = re.search(rf"^{_LAST_SUCCESS} ([0-9.e+]+)$", files.read(root, path), re.MULTILINE)
        return float(sample[1]) if sample else 0.0
    except (OSError, ValueError):
        return 0.0


def _families(
    status: Status, now: float, last: float, *, good: bool
) -> Iterator[tuple[str, str, str, Samples]]:
    """Yield name, type, help and samples of each metric."""
    about = {"version": __version__, "host": status.host or "", "backend": status.backend or ""}
    yield "evpn_host_info", "gauge", "What this host is.", [(about, 1)]
    run = "When evpn-host last ran."
    yield "evpn_host_last_run_timestamp_seconds", "gauge", run, [({}, now)]
    success = "When it last got the payload and the host was as it says; 0 for never."
    yield _LAST_SUCCESS, "gauge", success, [({}, last)]
    yield "evpn_host_last_run_success", "gauge", "Whether the last run was one.", [({}, good)]
    generation = "Generation of the payload applied."
    yield "evpn_host_generation", "gauge", generation, [({}, status.generation or 0)]
    devices = [({"kind": kind}, count) for kind, count in status.devices.items()]
    yield "evpn_host_devices", "gauge", "Devices that the host should have.", devices
    differs = "What differs from the payload applied: files, devices, sessions, VNIs."
    yield "evpn_host_differences", "gauge", differs, [({}, len(status.differences))]
    how = "How the host is: the label is the word of status."
    yield "evpn_host_health", "gauge", how, [({"health": status.health}, 1)]
    states = Counter(
        (family, state)
        for session in status.sessions
        for family, state in (("ipv4_unicast", session.ipv4), ("l2vpn_evpn", session.evpn))
    )
    sessions = [
        ({"family": family, "state": state}, count)
        for (family, state), count in sorted(states.items())
    ]
    yield "evpn_host_sessions", "gauge", "BGP sessions by what they carry and state.", sessions
    place = status.management
    if place is None:
        return
    where = "Whether the management address is on the fabric's bridge."
    yield "evpn_host_management_on_bridge", "gauge", where, [({}, place.on == [place.bridge])]
    if place.moves is not None and place.repairs is not None:
        moves = "Moves of the management address since boot."
        yield "evpn_host_management_moves_total", "counter", moves, [({}, place.moves)]
        repairs = "Times that somebody else had moved the management address, since boot."
        yield "evpn_host_management_repairs_total", "counter", repairs, [({}, place.repairs)]


def _family(name: str, type_: str, help_: str, samples: Samples) -> str:
    lines = [f"# HELP {name} {help_}", f"# TYPE {name} {type_}"]
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{name}{{{inside}}} {value:.15g}" if inside else f"{name} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
