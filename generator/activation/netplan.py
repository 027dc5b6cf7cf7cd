"""The backend netplan with networkd: its files, its check, whole and quick way, and remedies."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from collections.abc import Set as Names
from pathlib import Path

import msgspec

from generator.activation import commands, devices, management, netplan_nics
from generator.activation.backend import Activation, Remedy
from generator.activation.commands import Log, Step
from generator.desired import plan
from generator.desired.model import Host
from generator.desired.plan import Plan
from generator.errors import ActivationFailed, NotInstalled, Problem
from generator.observed import netlink, netplan, networkd
from generator.state import files, tree
from generator.state.changes import Change
from generator.state.lock import STAGE

FILE = "etc/netplan/60-evpn-host.yaml"
NETWORKD_CONF = "etc/systemd/networkd.conf.d/90-evpn-host.conf"
_FOLDER = "etc/netplan"
_NETWORKD_DROP_INS = "etc/systemd/network"
_GENERATED = Path("run/systemd/network")  # networkd's files that netplan writes
_PREFIX = netplan.PREFIX  # of their names
# The program that writes networkd's files below a folder. In 1.2 it is `configure`, beside
# systemd's generator. Before 1.2 it was `generate`, in Debian 12 below /lib.
GENERATORS = (
    "/usr/libexec/netplan/configure",
    "/usr/libexec/netplan/generate",
    "/lib/netplan/generate",
)


_OPTIONAL_VRF = (
    b"network: {version: 2, vrfs: {Vrf_1: {table: 1001, interfaces: [], optional: true}}}"
)


class Netplan:
    """See `backend.Backend`."""

    name = "netplan"
    file = FILE
    files = (FILE, NETWORKD_CONF)
    drop_ins = f"{_NETWORKD_DROP_INS}/*.*.d/evpn-host.conf"
    foreign_files = tuple(f"{folder}/*.yaml" for folder in netplan.FOLDERS)
    nic_files = (*foreign_files, "etc/systemd/network/*.network")
    folders = ()
    notes = ()
    unit = "systemd-networkd"

    @property
    def remedies(self) -> Sequence[Remedy]:
        return (_announce_masters, _restart_networkd)

    def is_used(self, root: Path) -> bool:
        """Whether there are netplan files that are not ours, or networkd runs."""
        if any(path != FILE for path in tree.find(root, f"{_FOLDER}/*.yaml")):
            return True
        # Its cgroup exists while it runs: no command is needed.
        unit = Path("/sys/fs/cgroup/system.slice/systemd-networkd.service")
        return root == Path("/") and unit.is_dir()

    def locate(self, root: Path, host: Host) -> Host:
        """Return the host with the files that configure its NICs, and what netplan supports."""
        located = netplan_nics.locate(host, netplan_nics.read(root, FILE, host))
        if not host.vrfs or root != Path("/"):  # another machine's netplan is not known
            return located
        return msgspec.structs.replace(located, optional_vrfs=self._supports_optional_vrfs())

    def _supports_optional_vrfs(self) -> bool:
        """Whether netplan accepts `optional` for a VRF. We have it check a file.

        From 1.1 on a boot waits until each device that is not optional is `degraded`, which a VRF
        never is: services that need the network would start two minutes late. Debian 12's 0.106
        refuses a file with this key, and lets no boot wait.
        """
        with tempfile.TemporaryDirectory(prefix=STAGE) as folder:
            stage = Path(folder)
            files.write(stage, FILE, _OPTIONAL_VRF, 0o600)
            with contextlib.suppress(ActivationFailed):
                commands.run(self.check(stage, 1), commands.silent)
                return True
        return False

    def conflicts(self, root: Path, host: Host) -> list[Problem]:
        """Return why NICs can't be uplinks as the operator configures them."""
        return list(netplan_nics.problems(host, netplan_nics.read(root, FILE, host)))

    def lease(self, root: Path, host: Host) -> str | None:
        """Return "" if the management NIC asks for a lease: our files make it optional."""
        del root
        return None if host.lease is None else ""

    def digest(self, root: Path) -> str:
        """Return a digest of the files of netplan and networkd that are not ours."""
        own = [path for path in netplan.paths(root) if path != FILE]
        kinds = ("nbr-", "vxlan", "Vrf_", "l3br-", "l3vx-")
        prefixes = tuple(f"{_PREFIX}{kind}" for kind in kinds)
        # Another version of netplan may support more.
        stamps = [networkd.stamp(root, path.lstrip("/")) for path in GENERATORS]
        stamps += [networkd.stamp(root, path) for path in own]
        return plan.digest(*stamps, networkd.digest(root, prefixes, _PREFIX))

    def refuse_devices(self, root: Path, host: Host) -> None:
        """Refuse nothing: netplan creates each device that a payload can need."""

    def check(self, stage: Path, devices: int) -> Step:
        """Have netplan read the files below `stage`, and write networkd's files there.

        The generator is called directly. From 1.1 on `netplan generate` has systemd reload its
        units: netplan's generator then rewrites all of networkd's files on the host itself, and
        networkd reconfigures every link. 1.2 runs a generator that it looks for below `stage`.
        While the host boots, the generator asks systemd to start networkd: SYSTEMD_OFFLINE keeps
        systemctl from doing so (systemd's docs/ENVIRONMENT.md).
        """
        reason = "netplan reads the new files"
        generator = next((path for path in GENERATORS if os.access(path, os.X_OK)), None)
        if generator is None:
            places = ", ".join(GENERATORS)
            raise NotInstalled(f"netplan is not installed: none of {places} is there ({reason})")
        argv = ("env", "SYSTEMD_OFFLINE=1", generator, "--root-dir", str(stage))
        return Step(argv, reason, timeout=60 + devices / 10)

    def whole(self, devices: int) -> Step:
        """Return `netplan apply`, which reconfigures every link."""
        return Step(("netplan", "apply"), "create and configure devices", timeout=120 + devices)

    def activate(self, activation: Activation, log: Log) -> None:
        """Have networkd take up its files that differ, or with `whole` all of them."""
        if NETWORKD_CONF in activation.changed_files:
            reason = "networkd must leave FRR's routes alone, and reads that only at its start"
            commands.run(_restart(reason, activation.size), log)
        devices.delete_unchangeable(activation.target, log)
        if activation.whole:
            devices.delete(activation.removed, log)
            commands.run(self.whole(activation.size), log)
            return
        stale = {difference.device for difference in activation.differences()}
        left_out: set[str] = set()
        if activation.partial is not None:
            left_out = {device.name for device in activation.target.devices} - activation.partial
        changed = sync_networkd(activation.stage, activation.root, stale, left_out)
        paths = activation.changed_files
        if changed or any(path.startswith(f"{_NETWORKD_DROP_INS}/") for path in paths):
            commands.run(_reload(activation.size), log)
        management.wait_for_hook(activation)
        devices.delete(activation.removed, log)

    def remove_notes(self, root: Path) -> None:
        """Do nothing: netplan has no notes."""

    def unchanged_devices(
        self, root: Path, plan: Plan, changes: list[Change], known: Names[str]
    ) -> set[str] | None:
        """Return devices whose drop-in changes, and those without a networkd file."""
        del known
        return _with_drop_ins(changes) | _without_file(root, plan)


