"""preflight names firewalls that drop packets of guests or leaves."""

import shutil
from pathlib import Path

import pytest

from generator.activation import commands, firewall
from generator.activation.commands import Step
from generator.errors import NotInstalled
from generator.observed.iptables import Saved

CLOSED = """\
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		tcp dport 22 accept
	}
}
"""
OPEN = CLOSED.replace("policy drop", "policy accept")
OURS = """\
table inet evpn-host {
	chain input {
		iifname { "ens4", "ens5" } udp dport 4789 accept
		iifname { "Vrf_*", "nbr-*" } tcp dport 179 drop
	}
}
"""
OURS += OURS.replace("inet", "bridge")
UPLINKS = ["ens4", "ens5"]


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Return the rules by tool, which a test sets. A tool that has none is not installed."""
    known: dict[str, str] = {}

    def run(step: Step, log: object) -> str:
        del log
        if step.argv[0] not in known:
            raise NotInstalled(step.argv[0])
        return known[step.argv[0]]

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(firewall, "_LOADED", (tmp_path,))
    monkeypatch.setattr(shutil, "which", lambda name: name if name in known else None)
    return known


def named() -> list[str]:
    return [finding.what for finding in firewall.findings(UPLINKS, commands.silent)]


def test_a_firewall_that_drops_packets_of_leaves_is_named(rules: dict[str, str]) -> None:
    """A firewall that drops packets of leaves is named, unless a rule lets them in."""
    rules["nft"] = OPEN
    assert named() == []
    rules["nft"] = f"{OURS}{CLOSED}"
    assert named() == ["the firewall drops BGP, BFD, VXLAN that comes in"]
    rules["nft"] = CLOSED.replace("22 accept", "{ 22, 179 } accept")
    assert named() == ["the firewall drops BFD, VXLAN that comes in"]
    rules["nft"] = CLOSED.replace("tcp dport 22", 'iifname { "ens4", "ens5" }')
    assert named() == []


def test_a_host_without_nftables_has_no_filter(rules: dict[str, str]) -> None:
    """A host without nftables gets no packet filter of ours."""
    assert not rules
    assert named() == ["nft is not installed"]


def test_a_firewall_that_drops_forwarded_packets_is_named(rules: dict[str, str]) -> None:
    """A firewall that drops forwarded packets is named, unless a rule is for our bridges."""
    rules |= {"nft": OPEN, "iptables": "-P FORWARD DROP\n"}
    assert named() == ["iptables drops what is forwarded"]
    rules["iptables"] = "-P FORWARD DROP\n-A FORWARD -i nbr-+ -o nbr-+ -j ACCEPT\n"
    assert named() == []


def test_each_tool_of_iptables_is_read(
    rules: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rules of iptables are read from nft's or legacy's tool, whichever has some in the kernel."""
    monkeypatch.setattr(firewall, "_LEGACY", {each: tmp_path / each for each in ("ip", "ip6")})
    (tmp_path / "ip6").write_text("")
    rules |= {"iptables-nft-save": "a", "iptables-legacy-save": "b"}
    silent = commands.silent
    assert list(firewall.saved('{"nftables": []}', silent)) == []
    assert list(firewall.saved('[{"xt": {}}]', silent)) == [Saved("ip", False, "a")]
    (tmp_path / "ip").write_text("filter\n")
    assert list(firewall.saved("", silent)) == [Saved("ip", True, "b")]
    (tmp_path / "ip6").write_text("filter\n")
    with pytest.raises(NotInstalled):
        list(firewall.saved("", silent))


def test_asks_nobody_without_a_firewall(
    rules: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a firewall no tool is asked: it would load the kernel's modules."""
    rules["nft"] = CLOSED
    monkeypatch.setattr(firewall, "_LOADED", (tmp_path / "none",))
    assert named() == []
