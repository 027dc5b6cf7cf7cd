"""Finds where our settings of a NIC belong on a host with networkd, and NICs that can't be uplinks.

networkd applies one file to a NIC. If that is the operator's file, a file of ours would have no
effect, or would remove the operator's addresses. So our settings are a drop-in for the file that
networkd applies without us. Only a NIC without a file gets a section in our netplan file.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from generator.desired import model
from generator.desired.model import Host, Lease, Uplink
from generator.errors import Problem
from generator.observed import netplan, networkd
from generator.observed.netplan import NETWORK_MANAGER, PREFIX, Section
from generator.observed.networkd import NetworkFile, Nic

# Settings with which networkd makes a NIC a part of another device.
_MASTERS = ("Network.Bridge", "Network.Bond", "Network.VRF", "Network.BatmanAdvanced")


_NO_DHCP = {"", "no", "false", "off", "n", "0", "none"}
_PLAIN_ID = re.compile(r"[\w.:@~-]+")


class Configuration(msgspec.Struct, frozen=True):
    """The configuration of a host's NICs without ours."""

    files: list[NetworkFile]  # sorted as networkd sorts them
    sections: list[Section]
    nics: dict[str, Nic]

    def nic(self, name: str) -> Nic:
        """Return a device; only its name, if it does not exist or belongs to another root."""
        return self.nics.get(name) or Nic(name=name, is_known=False)

    def file(self, name: str) -> NetworkFile | None:
        """Return the file that networkd applies to a device, None if there is none."""
        return networkd.first(self.files, self.nic(name))

    def section(self, file: NetworkFile) -> Section | None:
        """Return the section for which netplan writes a file, None if it is not netplan's."""
        return next((each for each in self.sections if each.place == file.place), None)


def read(root: Path, ours: str, host: Host) -> Configuration:
    """Read the configuration of a host's NICs; `ours` is the path of our own netplan file."""
    sections, _ = netplan.sections(root, ours)
    by_name = {
        each.file_name: each.network_file(root)
        for each in sections
        if each.renderer == netplan.NETWORKD
    }
    own = networkd.read_files(root, PREFIX)
    by_name |= {each.name: each for each in own if _hides(each, by_name)}
    files = [by_name[name] for name in sorted(by_name)]
    own_devices = {device.name for device in model.devices(host)}
    return Configuration(files, sections, networkd.nics(root, own_devices))


def _hides(file: NetworkFile, generated: dict[str, NetworkFile]) -> bool:
    """Whether networkd reads a file although netplan may write one of this name in /run."""
    return file.name not in generated or file.place.startswith("/etc/")


def locate(host: Host, configuration: Configuration) -> Host:
    """Return the host with the files that configure its NICs."""
    foreign: dict[str, str] = {}
    for name in ("lo", *(uplink.ifname for uplink in host.uplinks)):
        file = configuration.file(name)
        if file is None:
            continue
        section = configuration.section(file)
        if section is None or (section.kind, section.id) != ("ethernets", name):
            foreign[name] = file.name
    return msgspec.structs.replace(host, foreign_files=foreign, lease=_lease(host, configuration))


def _lease(host: Host, configuration: Configuration) -> Lease | None:
    """Return where the management NIC's DHCP is set, None if it is not."""
    nic = host.management.ifname if host.management else ""
    file = configuration.file(nic)
    if file is None or all(nic != uplink.ifname for uplink in host.uplinks):
        return None
    if file.settings.get("Network.DHCP", "no").lower() in _NO_DHCP:
        return None
    section = configuration.section(file)
    if section is None or not _PLAIN_ID.fullmatch(section.id):
        return Lease()
    return Lease(section.kind, section.id)


def problems(host: Host, configuration: Configuration) -> Iterator[Problem]:
    """Yield why a host's NICs can't be uplinks as they are."""
    for uplink in host.uplinks:
        yield from _of_nic(uplink.ifname, configuration)
    yield from _shared(host, configuration)
    yield from _preempted(host, configuration)


