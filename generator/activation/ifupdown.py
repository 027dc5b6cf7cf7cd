"""The backend ifupdown2: its files, its check, its whole and its quick way, and workarounds."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from collections.abc import Set as Names
from pathlib import Path

import msgspec

from generator.activation import commands, devices, management
from generator.activation.backend import Activation, Remedy
from generator.activation.commands import Log, Step
from generator.desired.model import Device, Host
from generator.desired.plan import Plan, body
from generator.errors import Problem, Refused
from generator.observed import interfaces
from generator.observed.interfaces import Stanza
from generator.state import files, stored, tree
from generator.state.changes import Change

FILE = "etc/network/interfaces.d/evpn-host"
# ifupdown2 needs this folder for the names of VRFs' tables and its list, and does not create it.
VRF_TABLES = Path("etc/iproute2/rt_tables.d")
VRF_MAP = VRF_TABLES / "ifupdown2_vrf_map.conf"
# Keywords of a stanza that name its ports.
_PORTS = ("bridge-ports", "bond-slaves", "bond-ports")


# With this policy ifupdown2 does not wait for dhclient, and ends it at once (3.0.0).
_NO_WAIT = '{"dhcp": {"defaults": {"dhcp-wait": "no"}}}'
# Its policies: the distribution's, then the operator's, which win.
_POLICIES = ("var/lib/ifupdown2/policy.d/*.json", "etc/network/ifupdown2/policy.d/*.json")


class _Limits(msgspec.Struct, rename="kebab"):
    """The first and the last table that a VRF may have."""

    vrf_table_id_start: int = 0  # 0, as absent: the default
    vrf_table_id_end: int = 0


class _OfVrfs(msgspec.Struct):
    module_globals: _Limits = msgspec.field(default_factory=_Limits)


class _Dhcp(msgspec.Struct):
    defaults: dict[str, str] = {}


class _Policy(msgspec.Struct):
    """What a policy says about VRFs and DHCP."""

    vrf: _OfVrfs = msgspec.field(default_factory=_OfVrfs)
    dhcp: _Dhcp = msgspec.field(default_factory=_Dhcp)


class Ifupdown:
    """See `backend.Backend`."""

    name = "ifupdown"
    file = FILE
    files = (FILE,)
    drop_ins = ""
    foreign_files = ()
    nic_files = ("etc/network/interfaces", "etc/network/interfaces.d/*")
    folders = (VRF_TABLES,)
    notes = (VRF_MAP,)
    unit = "networking"

    @property
    def remedies(self) -> Sequence[Remedy]:
        return ()

    def is_used(self, root: Path) -> bool:
        """Whether there is /etc/network/interfaces.

        Raises `Refused` if classic ifupdown or ifupdown-ng reads it, or if it leaves our file out.
        """
        if not tree.is_file(root, interfaces.FILE):
            return False
        if root == Path("/"):
            _refuse_other_ifupdown()
        if not interfaces.sources(root, FILE):
            hint = "add: source /etc/network/interfaces.d/*"
            rule = "does not source /etc/network/interfaces.d in a way that ifupdown2 follows"
            raise Refused(Problem("/etc/network/interfaces", "", rule, hint))
        return True

    def locate(self, root: Path, host: Host) -> Host:
        """Return the host as it is: ifupdown2 merges all stanzas of a NIC, from any file."""
        del root
        return host

    def digest(self, root: Path) -> str:
        """Return "": our file does not depend on the operator's files."""
        del root
        return ""

    def conflicts(self, root: Path, host: Host) -> list[Problem]:
        """Return the stanzas that keep a NIC from being an uplink.

        ifupdown2 makes one stanza of all stanzas of a NIC and takes the first one's method
        (`squash` in ifupdown/iface.py, 3.0): after ours it would start no DHCP client.
        """
        uplinks = {uplink.ifname for uplink in host.uplinks}
        found = [
            problem
            for stanza in interfaces.stanzas(root, FILE)
            for problem in _conflicts(stanza, uplinks)
        ]
        return [*found, *(_unreadable() if root == Path("/") else ())]

    def lease(self, root: Path, host: Host) -> str | None:
        """Return the policy that keeps ifupdown2 from waiting (addons/dhcp.py, 3.0)."""
        nic = host.management.ifname if host.management else ""
        asking = [s for s in interfaces.stanzas(root, FILE) if nic in s.names]
        if not asking or asking[0].method != "dhcp":
            return None
        words = [p.dhcp.defaults.get("dhcp-wait", "") for p in _policies(root)]
        if [word.lower() for word in words if word][-1:] == ["no"]:
            return ""
        return (
            f"write {_NO_WAIT} into /etc/network/ifupdown2/policy.d/dhcp.json,"
            " and what else the lease gives, such as DNS servers, into a file of yours:"
            " ifupdown2 then ends dhclient at once"
        )

    def refuse_devices(self, root: Path, host: Host) -> None:
        """Raise `Refused` for a VRF whose table is outside of the range that ifupdown2 allows.

        `ifup` would fail when it creates the VRF (`_create_vrf_dev` in addons/vrf.py, 3.0).
        """
        first, last = _vrf_tables(root)
        rule = f"is not in {first}–{last}, which ifupdown2 allows"
        hint = "vrf-table-id-end in /etc/network/ifupdown2/policy.d allows more"
        problems = [
            Problem(f"VPC {vrf.id}", f"VRF table {vrf.table}", rule, hint)
            for vrf in host.vrfs
            if not first <= vrf.table <= last
        ]
        if problems:
            raise Refused(*problems)

    def check(self, stage: Path, devices: int) -> Step:
        """Have ifupdown2 read the file below `stage`."""
        argv = ("ifquery", "--list", "-a", "-i", str(stage / FILE))
        return Step(argv, "ifupdown2 reads the new file", timeout=60 + devices)

    def whole(self, devices: int) -> Step:
        """Return `ifreload -a`, which brings up and down everything in its files."""
        return Step(("ifreload", "-a"), "create and configure devices", timeout=120 + devices)

    def activate(self, activation: Activation, log: Log) -> None:
        """Bring up the devices that differ, or with `whole` have ifupdown2 reload everything."""
        for folder in self.folders:  # without it ifupdown2 fails to name a VRF's table
            files.make_folder(activation.root, folder)
        devices.delete_unchangeable(activation.target, log)
        if activation.whole or devices.SYSCTL in activation.changed_files:
            # Some settings must be set before the devices exist.
            commands.run(devices.sysctl(activation.root), log)
        # Without the kernel's rule for VRFs (after uninstall) ifupdown2 adds two of its own for
        # each VRF, and never removes them.
        devices.order_rules(activation.target, log)
        if activation.whole or activation.partial is None:
            self._reload_all(activation, log)
        else:
            differing = {difference.device for difference in activation.differences()}
            names = activation.partial | differing
            if ordered := _lower_first(activation.target.devices, names):
                commands.run(_ifup(ordered, "create and configure what changed"), log)
        management.wait_for_hook(activation)
        devices.delete(activation.removed, log)

    def _reload_all(self, activation: Activation, log: Log) -> None:
        if carriers := management.carriers(activation):
            # ifreload first removes devices, even a bridge with the management address. So the
            # bridge to which the address will move has to exist before.
            reason = f"the management address has to leave {', '.join(carriers)}"
            commands.run(_ifup(management.successors(activation), reason), log)
            management.wait_for_hook(activation)
        commands.run(self.whole(activation.size), log)

    def remove_notes(self, root: Path) -> None:
        """Remove the list of VRFs, unless it names one that exists."""
        lines = files.read(root, VRF_MAP).splitlines()
        names = [line.split()[-1] for line in lines if line.strip() and line[0] != "#"]
        if not any((root / "sys/class/net" / name).exists() for name in names):
            files.remove(root, VRF_MAP)

    def unchanged_devices(
        self, root: Path, plan: Plan, changes: list[Change], known: Names[str]
    ) -> set[str] | None:
        """Return no device, or None if the file also changes for the loopback or a NIC."""
        del root, plan
        for change in changes:
            if change.path == FILE:
                old, new = (
                    _stanzas_besides(text or "", known) for text in (change.old, change.new)
                )
                return set() if old == new else None
        return set()


