"""preflight names firewalls that drop packets of guests or leaves.

nft and iptables themselves load the rules, in a network namespace of their own.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from generator.activation import commands, firewall
from generator.activation.commands import Step
from generator.desired import payload
from generator.desired.model import Host
from generator.errors import NotInstalled
from generator.observed.iptables import Saved
from lab.result import LabUnavailable
from lab.root import Root
from tests.conftest import unavailable

EXAMPLE = Path(__file__).parents[1] / "examples/k8s01.json"
CLOSED = """
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    meta l4proto { icmp, ipv6-icmp } accept
    tcp dport 22 accept
  }
}
"""
# The same in another notation: it refuses by its last rule, and looks names up in maps.
MAPPED = """
table inet filter {
  set ports { type inet_service; elements = { 22, 80 }; }
  map zones { type ifname : verdict; elements = { "ens4" : jump office, "ens5" : jump office }; }
  chain office { tcp dport @ports accept; }
  chain input {
    type filter hook input priority filter; policy accept;
    ct state vmap { established : accept, related : accept, invalid : drop, untracked : accept }
    iifname vmap @zones
    counter reject
  }
}
"""
# A part of what firewalld 1.3.3 of Debian 12 makes.
FIREWALLD = """
table inet firewalld {
  chain filter_IN_public_allow { tcp dport 22 accept; }
  chain filter_IN_public {
    jump filter_IN_public_allow
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT_ZONES { goto filter_IN_public; }
  chain filter_FWD_public { reject with icmpx admin-prohibited; }
  chain filter_FORWARD_ZONES { goto filter_FWD_public; }
  chain filter_PREROUTING {
    type filter hook prerouting priority filter + 10; policy accept;
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop
  }
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    ip6 daddr { ::/96, 2002::/24 } reject with icmpv6 addr-unreachable
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
}
"""
# A part of what ufw 0.36 makes.
UFW = """
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-not-local - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -j ufw-user-input
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -j DROP
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
"""
# As hardening guides have it, in both families: answers alone come in, and new connections go out.
HARDENED = """
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT DROP [0:0]
-A INPUT -i lo -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
-A INPUT -m state --state ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -m state --state NEW -j ACCEPT
-A OUTPUT -p tcp -m state --state NEW,ESTABLISHED -j ACCEPT
COMMIT
"""
# What may pass, by a set; that this family has no rule about it does not help the other one.
IPV4_ALONE = """
table ip filter {
  chain input {
    type filter hook input priority filter; policy drop;
    th dport { 22, 179, 3784, 4789 } accept
  }
}
table ip6 filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established accept
  }
}
"""
OURS = """
table inet evpn-host {
  chain input {
    type filter hook input priority filter; policy accept;
    udp dport 4789 drop
  }
}
"""
FORWARDED = """
table inet mine {
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname "Vrf_*" oifname "nbr-*" accept
  }
}
"""
FROM_LEAVES = "the firewall drops BGP, BFD, VXLAN that comes in"


@pytest.fixture(scope="module")
def root(root_user: None) -> Iterator[Root]:
    """A suite's tools, in a network namespace."""
    del root_user
    try:
        with Root("trixie") as tree:
            if tree.run(["nft", "list", "ruleset"], check=False).code:
                pytest.skip("this kernel has no nftables")
            yield tree
    except LabUnavailable as reason:
        unavailable(str(reason))


@pytest.fixture
def told(
    root: Root, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., list[str]]]:
    """Return what has tools load a text, and returns what is said of it."""

    def run(step: Step, log: object) -> str:
        del log
        return root.run(step.argv).out

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(firewall, "_LOADED", (tmp_path,))
    monkeypatch.setattr(firewall, "_LEGACY", {each: tmp_path / each for each in ("ip", "ip6")})
    monkeypatch.setattr(shutil, "which", lambda name: name)

    def load(text: str, *tools: str) -> list[str]:
        root.run(["nft", "flush", "ruleset"])
        for tool in tools or ("nft",):
            root.run([tool, *(["-f", "-"] if tool == "nft" else [])], input=text)
        return named()

    yield load
    root.run(["nft", "flush", "ruleset"])


def host() -> Host:
    return payload.load(EXAMPLE.read_bytes()).hosts[0]