def _restart(reason: str, devices: int) -> Step:
    """Have networkd read its own settings, and handle every device as if it were new."""
    argv = ("systemctl", "restart", "systemd-networkd.service")
    return Step(argv, reason, timeout=60 + devices)


def _reload(devices: int) -> Step:
    """Have networkd take up its files that changed."""
    reason = "networkd takes up the changed files"
    return Step(("networkctl", "reload"), reason, timeout=60 + devices)


def _announce_masters(activation: Activation, log: Log) -> None:
    """Have the kernel announce again the bridges and VRFs that still lack ports.

    If a bridge or VRF was deleted by hand and created again, networkd 252 loads it once more at its
    next reload, finds that it exists, and waits for the kernel to announce it. Its ports wait too,
    for ever. The kernel announces a device when its group is set, even to the same group.
    """
    late = {difference.device for difference in activation.differences()}
    links = netlink.links()
    masters = {d.master for d in activation.target.devices if d.name in late and d.master in links}
    folder = Path("/sys/class/net")
    if groups := {
        name: (folder / name / "netdev_group").read_text().strip()
        for name in sorted(name for name in masters if name)
    }:
        lines = "".join(f"link set dev {name} group {group}\n" for name, group in groups.items())
        reason = f"networkd up to 252 waits for an announcement of {', '.join(groups)}"
        argv = ("ip", "-force", "-batch", "-")
        commands.run(Step(argv, reason, input=lines, may_fail=True), log)


def _restart_networkd(activation: Activation, log: Log) -> None:
    """Have networkd handle all devices again.

    On a busy host networkd may not learn within 25 s that a device was created. The device then
    counts as failed until networkd ends, and the device's ports wait for ever (252, 257).
    """
    commands.run(_restart("networkd gave up devices that exist", activation.size), log)


# --- networkd's files ---


def sync_networkd(stage: Path, root: Path, stale: set[str], left_out: set[str]) -> list[str]:
    """Copy the files of networkd that netplan wrote in `stage`, if they differ on the host.

    Returns the names of the files that changed. Devices that are `left_out` keep their files.
    Files of `stale` devices are written even if they are the same: networkd then handles these
    devices again. Raises `ActivationFailed`.

    `netplan generate` on the host itself would write every file, and networkd would reconfigure
    each link whose file is new: FRR's routes over an uplink would be lost.
    """
    source, target = stage / _GENERATED, root / _GENERATED
    target.mkdir(parents=True, exist_ok=True)
    new = {file.name: file.read_bytes() for file in source.glob(f"{_PREFIX}*") if file.is_file()}
    if not new:
        raise ActivationFailed("netplan wrote no files for networkd")
    kept = _file_names(left_out)
    rewritten = _file_names(stale)
    new |= {n: f.read_bytes() for n in rewritten & kept if (f := target / n).exists()}
    changed = []
    for file in target.glob(f"{_PREFIX}*"):
        if file.name not in new and file.name not in kept:
            file.unlink()
            changed.append(file.name)
    for name, content in sorted(new.items()):
        file = target / name
        if name in rewritten or not file.exists() or file.read_bytes() != content:
            files.write(root, _GENERATED / name, content, 0o640)
            with contextlib.suppress(LookupError):
                shutil.chown(file, group="systemd-network")
            changed.append(name)
    return changed


def _file_names(names: Iterable[str]) -> set[str]:
    return {f"{_PREFIX}{name}.{kind}" for name in names for kind in ("netdev", "network")}


def _with_drop_ins(changes: list[Change]) -> set[str]:
    """Return the devices whose networkd drop-in changes."""
    folders = [Path(change.path).parent.name for change in changes]
    return {f.removeprefix(_PREFIX).rsplit(".", 2)[0] for f in folders if f.startswith(_PREFIX)}


def _without_file(root: Path, plan: Plan) -> set[str]:
    """Return the devices for which networkd has no file: somebody has removed it."""
    present = {file.name for file in (root / _GENERATED).glob(f"{_PREFIX}*.network")}
    return {d.name for d in plan.devices if f"{_PREFIX}{d.name}.network" not in present}