def _unreadable() -> Iterator[Problem]:
    """Yield lines of the operator's files that ifupdown2 can't read.

    It ignores them, but `ifreload` and `ifup` then end with 1, even if our devices are as planned.
    `ifquery` prints the same errors, and ends with 0.
    """
    argv = ("ifquery", "--list", "-a")
    try:
        done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return  # the check of our own files runs ifquery too, and names the failure
    for line in done.stderr.decode(errors="replace").splitlines():
        if line.startswith("error: /") and f"/{FILE}:" not in line:
            place, _, rule = line.removeprefix("error: ").partition(": ")
            yield Problem(place, "", rule, "ifupdown2 can't read this line: remove it")


def _conflicts(stanza: Stanza, uplinks: Names[str]) -> Iterator[Problem]:
    """Yield why a stanza and our settings for an uplink can't both take effect."""
    own = ", ".join(sorted(stanza.names & uplinks))
    if own and stanza.method == "dhcp" and stanza.behind_ours:
        rule = "comes after our part of it, and ifupdown2 would start no DHCP client"
        hint = "put it above the line that sources /etc/network/interfaces.d"
        yield Problem(stanza.place, "", rule, hint)
    for keyword in _PORTS:
        words = stanza.settings.get(keyword, [])
        named = {name for word in words for name in interfaces.names(word)}
        if ports := ", ".join(sorted(uplinks & named)):
            hint = f"take {ports} out of it"
            if keyword.startswith("bond"):
                hint += f", or name {stanza.line.split()[1]} in the payload"
            yield Problem(stanza.place, "", f"has the uplink {ports} as a port", hint)
    if own and stanza.settings.get("bridge-ports"):
        rule = f"makes the uplink {own} a bridge, whose guests would be in the underlay"
        hint = "take the NIC out of the bridge, and name it in the payload"
        yield Problem(stanza.place, "", rule, hint)
    if own and (vrf := stanza.settings.get("vrf")):
        rule = f"makes the uplink {own} a part of {vrf[0]}"
        yield Problem(stanza.place, "", rule, f"take {own} out of it")


