"""The rules of both tables of our filter are counted, in this computer's own kernel."""

import subprocess
import sys

from generator.desired.plan import _RULE
from lab.root import Root
from tests.conftest import REPO, unavailable

FILE = REPO / "snapshots/router-advertisements-netplan/etc/nftables.d/evpn-host.nft"
COUNT = "from generator.observed import filter; print(filter.rules())"


def count(root: Root) -> int:
    """Return what the product counts in the tree's network."""
    enter = ["nsenter", f"--target={root._warden.pid}", "--net"]
    argv = [*enter, sys.executable, "-c", COUNT]
    return int(subprocess.run(argv, check=True, capture_output=True, text=True, cwd=REPO).stdout)


def test_both_tables_count(root_user: None) -> None:
    """The count is the plan's with both tables, less without one, and 0 without both."""
    del root_user
    text = FILE.read_text()
    planned = len(_RULE.findall(text))
    frames = len(_RULE.findall(text[text.index("table bridge evpn-host {") :]))
    assert 0 < frames < planned
    with Root() as root:
        if root.run(["nft", "-f", "-"], input=text, check=False).code:
            unavailable("this computer's kernel has no nftables")
        assert count(root) == planned
        root.run("nft delete table bridge evpn-host".split())
        assert count(root) == planned - frames
        root.run("nft delete table inet evpn-host".split())
        assert count(root) == 0
