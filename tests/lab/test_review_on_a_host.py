"""A new user goes from an empty folder to a reviewed change on a host, by docs/review.md alone.

The commands are those of the page. The user's computer is the node `controller` of the lab, which
has files in common with the host; so a copy takes the place of scp. The lab does what the page
leaves to the user: Git knows their name, the package has its examples, the switches' ports become
underlay.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest

from lab.fabric import Lab, Node, eventually
from tests import documents
from tests.documents import Block
from tests.lab.k8s01 import established, underlay

FOLDER, HOME = "/srv/tour", "/srv/home"
PREPARE = f"""
mkdir -p {FOLDER} {HOME}/bin /usr/share/doc/evpn-host /etc/evpn-host
ln -s /opt/repo/examples /usr/share/doc/evpn-host/examples
printf '#!/bin/sh\\ncp "$1" "${{2#root@K8S01:}}"\\n' > {HOME}/bin/scp
chmod 755 {HOME}/bin/scp
git config --global user.name "A User"
git config --global user.email user@example.com
evpn-host install-units
"""


@pytest.fixture(scope="module")
def lab(fresh_lab: Any) -> Lab:
    """A server that has never had a payload; its ports are in the management V-Net."""
    lab: Lab = fresh_lab("trixie")
    lab.host.run(["env", f"HOME={HOME}", "sh", "-euc", PREPARE])
    return lab


def test_from_an_empty_folder_to_a_host(lab: Lab) -> None:
    """All commands succeed and print what the page shows; guests use the new V-Net."""
    output = ""
    for block in documents.tour():
        if block.language == "text":
            missing = set(_lines(block.text)) - set(_lines(output))
            assert not missing, f"docs/review.md:{block.line}: {missing} in {output}"
        elif block.language == "sh":
            output = _run(lab, block)
        if "evpn-host apply" in documents.commands(block):
            underlay(lab.fabric, on=True)
            eventually(lambda: established(lab.host) == {"ens4", "ens5"})
    first = lab.host.pod("first", "nbr-26", "10.188.0.10/24", "10.188.0.254")
    second = lab.host.pod("second", "nbr-31", "10.188.1.10/24", "10.188.1.254")
    eventually(partial(second.ping, "10.188.1.254", count=1))
    eventually(partial(second.ping, first, count=1))


def _run(lab: Lab, block: Block) -> str:
    """Run the commands of a block on their computer, in the folder where the last block ended."""
    place = f"{HOME}/folder"
    script = f'cd "$(cat {place} 2> {HOME}/none || echo {FOLDER})"\n{block.text}pwd > {place}\n'
    node: Node = lab.fabric.controller
    if documents.in_the_lab(block):
        node = lab.host
        # A run that the timer started before may have fetched the payload too early.
        eventually(lambda: host_is_idle(lab))
    path = f"PATH={HOME}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    argv = ["env", f"HOME={HOME}", path, "bash", "-euo", "pipefail", "-c", script]
    result = node.run(argv, check=False, timeout=300)
    assert result.code == 0, f"{block.page}:{block.line}\n{result.out}{result.err}"
    return result.out


def host_is_idle(lab: Lab) -> bool:
    """Return whether no run of the host's unit is active."""
    state = lab.host.run(["systemctl", "is-active", "evpn-host.service"], check=False).out.strip()
    return state not in {"activating", "deactivating"}


def _lines(text: str) -> list[str]:
    """Return lines without numbers, which differ between runs, and without space around."""
    return [re.sub(r"\d+", "0", line.strip()) for line in text.splitlines()]