def _of_nic(name: str, configuration: Configuration) -> Iterator[Problem]:
    nic = configuration.nic(name)
    for other in configuration.nics.values():
        if name in other.altnames:
            rule = f"is an alternative name of {other.name}"
            yield Problem("links", name, rule, f"write {other.name} in the payload")
            return
    file = configuration.file(name)
    section = configuration.section(file) if file else None
    ids = {name, section.id} if section else {name}
    for each in configuration.sections:
        if each.renderer == NETWORK_MANAGER and each.fits(nic):
            rule = f"is the uplink {name}, which NetworkManager configures"
            yield Problem(each.place, "", rule, "write renderer: networkd there")
        if ids & set(each.ports):
            rule = f"has the uplink {name} as a port"
            yield Problem(each.place, "", rule, f"take {name} out of it{_instead(each)}")
    if nic.kind == "bridge" or (section and section.kind == "bridges"):
        rule = f"makes the uplink {name} a bridge, whose guests would be in the underlay"
        hint = "take the NIC out of the bridge, and name it in the payload"
        yield Problem(section.place if section else name, "", rule, hint)
    if file:
        yield from _settings(name, file)


def _settings(name: str, file: NetworkFile) -> Iterator[Problem]:
    for key in _MASTERS:
        if master := file.settings.get(key):
            rule = f"makes the uplink {name} a part of {master}"
            yield Problem(file.place, f"{key.partition('.')[2]}={master}", rule, "take it out")
    if file.settings.get("Link.Unmanaged", "").lower() in {"yes", "true", "1", "on"}:
        rule = f"keeps networkd from the uplink {name}"
        yield Problem(file.place, "Unmanaged=yes", rule, "take it out")


def _instead(section: Section) -> str:
    return f", or name {section.id} in the payload" if section.kind == "bonds" else ""


def _shared(host: Host, configuration: Configuration) -> Iterator[Problem]:
    """Yield files that match an uplink and another device, which would get the same settings."""
    uplinks = {uplink.ifname: uplink for uplink in host.uplinks}
    for name in ("lo", *uplinks):
        file = configuration.file(name)
        if file is None:
            continue
        fitting = [each for each, nic in configuration.nics.items() if file.fits(nic)]
        others = [each for each in fitting if each != name and each not in uplinks]
        rest = [each for each in others if configuration.file(each) == file]
        same = [uplinks[each] for each in uplinks if configuration.file(each) == file]
        if rest or (name == "lo" and same) or _differ(same):
            names = ", ".join(sorted({*rest, *(each.ifname for each in same)} - {name}))
            rule = f"matches {name} and also {names}, which would get what {name} needs"
            yield Problem(file.place, "", rule, _own_file(name, file))


def _differ(uplinks: Sequence[Uplink]) -> bool:
    """Whether these uplinks need different settings."""
    numbered = any(uplink.address for uplink in uplinks)
    return len(uplinks) > 1 and (numbered or len({uplink.mtu for uplink in uplinks}) > 1)


def _own_file(name: str, file: NetworkFile) -> str:
    """Return how a NIC gets a file of its own."""
    if file.name.startswith(PREFIX):
        id_ = file.name.removeprefix(PREFIX).removesuffix(".network")
        earlier = next((f"{first}-{name}" for first in "a0" if f"{first}-{name}" < id_), "")
        example = f", such as {earlier}: {{match: {{name: {name}}}, …}}" if earlier else ""
        return f"give {name} a section of its own, whose id comes before {id_}{example}"
    return f"give {name} a file of its own, whose name comes before {file.name}"


def _preempted(host: Host, configuration: Configuration) -> Iterator[Problem]:
    """Yield files that networkd would apply to a device of ours, instead of netplan's."""
    for device in model.devices(host):
        kind = device.kind
        nic = Nic(name=device.name, type=kind, kind=kind, driver=kind, mac=device.mac or "")
        own = f"{PREFIX}{device.name}.network"
        earlier = (file for file in configuration.files if file.name < own)
        if file := networkd.first(earlier, nic):
            rule = f"matches {device.name} too, a device of evpn-host"
            yield Problem(file.place, "", rule, "have its match name the NICs that it is for")
            return  # one problem is enough
