"""Compares the kernel's settings with our sysctl.d file, and finds files that override it."""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from generator.observed import netlink
from generator.observed.netlink import Link
from generator.state import changes, tree

FILE = "etc/sysctl.d/90-evpn-host.conf"
# A file hides files of the same name in the folders after it (sysctl.d(5), sysctl(8)).
_FOLDERS = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
_LAST = "etc/sysctl.conf"  # `sysctl --system` reads it after all others; systemd does not read it
# IPV4_DEVCONF_… less 1 (linux/ip.h), DEVCONF_… (linux/ipv6.h). Others are read below /proc/sys.
_NUMBERS = {
    ("ipv4", "forwarding"): 0,
    ("ipv4", "rp_filter"): 7,
    ("ipv4", "arp_ignore"): 18,
    ("ipv6", "forwarding"): 0,
    ("ipv6", "accept_ra"): 3,
    ("ipv6", "disable_ipv6"): 26,
    ("ipv6", "accept_dad"): 27,
    ("ipv6", "keep_addr_on_down"): 42,
}
# The kernel sets the second with the first (net/ipv4/devinet.c).
_SAME = {"net/ipv4/conf/all/forwarding": "net/ipv4/ip_forward"}
# The kernel sets these on every device with `all` (net/ipv6/addrconf.c).
_FOR_ALL = {f"net/ipv6/conf/all/{name}": name for name in ("disable_ipv6", "forwarding")}


class Setting(msgspec.Struct, frozen=True):
    """A setting of the kernel that is not as our file says."""

    key: str  # path below /proc/sys
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.key}: is {self.value}, not {self.expected}"


class Later(msgspec.Struct, frozen=True):
    """A line of a file that is read after ours, and sets another value."""

    path: str
    key: str
    value: str
    expected: str

    @property
    def when(self) -> str:
        """When it is read."""
        return "whenever `sysctl --system` runs" if self.path == _LAST else "at each boot"

    def __str__(self) -> str:
        return f"/{self.path} sets {self.key} to {self.value} {self.when}, ours to {self.expected}"


def differences(root: Path, links: Mapping[str, Link]) -> list[Setting]:
    """Return the settings that differ; one that this kernel does not have is no difference."""
    text = changes.read(root, FILE)
    if text is None:
        return []
    of_devices = _OfDevices(links)
    listed = []
    for key, expected in _expanded(text, links).items():
        value = of_devices.read(key) or _read(root, key)
        if value is not None and value != expected:
            listed.append(Setting(key, value, expected))
    return listed


class _OfDevices:
    """The settings of devices that the kernel sends together with the devices."""

    def __init__(self, links: Mapping[str, Link]) -> None:
        self._links = links
        self._known: dict[str, dict[str, Sequence[int]]] = {}

    def read(self, key: str) -> str | None:
        """Return a setting's value, None if it is not known."""
        match key.split("/"):
            case ("net", family, "conf", device, name) if device in self._links:
                number = _NUMBERS.get((family, name))
                if device not in self._known:
                    self._known[device] = netlink.settings_of(self._links[device])
                values = self._known[device].get(family, ())
                if number is not None and number < len(values):
                    return str(values[number])
        return None


def _read(root: Path, key: str) -> str | None:
    try:
        return " ".join((root / "proc/sys" / key).read_bytes().decode().split())
    except (OSError, UnicodeDecodeError):
        return None


def _expanded(text: str, devices: Iterable[str]) -> dict[str, str]:
    """Return each setting of a file; a pattern stands for every device that it matches."""
    names = list(devices)
    exact: dict[str, str] = {}
    patterns: dict[str, str] = {}
    for key, value in _lines(text):
        if "*" not in key:
            exact[key] = value
            continue
        before, pattern, after = _parts(key)
        patterns |= {f"{before}{n}{after}": value for n in fnmatch.filter(names, pattern)}
    return patterns | exact  # a line for one device counts more (sysctl.d(5))


def _parts(key: str) -> tuple[str, str, str]:
    """Return the text before the part that is a pattern, that part, and the text after it."""
    parts = key.split("/")
    number = next(n for n, part in enumerate(parts) if "*" in part)
    before, after = parts[:number], parts[number + 1 :]
    return "".join(f"{p}/" for p in before), parts[number], "".join(f"/{p}" for p in after)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield the settings of a file: path below /proc/sys and value."""
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";")):
            yield _path(key.strip().removeprefix("-")), " ".join(value.split())


def _path(key: str) -> str:
    """Return the path of a key. The first `.` or `/` in it is the separator (sysctl.d(5))."""
    first = next((c for c in key if c in "./"), "/")
    return key if first == "/" else key.translate(str.maketrans("./", "/."))


def later(root: Path, text: str | None = None) -> list[Later]:
    """Return lines of files that are read after ours, and set another value for our settings.

    `text` is the new text of our file, if it is not written yet.
    """
    ours = dict(_lines(text or changes.read(root, FILE) or ""))
    overriding: dict[str, Later] = {}
    for path in _files_after_ours(root):
        for key, value in _lines(_text(root, path)):
            for our_key, expected in ours.items():
                if not _sets(key, our_key):
                    continue
                overriding.pop(our_key, None)  # the last line counts
                if value != expected:
                    overriding[our_key] = Later(path, key, value, expected)
    return list({(each.path, each.key): each for each in overriding.values()}.values())


def _sets(key: str, ours: str) -> bool:
    """Whether a line for `key` sets a setting of ours. A pattern does not, if ours is exact."""
    if "*" in key and "*" not in ours:
        return False
    if _SAME.get(key, key) == ours or fnmatch.fnmatchcase(ours, key):
        return True
    setting = _FOR_ALL.get(key)
    return setting is not None and ours.startswith("net/ipv6/") and ours.endswith(f"/{setting}")


def _files_after_ours(root: Path) -> list[str]:
    by_name: dict[str, str] = {}
    for folder in _FOLDERS:
        for path in tree.find(root, f"{folder}/sysctl.d/*.conf"):
            by_name.setdefault(path.rpartition("/")[2], path)
    own = FILE.rpartition("/")[2]
    paths = [by_name[name] for name in sorted(by_name) if name > own]
    return [*paths, _LAST] if "99-sysctl.conf" not in by_name else paths


def _text(root: Path, path: str) -> str:
    """Return a file's text, "" if it is no regular file, such as a link to /dev/null."""
    try:
        return tree.read(root, path).decode(errors="replace")
    except OSError:
        return ""