def named() -> list[str]:
    return [finding.what for finding in firewall.findings(host(), commands.silent)]


BOTH = ("iptables-nft-restore", "ip6tables-nft-restore")


def test_what_the_leaves_send(told: Callable[..., list[str]]) -> None:
    """What a rule lets in, by its port or by the uplink, is not named."""
    assert told(CLOSED.replace("policy drop", "policy accept")) == []
    assert told(CLOSED) == [FROM_LEAVES]
    more = CLOSED.replace("tcp dport 22", "tcp dport { 22, 179 }")
    assert told(more) == ["the firewall drops BFD, VXLAN that comes in"]
    assert told(CLOSED.replace("tcp dport 22", 'iifname { "ens4", "ens5" }')) == []
    one = CLOSED.replace("tcp dport 22", 'iifname "ens4"')
    assert told(one) == [FROM_LEAVES]
    no_icmp = CLOSED.replace("meta l4proto { icmp, ipv6-icmp } accept", "")
    assert told(no_icmp) == [
        "the firewall drops BGP, BFD, VXLAN, neighbour discovery that comes in"
    ]
    assert told(OURS) == []


def test_a_family(told: Callable[..., list[str]]) -> None:
    """A session that has the name of a NIC is IPv6, and VXLAN is IPv4."""
    assert told(IPV4_ALONE) == ["the firewall drops BGP, BFD, neighbour discovery that comes in"]


def test_rules_that_refuse_at_their_end(told: Callable[..., list[str]]) -> None:
    """Their policy is to accept. Those of firewalld, and those with maps."""
    assert told(FIREWALLD) == [FROM_LEAVES, "nftables drops what is forwarded"]
    opened = FIREWALLD.replace(
        "tcp dport 22", "meta l4proto { tcp, udp } th dport { 179, 3784, 4789 }"
    )
    assert told(opened) == ["nftables drops what is forwarded"]
    assert told(MAPPED) == [FROM_LEAVES]
    assert told(MAPPED.replace("tcp dport @ports", "counter")) == []


def test_rules_of_ufw(told: Callable[..., list[str]]) -> None:
    """It asks whether a packet is for this host. What it is told to let in is not named."""
    forwarded = "iptables drops what is forwarded"
    assert told(UFW, BOTH[0]) == ["the firewall drops VXLAN that comes in", forwarded]
    vxlan = "-A ufw-user-input -p udp -m udp --dport 4789 -j ACCEPT\nCOMMIT"
    assert told(UFW.replace("COMMIT", vxlan), BOTH[0]) == [forwarded]


def test_a_hardened_host(told: Callable[..., list[str]]) -> None:
    """What it sends is dropped too, and neighbour discovery, without which there is no session."""
    assert told(HARDENED, *BOTH) == [
        "the firewall drops BGP, BFD, VXLAN, neighbour discovery that comes in",
        "the firewall drops BFD, VXLAN, neighbour discovery that goes out",
        "iptables drops what is forwarded",
        "ip6tables drops what is forwarded",
    ]


def test_what_is_forwarded(told: Callable[..., list[str]]) -> None:
    """A rule for our bridges lets guests through: what is routed, and what is bridged."""
    bridged = "-A FORWARD -i nbr-+ -o nbr-+ -j ACCEPT\n"
    routed = "-A FORWARD -i Vrf_+ -j ACCEPT\n"
    text = "*filter\n:FORWARD DROP [0:0]\n{}COMMIT\n"
    dropped = ["iptables drops what is forwarded"]
    for rules in ("", bridged, routed):
        assert told(text.format(rules), BOTH[0]) == dropped, rules
    assert told(text.format(bridged + routed), BOTH[0]) == []
    assert told(FORWARDED) == ["nftables drops what is forwarded"]
    both = FORWARDED.replace('"Vrf_*"', '{ "Vrf_*", "nbr-*" }')
    assert told(both) == []


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Return what tools print, which a test sets. A tool that has none is not installed."""
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


def test_a_host_without_nftables_has_no_filter(rules: dict[str, str]) -> None:
    """A host without nftables gets no packet filter of ours."""
    assert not rules
    assert named() == ["nft is not installed"]


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
    rules["nft"] = ""
    monkeypatch.setattr(firewall, "_LOADED", (tmp_path / "none",))
    assert named() == []
