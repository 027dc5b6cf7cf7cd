"""The pages, the commands that they show, and where each of these can be run.

A fenced block of the language `sh` is commands. Those that act on a host are run in the lab
(tests/lab/test_docs_on_a_host.py), all others in a copy of the repository (tests/test_docs.py).
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).parents[1]
_READMES = [REPO / "README.md", REPO / "lab/README.md", REPO / "templates/README.md"]
PAGES = [*_READMES, *sorted(REPO.glob("docs/*.md"))]

# What no test runs as it stands there. Where another test does the same, it is named.
NOT_RUN = {
    "sudo lab/demo": "tests/lab/test_docs_on_a_host.py::test_demo runs it without sudo",
    "sudo lab/shell": "tests/lab/test_shell.py runs it without sudo",
    "lab/shell": "the same",
    "sudo tests/run": "would run the test that runs it",
    "tests/run": "the same",
    "packaging/build-deb": "tests/debs.py runs it, for tests/test_package.py",
    "packaging/build-zipapp": "the same",
    "curl -fsS": "tests/lab/test_on_and_off.py has the script from a pipe",
    "pipx install .": "tests/test_structure.py::test_wheel builds and installs the wheel",
    "virsh net-start nbr-26": "libvirt's stand-in forgets; in one session"
    " tests/test_guests.py::test_libvirt_takes_it does it",
    "virsh net-autostart nbr-26": "the same",
    "evpn-host guests --format nad | kubectl": "no cluster here; what kubectl is given is judged by"
    " tests/test_guests.py::test_nad, and run by tests/lab/test_guest_ports.py",
    "iptables": "tests/lab/test_emulated.py::test_a_firewall_drops_what_is_forwarded runs it",
    "ip6tables": "the same",
    "nft": "tests/lab/test_emulated.py::test_bgp_and_bfd_are_closed_to_guests runs it",
    "evpn-host guests --format incus | incus": "tests/test_guests.py::test_incus_takes_it does it",
}

# Programs and verbs that act on the machine they are run on.
_OF_A_HOST = {"systemctl", "journalctl", "ip", "bridge", "vtysh", "netplan", "ifreload", "virsh"}
_VERBS_OF_A_HOST = {"apply", "diff", "failover", "install-units", "rollback", "status", "uninstall"}


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str  # path below the repository
    line: int
    language: str  # "" when the page does not say
    text: str


def blocks() -> Iterator[Block]:
    """Every fenced block of every page; code of another form, which no test would see, fails."""
    for page in PAGES:
        found: list[str] | None = None
        indent, language, begun = "", "", 0
        lines = page.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            fence = re.match(r"^(\s*)```(.*)$", line)
            if fence and found is None:
                (indent, language), found, begun = fence.groups(), [], number
            elif fence and found is not None:
                name = str(page.relative_to(REPO))
                yield Block(name, begun, language.strip(), "\n".join(found) + "\n")
                found = None
            elif found is not None:
                found.append(line.removeprefix(indent))
            else:
                assert not re.match(r"\s*~~~", line), f"{page}:{number}: a fence of tildes"
                assert not _indented(lines[:number]), f"{page}:{number}: code without a fence"
        assert found is None, f"{page}: a block does not end"


def _indented(lines: list[str]) -> bool:
    """Whether the last line is code because it is indented, and not part of a list."""
    *before, last = lines
    if not last.startswith(("    ", "\t")) or not before or before[-1].strip():
        return False
    outer = next((line for line in reversed(before) if re.match(r"\S", line)), "")
    return not re.match(r"([-*+]|\d+\.) ", outer)


def commands(block: Block) -> list[str]:
    """The commands of a block, one string each, without comments."""
    joined = block.text.replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [" ".join(line.split()) for line in lines if line]


def not_run(command: str) -> bool:
    """Whether a command is one of those that no test runs as it stands there."""
    return any(command == known or command.startswith(f"{known} ") for known in NOT_RUN)


def of_a_host(command: str) -> bool:
    """Whether a command acts on the machine that it is run on."""
    words = shlex.split(command)
    if words[0] == "evpn-host" and "--root" not in words:
        return words[1] in _VERBS_OF_A_HOST or (words[1] == "guests" and "-p" not in words)
    return words[0] in _OF_A_HOST


def in_the_lab(block: Block) -> bool:
    """Whether a block needs a host."""
    return any(of_a_host(command) for command in commands(block) if not not_run(command))


def shown() -> list[Block]:
    """Every block of commands of which something is to be run."""
    return [
        block
        for block in blocks()
        if block.language == "sh" and not all(map(not_run, commands(block)))
    ]