def _vrf_tables(root: Path) -> tuple[int, int]:
    """Return the first and the last table that ifupdown2's policies allow for a VRF."""
    first, last = 1001, 5000
    for policy in _policies(root):
        limits = policy.vrf.module_globals
        first = limits.vrf_table_id_start or first
        last = limits.vrf_table_id_end or last
    return first, last


def _policies(root: Path) -> Iterator[_Policy]:
    """Yield the policies; a later one wins."""
    for path in (path for pattern in _POLICIES for path in tree.find(root, pattern)):
        with contextlib.suppress(OSError, msgspec.DecodeError):  # ifupdown2 skips it too
            yield stored.read(root, path, _Policy)


def _ifup(names: list[str], reason: str) -> Step:
    """Bring up these devices, in this order."""
    return Step(("ifup", *names), reason, timeout=120 + len(names))


def _lower_first(devices: list[Device], names: Names[str]) -> list[str]:
    """Return the names of these devices and of their bridges, each after the devices it needs."""
    order = {"vrf": 0, "vxlan": 1, "bridge": 2}
    names = names | {d.master or "" for d in devices if d.kind == "vxlan" and d.name in names}
    keyed = [(order[device.kind], device.name) for device in devices if device.name in names]
    return [name for _, name in sorted(keyed)]


def _stanzas_besides(text: str, names: Names[str]) -> list[str]:
    """Return the stanzas of devices other than these."""
    stanzas = body(text).split("\n\n")
    return [s for s in stanzas if not names & {_iface(line) for line in s.splitlines()}]


def _iface(line: str) -> str:
    return line.removeprefix("iface ").split(" ")[0] if line.startswith("iface ") else ""


def _refuse_other_ifupdown() -> None:
    """Raise `Refused` if /etc/network/interfaces belongs to another program than ifupdown2."""
    if shutil.which("ifreload"):
        return
    ifup = shutil.which("ifup")
    if not ifup:
        raise Refused("ifupdown2 is not installed")
    version = subprocess.run(
        [ifup, "--version"], capture_output=True, text=True, timeout=10, check=False
    ).stdout
    which = "ifupdown-ng" if "ifupdown-ng" in version else "classic ifupdown"
    raise Refused(
        Problem("", "", f"this host uses {which}, which knows no VRFs", "install ifupdown2")
    )
