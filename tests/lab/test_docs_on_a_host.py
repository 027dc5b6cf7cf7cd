"""Each command that the documentation shows for a host works on a host.

The commands of the first page turn a machine into a host; the other pages need one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from lab.fabric import Lab
from tests import documents
from tests.documents import REPO, Block
from tests.lab.k8s01 import payload

FOLDER = "/srv/documents"  # not below /root, which the units can't read
# The allowed exit codes of commands that report a result by their exit code.
EXIT_CODES = {"evpn-host diff": {0, 1}, "evpn-host status": {0, 1}, "evpn-host trace": {0, 1}}
# These pages come first: they turn the machine into the host that the other pages' commands need.
FIRST = ["docs/index.md", "README.md"]


@pytest.fixture(scope="module")
def lab(fresh_lab: Any) -> Lab:
    """The server of the example's payload, before any apply; a guest waits for its port."""
    lab: Lab = fresh_lab("trixie")
    lab.fabric.carry(payload())
    for example in (REPO / "examples").glob("*.json"):
        lab.machine.write(f"{FOLDER}/{example.name}", example.read_text())
    config = f"controller: {FOLDER}/k8s01.json\nhost: K8S01\n"
    lab.machine.write("/etc/evpn-host/config.yaml", config)
    lab.host.run(["ip", "link", "add", "vnet0", "type", "veth", "peer", "name", "guest"])
    return lab


def order(block: Block) -> tuple[int, str, int]:
    """Return the sort key of blocks: the pages of FIRST come first, the others by name."""
    place = FIRST.index(block.page) if block.page in FIRST else len(FIRST)
    return place, block.page, block.line


BLOCKS = sorted(filter(documents.in_the_lab, documents.shown()), key=order)


@pytest.mark.parametrize(
    "block",
    BLOCKS,
    ids=lambda block: f"{block.page}-{block.line}",
)
def test_commands(block: Block, lab: Lab) -> None:
    """Each command of a block succeeds on a host."""
    _prepare(lab, is_host=block is not BLOCKS[0])
    for command in documents.commands(block):
        if documents.not_run(command):
            continue
        # libvirt's test driver replaces a hypervisor: it needs no daemon and has the real parser.
        result = lab.host.run(
            ["env", "LIBVIRT_DEFAULT_URI=test:///default", "bash", "-c", f"cd {FOLDER}; {command}"],
            check=False,
            timeout=600,
        )
        codes = next((each for start, each in EXIT_CODES.items() if command.startswith(start)), {0})
        assert result.code in codes, f"{command}: {result.code}\n{result.out}{result.err}"
    if any("evpn-host.timer" in command for command in documents.commands(block)):
        lab.host.run(["systemctl", "disable", "--now", "evpn-host.timer"])


def _prepare(lab: Lab, is_host: bool) -> None:
    """Make the machine the example's host, or remove the product from it."""
    if (lab.host.run(["test", "-e", "/var/lib/evpn-host"], check=False).code == 0) == is_host:
        return
    if is_host:
        lab.host.evpn_host("install-units")
        lab.host.evpn_host("apply")
    else:
        lab.host.evpn_host("uninstall")


def test_demo(fresh_lab: Any) -> None:
    """`lab/demo` runs as in the README: guest and bare metal reach each other, same output."""
    del fresh_lab  # the demo boots a machine of its own
    argv = [sys.executable, "-m", "lab.demo"]
    demo = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False, timeout=1800)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "guest to gpu01: 5 of 5 answered" in demo.stdout
    assert "nothing differs" in demo.stdout
    output = set(_lines(demo.stdout))
    example = (REPO / "README.md").read_text().partition("<!-- demo -->\n```text\n")[2]
    lines = _lines(example.partition("```")[0])
    assert len(lines) > 50
    assert [line for line in lines if line not in output] == [], demo.stdout


def _lines(text: str) -> list[str]:
    """Return lines without what differs between two runs.

    These are numbers, the width of tables, and how many sessions are Established at the moment
    at which the address moves: one or both.
    """
    numbers = re.sub(r"\d+", "0", text)
    sessions = re.sub(r"(Established with ens0)(, ens0)+", r"\1", numbers)
    return [" ".join(line.split()) for line in sessions.splitlines()]
