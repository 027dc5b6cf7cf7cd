"""What a host had before us, where ours change a thing and do not make it: uninstall gives it back.

/var/lib/evpn-host/before.json is written before the first apply changes anything, and added to when
a later one touches something new. What is in it already was there before us, and stays as it is.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.state import files
from generator.state.record import STATE

FILE = STATE / "before.json"
_SYSCTL = "etc/sysctl.d/90-evpn-host.conf"
# Forwarding of a whole family sets these too (net/ipv4/devinet.c, net/ipv6/addrconf.c).
_TAKEN_ALONG = (
    "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/all/accept_redirects",
    "net/ipv6/conf/*/forwarding",
)
# ifupdown2 names VRFs' tables in this folder, which it does not make, and keeps a list there.
VRF_TABLES = Path("etc/iproute2/rt_tables.d")
_VRF_MAP = VRF_TABLES / "ifupdown2_vrf_map.conf"


class Before(msgspec.Struct):
    """What was there."""

    sysctl: dict[str, str] = {}  # path below /proc/sys to its value
    mtu: dict[str, int] = {}  # of NICs, bytes
    folders: list[str] = []  # that were not there, without leading slash, the outer ones first
    frr_enabled: bool | None = None  # whether systemd started it at boot; None: not looked at
    vrf_map: bool | None = None  # whether ifupdown2's list of VRFs was there; None: not looked at


def read(root: Path) -> Before:
    """What is known; nothing, where a version that did not look has applied first."""
    try:
        return msgspec.json.decode((root / FILE).read_bytes(), type=Before)
    except (OSError, msgspec.DecodeError):
        return Before()


def remember(  # noqa: PLR0913  # a host's files, and what of it they touch
    root: Path,
    texts: dict[str, str],
    nics: Iterable[str],
    devices: Iterable[str],
    log: Log,
    *,
    running: bool,
) -> None:
    """Look at what these files are going to change, unless it was seen before.

    `devices` are ours; a tree that is not of a running host has folders alone.
    """
    known = read(root)
    vrf_map = (root / _VRF_MAP).exists() if known.vrf_map is None else known.vrf_map
    found = Before(
        dict(known.sysctl), dict(known.mtu), list(known.folders), known.frr_enabled, vrf_map
    )
    for path in [*texts, str(VRF_TABLES / "name")]:
        for folder in reversed(Path(path).parents):
            if not (root / folder).is_dir() and str(folder) not in found.folders:
                found.folders.append(str(folder))
    if running:
        names, nics = set(devices), list(nics)
        # networkd has no IPv6 link-local address on what it looks after, unless told.
        also = [f"net/ipv6/conf/{name}/addr_gen_mode" for name in ("lo", *nics)]
        for key, value in _settings(root, texts.get(_SYSCTL, ""), also):
            if not names & set(key.split("/")):
                found.sysctl.setdefault(key, value)
        for nic in nics:
            with contextlib.suppress(OSError, ValueError):
                mtu = int((root / "sys/class/net" / nic / "mtu").read_text())
                found.mtu.setdefault(nic, mtu)
        if found.frr_enabled is None:
            argv = ("systemctl", "is-enabled", "frr.service")
            step = Step(argv, "whether FRR started at boot before us", may_fail=True)
            found.frr_enabled = commands.run(step, log).strip() != "disabled"
    if found != known:
        files.write(root / FILE, msgspec.json.encode(found), 0o600)


def _settings(root: Path, text: str, also: list[str]) -> Iterator[tuple[str, str]]:
    """What the kernel has of the settings in a file of sysctl.d, and of what these change."""
    base = root / "proc/sys"
    keys = [line.partition("=")[0].strip() for line in text.splitlines() if "=" in line]
    for key in [*keys, *_TAKEN_ALONG, *also]:
        for path in sorted(base.glob(key)):
            with contextlib.suppress(OSError):
                yield str(path.relative_to(base)), path.read_text().strip()


def give_back(root: Path, known: Before, log: Log) -> None:
    """Make what is running as it was. Where that is so already, nothing is done."""
    for key, value in known.sysctl.items():
        path = root / "proc/sys" / key
        with contextlib.suppress(OSError):  # a device that is gone
            if path.read_text().strip() != value:
                log(f"{key} = {value}  # as it was")
                path.write_text(value)
    steps = []
    for nic, mtu in known.mtu.items():
        path = root / "sys/class/net" / nic / "mtu"
        if path.exists() and path.read_text().strip() != str(mtu):
            argv = ("ip", "link", "set", "dev", nic, "mtu", str(mtu))
            steps.append(Step(argv, f"the MTU that {nic} had", may_fail=True))
    if known.frr_enabled is False:
        disable = ("systemctl", "disable", "--now", "frr.service")
        steps.append(Step(disable, "FRR did not start at boot before us", may_fail=True))
    commands.run_all(steps, log)


def remove_folders(root: Path, known: Before) -> None:
    """Remove ifupdown2's list of VRFs and the folders that came with us and nobody else uses."""
    with contextlib.suppress(OSError):
        lines = (root / _VRF_MAP).read_text().splitlines()
        named = [line.split()[-1] for line in lines if line.strip() and line[0] != "#"]
        there = any((root / "sys/class/net" / name).exists() for name in named)
        # Where the folder is the distribution's (Debian 12), the list in it is still of our VRFs.
        came_with_us = known.vrf_map is False or str(VRF_TABLES) in known.folders
        if came_with_us and not there:
            (root / _VRF_MAP).unlink()
    for folder in reversed(known.folders):
        with contextlib.suppress(OSError):  # in use, or gone
            (root / folder).rmdir()
