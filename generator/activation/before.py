"""The settings that a host had before our files changed them: uninstall restores them.

/var/lib/evpn-host/before.json is written before the first apply changes anything. A later apply
adds settings that it changes for the first time. An entry is never changed.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from generator.activation import backends, commands, devices
from generator.activation.commands import Log, Step
from generator.desired.plan import Plan
from generator.errors import Problem, Refused
from generator.state import files, stored, tree
from generator.state.record import STATE

FILE = STATE / "before.json"
# Forwarding of a whole family sets these too (net/ipv4/devinet.c, net/ipv6/addrconf.c).
_CHANGED_WITH_FORWARDING = (
    "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/all/accept_redirects",
    "net/ipv6/conf/*/forwarding",
)


class Before(msgspec.Struct):
    """The host before us."""

    sysctl: dict[str, str] = {}  # path below /proc/sys to its value
    mtu: dict[str, int] = {}  # of NICs, bytes
    folders: list[str] = []  # that did not exist, without leading slash, the outer ones first
    frr_enabled: bool | None = None  # whether systemd started it at boot; None: not checked
    # Whether the backend's notes existed, such as ifupdown2's list of VRFs; None: not checked.
    notes: bool | None = msgspec.field(default=None, name="vrf_map")


def read(root: Path) -> Before:
    """Return what is stored; nothing, if an older version that stored nothing applied first.

    Raises `Refused` if the file can't be read: its settings must not get lost silently.
    """
    try:
        return stored.read(root, FILE, Before)
    except FileNotFoundError:
        return Before()
    except (OSError, msgspec.DecodeError) as error:
        hint = "without the file, uninstall leaves kernel settings and MTUs as they are"
        raise Refused(Problem(f"/{FILE}", "", stored.problem(error), hint)) from None


def remember(root: Path, plan: Plan, log: Log, *, running: bool) -> None:
    """Store what a plan is going to change, unless it is stored already.

    `running`: whether the tree is this host's. For any other tree only folders are stored.
    """
    known = read(root)
    backend = backends.named(plan.backend)
    notes = known.notes
    if notes is None and backend.notes:
        notes = any(tree.status(root, path) for path in backend.notes)
    before = Before(
        dict(known.sysctl), dict(known.mtu), list(known.folders), known.frr_enabled, notes
    )
    needed = [str(folder / "file") for folder in backend.folders]
    for path in [*plan.files, *needed]:
        for folder in reversed(Path(path).parents):
            if not tree.is_folder(root, folder) and str(folder) not in before.folders:
                before.folders.append(str(folder))
    if running:
        _remember_running(root, plan, before, log)
    if before != known:
        files.write(root, FILE, msgspec.json.encode(before), 0o600)


def _remember_running(root: Path, plan: Plan, before: Before, log: Log) -> None:
    ours = {device.name for device in plan.devices}
    nics = [uplink.ifname for uplink in plan.host.uplinks]
    # networkd turns IPv6 link-local addresses off on what it configures, unless its file has them.
    also = [f"net/ipv6/conf/{name}/addr_gen_mode" for name in ("lo", *nics)]
    for key, value in _settings(root, plan.files.get(devices.SYSCTL, ""), also):
        if not ours & set(key.split("/")):
            before.sysctl.setdefault(key, value)
    for nic in nics:
        with contextlib.suppress(OSError, ValueError):
            mtu = int((root / "sys/class/net" / nic / "mtu").read_text())
            before.mtu.setdefault(nic, mtu)
    if before.frr_enabled is None:
        argv = ("systemctl", "is-enabled", "frr.service")
        step = Step(argv, "whether FRR started at boot before us", may_fail=True)
        before.frr_enabled = commands.run(step, log).strip() != "disabled"


def _settings(root: Path, text: str, also: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the kernel's values of the settings of a sysctl.d file, and of what these change."""
    base = root / "proc/sys"
    keys = [line.partition("=")[0].strip() for line in text.splitlines() if "=" in line]
    for key in [*keys, *_CHANGED_WITH_FORWARDING, *also]:
        for path in sorted(base.glob(key)):
            with contextlib.suppress(OSError):
                yield str(path.relative_to(base)), path.read_text().strip()


def restore(root: Path, known: Before, log: Log) -> None:
    """Give the running host the settings that it had, where they differ."""
    for key, value in known.sysctl.items():
        path = root / "proc/sys" / key
        with contextlib.suppress(OSError):  # the device does not exist any more
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


def sweep(root: Path, paths: Iterable[str]) -> None:
    """Remove what a run that was killed has left: unfinished files, and our empty folders.

    `paths` are the paths of our files.
    """
    files.sweep(root, paths)
    for folder in reversed(read(root).folders):
        with contextlib.suppress(OSError):
            files.remove_folder(root, folder)


def remove_folders(root: Path, known: Before) -> None:
    """Remove the backends' notes, and folders that we created and nobody else uses.

    Raises `OSError`.
    """
    for backend in backends.registered():
        # The folder may be the distribution's (Debian 12), and have notes about our VRFs.
        folders = map(str, backend.folders)
        if known.notes is False or any(folder in known.folders for folder in folders):
            with contextlib.suppress(FileNotFoundError):
                backend.remove_notes(root)
    for folder in reversed(known.folders):
        files.remove_folder(root, folder)
