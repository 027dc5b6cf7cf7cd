"""The kernel's settings are compared with our file of sysctl.d, and with later files."""

from pathlib import Path

import pytest

from generator.observed import settings
from generator.observed.netlink import Link

OURS = """\
# Written by evpn-host; edits are lost.
net/ipv4/ip_forward = 1
net/ipv4/conf/nbr-*/rp_filter = 2
net/ipv4/conf/nbr-7/rp_filter = 0
net/ipv6/conf/nbr-26/disable_ipv6 = 0
net/ipv6/conf/ens4.100/accept_ra = 0
net/ipv4/a_key_that_no_kernel_has = 1
"""
KERNEL = {
    "net/ipv4/ip_forward": "1\n",
    "net/ipv4/conf/nbr-26/rp_filter": "2",
    "net/ipv4/conf/nbr-7/rp_filter": "0",
    "net/ipv4/conf/other/rp_filter": "1",
    "net/ipv6/conf/nbr-26/disable_ipv6": "0",
    "net/ipv6/conf/ens4.100/accept_ra": "0",
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a root folder with our file, and with a kernel that has its settings."""
    write(tmp_path, settings.FILE, OURS)
    for key, value in KERNEL.items():
        write(tmp_path, f"proc/sys/{key}", value)
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def differing(root: Path) -> list[str]:
    """Return the differences, on a kernel that does not report the settings of devices."""
    links = {name: Link(0, name, True, 1500, "", 0, "") for name in ("nbr-7", "nbr-26", "other")}
    return [str(each) for each in settings.differences(root, links)]


def test_a_host_with_the_settings_of_its_file_has_no_difference(host: Path) -> None:
    """A key that the kernel does not have is no difference, nor is a device of somebody else."""
    assert differing(host) == []


@pytest.mark.parametrize("key", sorted(KERNEL.keys() - {"net/ipv4/conf/other/rp_filter"}))
def test_each_key_is_compared(host: Path, key: str) -> None:
    write(host, f"proc/sys/{key}", "9\n")
    [text] = differing(host)
    assert text.startswith(f"{key}: is 9, not ")


def test_without_our_file_nothing_is_compared(tmp_path: Path) -> None:
    assert differing(tmp_path) == []
    assert settings.later(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("etc/sysctl.d/99-cis.conf", "net.ipv4.ip_forward=0", "net/ipv4/ip_forward to 0"),
        ("etc/sysctl.d/99-cis.conf", "-net/ipv4/ip_forward = 0", "net/ipv4/ip_forward to 0"),
        ("run/sysctl.d/91-a.conf", "net.ipv4.ip_forward = 0", "net/ipv4/ip_forward to 0"),
        ("usr/lib/sysctl.d/zz.conf", "net.ipv4.ip_forward = 0", "net/ipv4/ip_forward to 0"),
        ("etc/sysctl.conf", "net.ipv4.ip_forward = 0", "net/ipv4/ip_forward to 0"),
        (
            "etc/sysctl.d/99-a.conf",
            "net.ipv4.conf.all.forwarding = 0",
            "net/ipv4/conf/all/forwarding to 0",
        ),
        (
            "etc/sysctl.d/99-a.conf",
            "net.ipv6.conf.all.disable_ipv6 = 1",
            "net/ipv6/conf/all/disable_ipv6 to 1",
        ),
        (
            "etc/sysctl.d/99-a.conf",
            "net.ipv4.conf.*.rp_filter = 1",
            "net/ipv4/conf/*/rp_filter to 1",
        ),
        (
            "etc/sysctl.d/99-a.conf",
            "net.ipv6.conf.ens4/100.accept_ra = 2",
            "net/ipv6/conf/ens4.100/accept_ra to 2",
        ),
    ],
)
def test_a_later_file_is_named(host: Path, path: str, text: str, message: str) -> None:
    write(host, path, f"# {text}\n{text}\n")
    [line] = map(str, settings.later(host))
    assert line.startswith(f"/{path} sets {message} ")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/sysctl.d/10-earlier.conf", "net.ipv4.ip_forward = 0"),
        ("etc/sysctl.d/99-same.conf", "net.ipv4.ip_forward = 1"),
        ("etc/sysctl.d/99-other.conf", "net.ipv4.ip_forward_use_pmtu = 0"),
        ("etc/sysctl.d/99-comment.conf", "; net.ipv4.ip_forward = 0"),
        ("etc/sysctl.d/99-backup.conf.bak", "net.ipv4.ip_forward = 0"),
        # A pattern spares a key that another file names (sysctl.d(5)).
        ("etc/sysctl.d/99-pattern.conf", "net.ipv6.conf.*.disable_ipv6 = 1"),
    ],
)
def test_other_files_are_not_named(host: Path, path: str, text: str) -> None:
    write(host, path, f"{text}\n")
    assert settings.later(host) == []


def test_of_two_later_files_the_last_counts(host: Path) -> None:
    write(host, "etc/sysctl.d/95-off.conf", "net.ipv4.ip_forward = 0\n")
    write(host, "etc/sysctl.d/96-on.conf", "net.ipv4.ip_forward = 1\n")
    assert settings.later(host) == []


def test_a_file_hides_its_namesakes(host: Path) -> None:
    """A file hides others of its name: a link to /dev/null disables the distribution's."""
    write(host, "usr/lib/sysctl.d/99-a.conf", "net.ipv4.ip_forward = 0\n")
    write(host, "etc/sysctl.d/99-a.conf", "")
    assert settings.later(host) == []


def test_before_our_file_is_there_its_text_counts(tmp_path: Path) -> None:
    """Before our file exists its future text counts, as for preflight."""
    write(tmp_path, "etc/sysctl.d/99-cis.conf", "net.ipv4.ip_forward = 0\n")
    [line] = settings.later(tmp_path, OURS)
    assert (line.path, line.expected) == ("etc/sysctl.d/99-cis.conf", "1")
