"""Which backend a host uses, whether it can be used as it is, and what stands in guests' way."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.desired import plan
from generator.errors import ActivationFailed, Problem, Refused

_OURS = "60-evpn-host.yaml"
_SOURCED = re.compile(r"\s*source(-directory)?\s+(/etc/network/)?interfaces\.d(/\*)?/?\s*$")
_FIREWALL = (Path("/sys/module/nf_tables"), Path("/proc/net/ip_tables_names"))
_DHCP = re.compile(r"\s*iface\s+(?P<nic>\S+)\s+inet6?\s+dhcp\b")


def backend(root: Path) -> str:
    """netplan where networkd is active or /etc/netplan is in use, else ifupdown2.

    Raises `Refused` for classic ifupdown and ifupdown-ng, and where there is nothing that we know.
    """
    if any(file.name != _OURS for file in (root / plan.NETPLAN).glob("*.yaml")):
        return "netplan"
    if root == Path("/") and _networkd_active():
        return "netplan"
    if not (root / "etc/network/interfaces").exists():
        hint = "-b netplan or -b ifupdown says which, -b netplan needs the package netplan.io"
        raise Refused(Problem("", "", "neither netplan nor ifupdown2 is in use on this host", hint))
    if root == Path("/"):
        _refuse_other_ifupdown()
    _refuse_unsourced(root)
    return "ifupdown"


def _networkd_active() -> bool:
    """Asked of systemd's own file system, so that no command is run."""
    return Path("/sys/fs/cgroup/system.slice/systemd-networkd.service").is_dir()


def _refuse_other_ifupdown() -> None:
    if shutil.which("ifreload"):
        return
    ifup = shutil.which("ifup")
    if not ifup:
        raise Refused("ifupdown2 is not installed")
    said = subprocess.run(
        [ifup, "--version"], capture_output=True, text=True, timeout=10, check=False
    ).stdout
    which = "ifupdown-ng" if "ifupdown-ng" in said else "classic ifupdown"
    raise Refused(
        Problem("", "", f"this host uses {which}, which knows no VRFs", "install ifupdown2")
    )


def _refuse_unsourced(root: Path) -> None:
    """/etc/network/interfaces has to source the folder in which our file lies."""
    if not any(_SOURCED.match(line) for line in _lines(root / "etc/network/interfaces")):
        hint = "add: source /etc/network/interfaces.d/*"
        rule = "does not source /etc/network/interfaces.d"
        raise Refused(Problem("/etc/network/interfaces", "", rule, hint))


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines()


def refuse_lost_addresses(root: Path, backend: str, nics: list[str]) -> None:
    """Raise `Refused` where our part of an uplink would take the operator's addresses from it."""
    if backend == "netplan":
        _refuse_other_ids(root, nics)
    elif (root / "etc/network/interfaces").exists():
        _refuse_later_dhcp(root, nics)


def _refuse_later_dhcp(root: Path, nics: list[str]) -> None:
    """A DHCP client of an uplink must stand above our stanza.

    ifupdown2 makes one of all stanzas of a NIC and takes the first one's method (`squash` in
    ifupdown/iface.py, 3.0): after ours it would start no client.
    """
    own = root / "etc/network/interfaces.d/evpn-host"
    main = root / "etc/network/interfaces"
    lines = _lines(main)
    sourced = next((n for n, line in enumerate(lines) if _SOURCED.match(line)), len(lines))
    below = [(main, lines[sourced:])]
    below += [(f, _lines(f)) for f in own.parent.glob("*") if f.is_file() and f.name > own.name]
    rule = "comes after our part of it, and ifupdown2 would start no DHCP client"
    hint = "put it above the line that sources /etc/network/interfaces.d"
    problems = [
        Problem(f"{file}: {' '.join(line.split())}", "", rule, hint)
        for file, lines in below
        for line in lines
        if (found := _DHCP.match(line)) and found["nic"] in nics
    ]
    if problems:
        raise Refused(*problems)


def _refuse_other_ids(root: Path, nics: list[str]) -> None:
    """netplan's ids of the uplinks must be their names.

    An operator's entry of another id that matches the same NIC would make two files for it, of
    which networkd takes the first: his addresses would vanish.
    """
    problems = [
        Problem(
            f"{file}: ethernets.{id_}", "", f"is the uplink {nic} under another id", "rename it"
        )
        for file in sorted((root / plan.NETPLAN).glob("*.yaml"))
        if file.name != _OURS
        for id_, entry in _ethernets(file).items()
        for nic in nics
        if nic != id_ and nic in _names(entry)
    ]
    if problems:
        raise Refused(*problems)


def firewalls(log: Log) -> Iterator[str]:
    """Say which firewall drops what guests send beyond this host, for its owner to decide.

    Asked only where the kernel has one: the question itself would load it.
    """
    if not any(map(Path.exists, _FIREWALL)):
        return
    for tool in ("iptables", "ip6tables"):
        reason = "whether what is forwarded is dropped"
        with contextlib.suppress(ActivationFailed):
            rules = commands.run(Step((tool, "-S", "FORWARD"), reason, timeout=5), log)
            if "-P FORWARD DROP" in rules and "nbr-" not in rules:
                yield (
                    f"{tool} drops what is forwarded, guests' traffic too; to let it through:"
                    f" {tool} -I FORWARD -i nbr-+ -o nbr-+ -j ACCEPT,"
                    f" {tool} -I FORWARD -i Vrf_+ -j ACCEPT"
                )


def _ethernets(file: Path) -> dict[Any, Any]:
    """The NICs of a netplan file; none where netplan itself will say what is wrong with it."""
    from ruamel.yaml import YAML  # noqa: PLC0415  # only where there are files to read
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    try:
        return dict(YAML(typ="safe").load(file.read_text())["network"]["ethernets"])
    except (OSError, YAMLError, KeyError, TypeError, ValueError):
        return {}


def _names(entry: Any) -> set[Any]:
    """What a NIC's entry calls it."""
    if not isinstance(entry, dict):
        return set()
    match = entry.get("match")
    return {entry.get("set-name"), match.get("name") if isinstance(match, dict) else None}
