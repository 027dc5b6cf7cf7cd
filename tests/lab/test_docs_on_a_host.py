"""What the pages show for a host works on one: each command, on a host as its page has it.

The first page makes a host of a machine, and the others are about one.
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

FOLDER = "/srv/documents"  # below /root the units see nothing
# These say by their exit code what they found.
TELLING = {"evpn-host diff": {0, 1}, "evpn-host status": {0, 1}}
# The first page makes a host of the machine that the others' commands are for.
FIRST = ["docs/index.md", "README.md"]


@pytest.fixture(scope="module")
def lab(fresh_lab: Any) -> Lab:
    """A server of the example's payload, to which nothing was done; a guest waits for its port."""
    lab: Lab = fresh_lab("trixie")
    lab.fabric.carry(payload())
    for example in (REPO / "examples").glob("*.json"):
        lab.machine.write(f"{FOLDER}/{example.name}", example.read_text())
    config = f"controller: {FOLDER}/k8s01.json\nhost: K8S01\n"
    lab.machine.write("/etc/evpn-host/config.yaml", config)
    lab.host.run(["ip", "link", "add", "vnet0", "type", "veth", "peer", "name", "guest"])
    return lab


def order(block: Block) -> tuple[int, str, int]:
    """The first pages first, the others by name."""
    place = FIRST.index(block.page) if block.page in FIRST else len(FIRST)
    return place, block.page, block.line


BLOCKS = sorted(filter(documents.in_the_lab, documents.shown()), key=order)


@pytest.mark.parametrize(
    "block",
    BLOCKS,
    ids=lambda block: f"{block.page}-{block.line}",
)
def test_commands(block: Block, lab: Lab) -> None:
    """Each command of a block does, on a host, what a reader would have it do."""
    _prepare(lab, is_host=block is not BLOCKS[0])
    for command in documents.commands(block):
        if documents.not_run(command):
            continue
        # libvirt's own stand-in for a hypervisor: no daemon, the real parser.
        done = lab.host.run(
            ["env", "LIBVIRT_DEFAULT_URI=test:///default", "bash", "-c", f"cd {FOLDER}; {command}"],
            check=False,
            timeout=600,
        )
        fine = next((codes for known, codes in TELLING.items() if command.startswith(known)), {0})
        assert done.code in fine, f"{command}: {done.code}\n{done.out}{done.err}"
    if any("evpn-host.timer" in command for command in documents.commands(block)):
        lab.host.run(["systemctl", "disable", "--now", "evpn-host.timer"])


def _prepare(lab: Lab, is_host: bool) -> None:
    """Have the machine be a host of the example, or none."""
    if (lab.host.run(["test", "-e", "/var/lib/evpn-host"], check=False).code == 0) == is_host:
        return
    if is_host:
        lab.host.evpn_host("install-units")
        lab.host.evpn_host("apply")
    else:
        lab.host.evpn_host("uninstall")


def test_demo(fresh_lab: Any) -> None:
    """`lab/demo`, as the README has it run: guest and bare metal reach each other, as it shows."""
    del fresh_lab  # it boots a machine of its own
    argv = [sys.executable, "-m", "lab.demo"]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "guest to gpu01: 5 of 5 answered" in done.stdout
    assert "nothing differs" in done.stdout
    printed = set(_lines(done.stdout))
    shown = (REPO / "README.md").read_text().partition("<!-- demo -->\n```text\n")[2]
    lines = _lines(shown.partition("```")[0])
    assert len(lines) > 50
    assert [line for line in lines if line not in printed] == [], done.stdout


def _lines(text: str) -> list[str]:
    """Lines without what differs from one run to the next: numbers, and how wide a table is."""
    return [" ".join(re.sub(r"\d+", "0", line).split()) for line in text.splitlines()]
