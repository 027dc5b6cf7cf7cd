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
# The same in another notation: the last rule rejects, and verdict maps choose the chains.
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
# A part of the rules of firewalld 1.3.3 (Debian 12).
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
# A part of the rules of ufw 0.36.
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
# The rules of hardening guides, for both families: answers and SSH come in, and TCP goes out.
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
# A set has the accepted ports, but only for IPv4.
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
    with Root("trixie") as tree:
        if tree.run(["nft", "list", "ruleset"], check=False).code:
            unavailable("this kernel has no nftables")
        yield tree


@pytest.fixture
def load_and_name(
    root: Root, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., list[str]]]:
    """Return a function that has the tools load rules, and returns the names of the findings."""

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


def test_a_firewall_that_drops_packets_of_leaves_is_named(
    load_and_name: Callable[..., list[str]],
) -> None:
    """A packet that a rule accepts, by its port or by the uplink, is not named."""
    assert load_and_name(CLOSED.replace("policy drop", "policy accept")) == []
    assert load_and_name(CLOSED) == [FROM_LEAVES]
    more = CLOSED.replace("tcp dport 22", "tcp dport { 22, 179 }")
    assert load_and_name(more) == ["the firewall drops BFD, VXLAN that comes in"]
    assert load_and_name(CLOSED.replace("tcp dport 22", 'iifname { "ens4", "ens5" }')) == []
    one = CLOSED.replace("tcp dport 22", 'iifname "ens4"')
    assert load_and_name(one) == [FROM_LEAVES]
    no_icmp = CLOSED.replace("meta l4proto { icmp, ipv6-icmp } accept", "")
    assert load_and_name(no_icmp) == [
        "the firewall drops BGP, BFD, VXLAN, neighbour discovery that comes in"
    ]
    assert load_and_name(OURS) == []


def test_each_family_needs_its_own_rules(load_and_name: Callable[..., list[str]]) -> None:
    """An unnumbered session is IPv6, and VXLAN is IPv4."""
    assert load_and_name(IPV4_ALONE) == [
        "the firewall drops BGP, BFD, neighbour discovery that comes in"
    ]


def test_a_last_rule_that_rejects_is_named(load_and_name: Callable[..., list[str]]) -> None:
    """The policy of these chains is to accept: firewalld's, and others with verdict maps."""
    assert load_and_name(FIREWALLD) == [FROM_LEAVES, "nftables drops what is forwarded"]
    opened = FIREWALLD.replace(
        "tcp dport 22", "meta l4proto { tcp, udp } th dport { 179, 3784, 4789 }"
    )
    assert load_and_name(opened) == ["nftables drops what is forwarded"]
    assert load_and_name(MAPPED) == [FROM_LEAVES]
    assert load_and_name(MAPPED.replace("tcp dport @ports", "counter")) == []


def test_rules_of_ufw_are_followed(load_and_name: Callable[..., list[str]]) -> None:
    """ufw asks whether a packet is for this host. Packets that it accepts are not named."""
    forwarded = "iptables drops what is forwarded"
    assert load_and_name(UFW, BOTH[0]) == ["the firewall drops VXLAN that comes in", forwarded]
    vxlan = "-A ufw-user-input -p udp -m udp --dport 4789 -j ACCEPT\nCOMMIT"
    assert load_and_name(UFW.replace("COMMIT", vxlan), BOTH[0]) == [forwarded]


def test_outgoing_packets_and_neighbour_discovery_are_named(
    load_and_name: Callable[..., list[str]],
) -> None:
    """A hardened host also drops what it sends, and neighbour discovery, which sessions need."""
    assert load_and_name(HARDENED, *BOTH) == [
        "the firewall drops BGP, BFD, VXLAN, neighbour discovery that comes in",
        "the firewall drops BFD, VXLAN, neighbour discovery that goes out",
        "iptables drops what is forwarded",
        "ip6tables drops what is forwarded",
    ]


def test_a_firewall_that_drops_forwarded_packets_is_named(
    load_and_name: Callable[..., list[str]],
) -> None:
    """Guests need a rule for routed and one for bridged packets."""
    bridged = "-A FORWARD -i nbr-+ -o nbr-+ -j ACCEPT\n"
    routed = "-A FORWARD -i Vrf_+ -j ACCEPT\n"
    text = "*filter\n:FORWARD DROP [0:0]\n{}COMMIT\n"
    dropped = ["iptables drops what is forwarded"]
    for rules in ("", bridged, routed):
        assert load_and_name(text.format(rules), BOTH[0]) == dropped, rules
    assert load_and_name(text.format(bridged + routed), BOTH[0]) == []
    assert load_and_name(FORWARDED) == ["nftables drops what is forwarded"]
    both = FORWARDED.replace('"Vrf_*"', '{ "Vrf_*", "nbr-*" }')
    assert load_and_name(both) == []


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Return the output of each tool, which a test sets. A tool without output is not installed."""
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


def test_no_tool_runs_without_a_firewall(
    rules: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a firewall no tool is asked: it would load the kernel's modules."""
    rules["nft"] = ""
    monkeypatch.setattr(firewall, "_LOADED", (tmp_path / "none",))
    assert named() == []
