"""The pages, the commands that they show, and where each command can run.

A fenced block of the language `sh` holds commands. Those that act on a host run in the lab
(tests/lab/test_docs_on_a_host.py), all others in a copy of the repository (tests/test_docs.py). The
blocks of one section need each other: they run one after the other
(tests/lab/test_review_on_a_host.py).
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).parents[1]
_READMES = [REPO / "README.md", REPO / "lab/README.md", REPO / "templates/README.md"]
PAGES = [*_READMES, *sorted(REPO.glob("docs/*.md"))]

# Commands that no test runs as a page shows them, and why, or which test does the same.
NOT_RUN = {
    "sudo lab/demo": "tests/lab/test_docs_on_a_host.py::test_demo runs it without sudo",
    "sudo lab/shell": "tests/lab/test_shell.py runs it without sudo",
    "lab/shell": "the same",
    "sudo tests/run": "would run itself",
    "tests/run": "the same",
    "packaging/build-deb": "tests/debs.py runs it, for tests/test_package.py",
    "packaging/build-zipapp": "the same",
    "curl -fsS": "tests/lab/test_on_and_off.py has the script from a pipe",
    "curl -fsSo install.sh": "tests/test_install_script.py has the script from a file",
    "pipx install .": "tests/test_structure.py::test_wheel builds and installs the wheel",
    "virsh net-start nbr-26": "libvirt's test driver forgets the network when virsh ends;"
    " tests/test_guests.py::test_libvirt_takes_it does it in one session",
    "virsh net-autostart nbr-26": "the same",
    "evpn-host guests --format nad | kubectl": "there is no cluster here;"
    " tests/test_guests.py::test_nad judges what kubectl gets, and"
    " tests/lab/test_guest_ports.py uses it",
    "evpn-host guests --format podman": "tests/test_platforms.py has Podman use it",
    "evpn-host guests --format qemu": "tests/test_platforms.py has QEMU use it",
    "evpn-host guests --format nspawn": "tests/test_platforms.py has nspawn use it",
    "evpn-host guests --format lxc": "tests/test_platforms.py has LXC use it",
    "iptables": "tests/lab/test_emulated.py::test_a_firewall_drops_what_is_forwarded runs it",
    "ip6tables": "the same",
    "evpn-host guests --format incus | incus": "tests/test_guests.py::test_incus_takes_it does it",
}

# The page and the section whose blocks run one after the other.
TOUR = ("docs/review.md", "From an empty folder to a host")

# Programs and verbs that act on the machine on which they run.
_PROGRAMS = {"systemctl", "journalctl", "ip", "bridge", "vtysh", "netplan", "ifreload", "virsh"}
_VERBS = {"apply", "diff", "failover", "install-units", "rollback", "status", "trace", "uninstall"}


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str  # path below the repository
    section: str  # the heading above it
    line: int
    language: str  # "" when the page does not say
    text: str


def blocks() -> Iterator[Block]:
    """Yield every fenced block of every page; code of another form, which no test sees, fails."""
    for page in PAGES:
        content: list[str] | None = None
        indent, language, start, section = "", "", 0, ""
        lines = page.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            fence = re.match(r"^(\s*)```(.*)$", line)
            if fence and content is None:
                (indent, language), content, start = fence.groups(), [], number
            elif fence and content is not None:
                name = str(page.relative_to(REPO))
                yield Block(name, section, start, language.strip(), "\n".join(content) + "\n")
                content = None
            elif content is not None:
                content.append(line.removeprefix(indent))
            else:
                section = line.lstrip("# ") if line.startswith("#") else section
                assert not re.match(r"\s*~~~", line), f"{page}:{number}: a fence of tildes"
                assert not _indented(lines[:number]), f"{page}:{number}: code without a fence"
        assert content is None, f"{page}: a block does not end"


def _indented(lines: list[str]) -> bool:
    """Return whether indentation makes the last line code, and not a part of a list."""
    *before, last = lines
    if not last.startswith(("    ", "\t")) or not before or before[-1].strip():
        return False
    outer = next((line for line in reversed(before) if re.match(r"\S", line)), "")
    return not re.match(r"([-*+]|\d+\.) ", outer)


def commands(block: Block) -> list[str]:
    """Return the commands of a block, one string each, without comments and here-documents."""
    text = re.sub(r"(<<'(\w+)')\n.*?^\2$", r"\1", block.text, flags=re.MULTILINE | re.DOTALL)
    joined = text.replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [" ".join(line.split()) for line in lines if line]


def not_run(command: str) -> bool:
    """Return whether a command is one of NOT_RUN."""
    return any(command == known or command.startswith(f"{known} ") for known in NOT_RUN)


def acts_on_host(command: str) -> bool:
    """Return whether a command acts on the machine on which it runs."""
    words = shlex.split(command)
    if words[0] == "evpn-host" and "--root" not in words:
        return words[1] in _VERBS or (words[1] == "guests" and "-p" not in words)
    return words[0] in _PROGRAMS


def in_the_lab(block: Block) -> bool:
    """Return whether a block needs a host."""
    return any(acts_on_host(command) for command in commands(block) if not not_run(command))


def shown() -> list[Block]:
    """Return every block of commands that has commands which a test runs."""
    return [
        block
        for block in blocks()
        if block.language == "sh"
        and not all(map(not_run, commands(block)))
        and (block.page, block.section) != TOUR
    ]


def tour() -> list[Block]:
    """Return the blocks of TOUR, those with output too."""
    return [block for block in blocks() if (block.page, block.section) == TOUR]
