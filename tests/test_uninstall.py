"""`uninstall` on a terminal says what will go, and asks."""

import sys
from pathlib import Path

import pytest

from tests.strategies import LEAF1, LEAF2, encoded, host, tagged, vnet
from tests.terminal import Terminal
from tests.test_apply import Command

PORTS = tagged(LEAF1, LEAF2)
FRR = "etc/frr/frr.conf"


@pytest.fixture
def root(evpn_host: Command, tmp_path: Path) -> Path:
    """Return a tree on which a payload was applied over an operator's frr.conf."""
    root, source = tmp_path / "root", tmp_path / "payload.json"
    (root / FRR).parent.mkdir(parents=True)
    (root / FRR).write_text("hostname mine\n")
    source.write_bytes(encoded(host(vnet(26, prefixes=["10.26.0.1/24"], ports=PORTS))))
    assert evpn_host("apply", "--root", root, "-p", source, "-b", "ifupdown").code == 0
    return root


def uninstall(root: Path, answer: str, *options: str) -> tuple[int, str]:
    """Run it in a terminal; return its exit code and what it showed."""
    argv = [sys.executable, "-m", "generator", "uninstall", "--root", str(root), *options]
    terminal = Terminal(argv, {})
    if answer:
        terminal.wait(r"Remove all this\? \[y/N\]: ")
        terminal.type(answer)
    return terminal.end(), terminal.shown


def test_says_what_will_go_and_asks(root: Path) -> None:
    """It lists what goes and what comes back, and asks; the default is no."""
    code, shown = uninstall(root, "\n")
    assert code == 1
    lines = shown.splitlines()
    for line in (
        "- /etc/network/interfaces.d/evpn-host",
        "- device nbr-26 (bridge)",
        f"+ /{FRR}, as it was before",
    ):
        assert line in lines
    assert "~ the management address" in shown
    assert "nothing was changed" in shown
    assert (root / "etc/network/interfaces.d/evpn-host").exists()
    assert uninstall(root, "y\n")[0] == 0
    assert (root / FRR).read_text() == "hostname mine\n"
    assert not (root / "etc/network/interfaces.d/evpn-host").exists()


def test_does_not_ask_a_script(root: Path) -> None:
    """uninstall does not ask with `--yes`, or without a terminal."""
    code, shown = uninstall(root, "", "--yes")
    assert code == 0
    assert "Remove all this?" not in shown
    assert (root / FRR).read_text() == "hostname mine\n"
